//! The body of a request, which detects that the upload has ended early.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::context::{Cause, Context};
use crate::tower::cause::ClientGone;
use crate::tower::error::{BoxError, SharedError};
use crate::tracing;

pin_project! {
    /// The body of a request that came through a [`ContextLayer`](crate::tower::ContextLayer).
    ///
    /// It gives the frames of the inner body. If the inner body fails, or ends before the length
    /// that it has announced, the client has disconnected during its upload. The request's context
    /// is then cancelled with [`ClientGone`] *before* the handler learns that the body has ended.
    ///
    /// # An upload that looks complete
    ///
    /// Some handlers never receive the error: when the client cancels a stream, tonic returns
    /// `Ok(None)` to its reader, the same as at a normal end. So check the context when the body
    /// has ended, before the upload takes effect:
    ///
    /// ```
    /// # use errgroup::{Context, ContextError};
    /// # struct Upload;
    /// # impl Upload {
    /// #     async fn message(&mut self) -> Result<Option<u8>, ContextError> { Ok(None) }
    /// # }
    /// # async fn commit(_: Vec<u8>) {}
    /// # async fn handle(ctx: Context, mut upload: Upload) -> Result<(), ContextError> {
    /// let mut rows = Vec::new();
    /// while let Some(row) = upload.message().await? {
    ///     rows.push(row);
    /// }
    /// ctx.check()?; // the upload may have ended early
    /// commit(rows).await;
    /// # Ok(()) }
    /// ```
    ///
    /// After the end of the body, `check` fails if the upload has ended early, whatever else has
    /// ended the context before. The cause tells which it was. Do not ask for
    /// `caused_by::<ClientGone>()` here: the first end of a context is final, so a context whose
    /// deadline has passed, or whose server has stopped, does not change its cause when the client
    /// leaves.
    ///
    /// # The error
    ///
    /// The error of this body displays as the inner body's error, which is its
    /// [`source`](std::error::Error::source). It is the source of the cause, too.
    pub struct RequestBody<B> {
        // None for a body that was empty on arrival, and after the end.
        ctx: Option<Context>,
        // The bytes that are still to come, if the body has announced their number.
        left: Option<u64>,
        #[pin]
        inner: B,
    }
}

/// The error behind the cause for a body that ends without an error, and too early.
#[derive(Debug, thiserror::Error)]
#[error("the body ended {left} bytes before its announced length")]
struct EndedEarly {
    left: u64,
}

impl<B: Body> RequestBody<B> {
    pub(in crate::tower) fn new(ctx: &Context, inner: B) -> RequestBody<B> {
        let is_empty = inner.is_end_stream();
        RequestBody {
            ctx: (!is_empty).then(|| ctx.clone()),
            left: if is_empty {
                None
            } else {
                inner.size_hint().exact()
            },
            inner,
        }
    }
}

/// Cancels the context: the upload has ended early.
fn cancel(ctx: &mut Option<Context>, error: SharedError) {
    if let Some(ctx) = ctx.take() {
        let cause = Cause::from(ClientGone::in_upload(error));
        tracing::cancelled(|| ctx.is_done(), Some(&cause));
        ctx.end_with(cause);
    }
}

impl<B> Body for RequestBody<B>
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
        let this = self.project();
        match ready!(this.inner.poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let (Some(left), Some(data)) = (this.left, frame.data_ref()) {
                    *left = left.saturating_sub(data.remaining() as u64);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let error = SharedError::new(error);
                cancel(this.ctx, error.clone());
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                if let Some(left @ 1..) = *this.left {
                    cancel(this.ctx, SharedError::new(EndedEarly { left }));
                }
                Poll::Ready(None)
            }
        }
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
