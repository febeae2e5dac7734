//! The bodies of a request and of its response, which see what becomes of the client.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use bytes::Buf;
use http::header::CONTENT_LENGTH;
use http::{StatusCode, response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::cause::{BODY_FAILED, ClientGone};
use super::error::BoxError;
use super::scope::{GRPC_DEADLINE_EXCEEDED, Scope};
use crate::context::CancelHandle;

pin_project! {
    /// The body of a request that came through a [`ContextLayer`](super::ContextLayer).
    ///
    /// It is the inner body, but for one thing: if that fails, the client has gone in the middle of its upload, and the
    /// request's context has ended with [`ClientGone`] *before* the handler sees the error. Some handlers never see it:
    /// tonic gives `Ok(None)` to the reader of a stream that the client cancelled, as at a real end. The context tells
    /// these apart.
    pub struct RequestBody<B> {
        handle: CancelHandle,
        #[pin]
        inner: B,
    }
}

impl<B> RequestBody<B> {
    pub(super) fn new(handle: CancelHandle, inner: B) -> RequestBody<B> {
        RequestBody { handle, inner }
    }
}

impl<B: Body> Body for RequestBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if let Some(Err(_)) = frame {
            this.handle.cancel_with(ClientGone);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a response that went through a [`ContextLayer`](super::ContextLayer).
    ///
    /// It is the inner body, with the rest of the request's life in it. Dropped before its end, it ends the request's context
    /// with [`ClientGone`]; at its end, with [`RequestFinished`](super::RequestFinished). When the deadline passes
    /// first, the inner body is dropped and this one ends: with trailers that say `grpc-status: 4` for gRPC, with an
    /// error that makes the server abort the response otherwise, and where a length was announced that has not come.
    ///
    /// # What counts as the end
    ///
    /// Servers drop a body as soon as they know that nothing more will come of it, and do not poll for the `None`. So a body has
    /// been handed over whole when it says so ([`is_end_stream`](Body::is_end_stream)), also before its first frame; when
    /// it has given trailers; when as many bytes have come as `content-length` or its size hint announced; and from the
    /// start where HTTP allows none (an answer to HEAD, the statuses 1xx, 204 and 304). *Handed over* is to the server: what
    /// of it the client has received, nobody knows.
    pub struct ResponseBody<B> {
        // None when the request is over. Before the inner body, so that the context has ended by the time that is dropped.
        scope: Option<Scope>,
        // So many bytes are still to come, where that was said.
        left: Option<u64>,
        #[pin]
        inner: Option<B>,
    }
}

impl<B> ResponseBody<B> {
    /// That of an answer which the layer gives itself.
    pub(super) fn empty() -> ResponseBody<B> {
        ResponseBody {
            scope: None,
            left: None,
            inner: None,
        }
    }
}

impl<B: Body> ResponseBody<B> {
    pub(super) fn new(mut scope: Scope, parts: &response::Parts, inner: B) -> ResponseBody<B> {
        let left = announced(parts).or_else(|| inner.size_hint().exact());
        if scope.is_head || has_no_body(parts.status) || left == Some(0) {
            scope.guard.mark_complete();
        }
        let scope = if inner.is_end_stream() {
            scope.guard.finish();
            None
        } else {
            Some(scope)
        };
        ResponseBody {
            scope,
            left,
            inner: Some(inner),
        }
    }
}

fn announced(parts: &response::Parts) -> Option<u64> {
    let value = parts.headers.get(CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The result of a poll of the inner body.
enum Polled<D, E> {
    Frame(Option<Result<Frame<D>, E>>),
    DeadlinePassed,
}

fn poll_before_deadline<B: Body>(
    scope: &mut Scope,
    inner: Pin<&mut B>,
    cx: &mut task::Context<'_>,
) -> Poll<Polled<B::Data, B::Error>> {
    // The clock before the body: whatever it has to say at the deadline, it says too late.
    if !scope.deadline.has_passed() {
        if let Poll::Ready(frame) = scope.guard.run(|| inner.poll_frame(cx)) {
            return Poll::Ready(Polled::Frame(frame));
        }
        ready!(scope.deadline.poll(cx));
    }
    Poll::Ready(Polled::DeadlinePassed)
}

/// Ends the context at its deadline, and gives the last frame.
fn cut_off<D>(scope: &mut Scope, left: Option<u64>) -> Result<Frame<D>, BoxError> {
    let error = scope.expire();
    // A body that is shorter than was announced is broken, whatever its trailers say.
    match left {
        None | Some(0) => scope.protocol.last_frame(GRPC_DEADLINE_EXCEEDED, error),
        Some(_) => Err(error.into()),
    }
}

/// Subtracts the bytes of `frame` from those that were announced.
fn count_data<D: Buf>(frame: &Frame<D>, left: &mut Option<u64>, scope: &mut Scope) {
    if let (Some(left), Some(data)) = (left, frame.data_ref()) {
        *left = left.saturating_sub(data.remaining() as u64);
        if *left == 0 {
            scope.guard.mark_complete();
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Some(scope) = this.scope else {
            // Whole, and polled all the same.
            return inner.poll_frame(cx).map_err(Into::into);
        };
        let frame = match ready!(poll_before_deadline(scope, inner.as_mut(), cx)) {
            Polled::Frame(frame) => frame,
            Polled::DeadlinePassed => {
                let last = cut_off(scope, *this.left);
                *this.scope = None;
                this.inner.set(None);
                return Poll::Ready(Some(last));
            }
        };
        let is_over = match &frame {
            Some(Ok(frame)) => {
                count_data(frame, this.left, scope);
                frame.is_trailers() || inner.is_end_stream()
            }
            Some(Err(_)) | None => true,
        };
        if is_over {
            match &frame {
                Some(Err(_)) => scope.guard.fail(&BODY_FAILED),
                Some(Ok(_)) | None => scope.guard.finish(),
            }
            *this.scope = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    /// Not before the scope knows it too. A body may learn of its end between two polls (one that comes from another server), and
    /// whoever were told of it here would not poll again.
    fn is_end_stream(&self) -> bool {
        self.scope.is_none() && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("is_over", &self.scope.is_none())
            .finish_non_exhaustive()
    }
}
