//! Reads and writes that fail with the error of their context: the loops of std and tokio must not
//! try again.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{self, Poll, ready};

use errgroup::{CancelGuard, Context, ContextError, TaskError, TaskErrorKind, fan_out};
use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::group_support::in_time;
use crate::support::ms;

/// Fails with the error of its context, and does not take an attempt that follows a failure.
struct Checked {
    ctx: Context,
    has_failed: Cell<bool>,
}

impl Checked {
    fn new(ctx: Context) -> Checked {
        Checked {
            ctx,
            has_failed: Cell::new(false),
        }
    }

    fn check(&self) -> io::Result<()> {
        let checked = self.ctx.check();
        if checked.is_err() {
            assert!(!self.has_failed.replace(true), "tried again after an error");
        }
        Ok(checked?)
    }
}

/// The same for std's traits.
struct Blocking(Checked);

impl Read for Blocking {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.check()?;
        buf.fill(b'x');
        Ok(buf.len())
    }
}

impl Write for Blocking {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.check()?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.check()
    }
}

impl AsyncRead for Checked {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        buf.put_slice(b"x");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Checked {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A reader over a stream of chunks. A stream that has failed has no more items, which reads as the
/// end of the data.
struct StreamReader<S> {
    chunks: S,
    chunk: Vec<u8>,
}

impl<S> StreamReader<S> {
    fn new(chunks: S) -> StreamReader<S> {
        StreamReader {
            chunks,
            chunk: Vec::new(),
        }
    }
}

impl<S: Stream<Item = io::Result<Vec<u8>>> + Unpin> AsyncRead for StreamReader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.chunk.is_empty() {
            if let Some(chunk) = ready!(Pin::new(&mut self.chunks).poll_next(cx)) {
                self.chunk = chunk?;
            }
        }
        let fits = self.chunk.len().min(buf.remaining());
        buf.put_slice(&self.chunk[..fits]);
        self.chunk.drain(..fits);
        Poll::Ready(Ok(()))
    }
}

fn cancelled() -> Context {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with("stop");
    ctx
}

/// All the ways in which a context ends.
fn ended() -> [(Context, io::ErrorKind); 3] {
    let (dropped, _) = Context::background().with_cancel();
    let late = Context::background().with_timeout(ms(0));
    [
        (cancelled(), io::ErrorKind::Other),
        (dropped, io::ErrorKind::Other),
        (late, io::ErrorKind::TimedOut),
    ]
}

#[track_caller]
fn failed_with(result: io::Result<impl Sized>, kind: io::ErrorKind) {
    let Err(error) = result else {
        panic!("this succeeds although its context is done");
    };
    assert_eq!(error.kind(), kind);
    assert!(error.get_ref().unwrap().is::<ContextError>());
}

/// Four of ten chunks come, and then the context is cancelled.
fn download(guard: CancelGuard, ctx: &Context) -> impl Stream<Item = io::Result<Vec<u8>>> {
    let chunks = fan_out(ctx, 0..10, |_, chunk| async move {
        if chunk == 4 {
            std::future::pending::<()>().await;
        }
        Ok::<_, io::Error>(vec![b'x'; 1000])
    });
    let mut taken = 0;
    let mut stream = Box::pin(chunks.limit(1).try_stream());
    futures::stream::poll_fn(move |cx| {
        let next = ready!(stream.as_mut().poll_next(cx));
        taken += 1;
        if taken == 4 {
            guard.cancel_with("stop");
        }
        Poll::Ready(next)
    })
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_cancelled_stream_fails() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut reader = StreamReader::new(download(guard, &ctx));
    let mut file = Vec::new();
    let copied = in_time(tokio::io::copy(&mut reader, &mut file)).await;
    failed_with(copied, io::ErrorKind::Other);
}

#[tokio::test(start_paused = true)]
async fn a_read_to_the_end_of_a_cancelled_stream_fails() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut reader = StreamReader::new(download(guard, &ctx));
    let mut file = Vec::new();
    let read = in_time(reader.read_to_end(&mut file)).await;
    failed_with(read, io::ErrorKind::Other);
    assert_eq!(file.len(), 4000);
}

#[tokio::test(start_paused = true)]
async fn tokios_loops_end_at_the_first_context_error() {
    for (ctx, kind) in ended() {
        let io = || Checked::new(ctx.clone());
        failed_with(io().read_exact(&mut [0; 8]).await, kind);
        failed_with(io().read_to_end(&mut Vec::new()).await, kind);
        failed_with(io().read_u32().await, kind);
        failed_with(io().write_all(b"bytes").await, kind);
        failed_with(io().write_u32(7).await, kind);
        let copied = tokio::io::copy(&mut io(), &mut tokio::io::sink()).await;
        failed_with(copied, kind);
        let copied = tokio::io::copy(&mut &b"bytes"[..], &mut io()).await;
        failed_with(copied, kind);
    }
}

#[test]
fn stds_loops_end_at_the_first_context_error() {
    for (ctx, kind) in ended() {
        let io = || Blocking(Checked::new(ctx.clone()));
        failed_with(io().read_exact(&mut [0; 8]), kind);
        failed_with(io().read_to_end(&mut Vec::new()), kind);
        failed_with(io().write_all(b"bytes"), kind);
        failed_with(io::copy(&mut io(), &mut io::sink()), kind);
        failed_with(io::copy(&mut &b"bytes"[..], &mut io()), kind);
    }
}

/// A quorum that cannot be reached is a `ContextError` too, though no context has ended.
#[tokio::test(start_paused = true)]
async fn a_quorum_out_of_reach_is_no_reason_to_try_again() {
    let ctx = Context::background();
    let one = fan_out(
        &ctx,
        0..1,
        |_, item| async move { Ok::<_, io::Error>(item) },
    );
    let errors = one.quorum(2).await.unwrap_err();
    let kinds = errors.into_iter().map(TaskError::into_kind);
    for kind in kinds {
        match kind {
            TaskErrorKind::Aborted(error) => {
                failed_with(Err::<(), _>(error.into()), io::ErrorKind::Other);
            }
            other => panic!("nothing failed here: {other}"),
        }
    }
}
