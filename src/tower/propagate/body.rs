//! The body of a call's response, which ends when the call's context is done.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::context::{Context, ContextError, DoneOwned};
use crate::tower::error::BoxError;
use crate::tower::protocol::Protocol;
use crate::tower::scope::GRPC_DEADLINE_EXCEEDED;

pin_project! {
    /// The body of a response to a call that went through a
    /// [`PropagateLayer`](super::PropagateLayer).
    ///
    /// It gives the frames of the inner body until the context is done. Then it drops the inner
    /// body and fails with the [`ContextError`]. For gRPC (but not grpc-web), it ends with trailers
    /// instead: `grpc-status: 4` if the deadline has passed, 1 if the context was cancelled.
    ///
    /// An inner body that has reported its end ([`is_end_stream`](Body::is_end_stream)) is not cut
    /// off.
    pub struct CallBody<B> {
        // None when the context can no longer cut the body off, because it is complete or has
        // ended.
        done: Option<DoneOwned>,
        ctx: Context,
        protocol: Protocol,
        // None if the layer returns the response itself, and after the body was cut off.
        #[pin]
        inner: Option<B>,
    }
}

impl<B> CallBody<B> {
    /// Returns a body that ends when `ctx` is done.
    pub(super) fn new(ctx: Context, protocol: Protocol, inner: B) -> CallBody<B> {
        CallBody {
            done: Some(ctx.done_owned()),
            ctx,
            protocol,
            inner: Some(inner),
        }
    }

    /// Returns the empty body of a response that the layer returns itself.
    pub(super) fn empty(ctx: Context) -> CallBody<B> {
        CallBody {
            done: None,
            ctx,
            protocol: Protocol::Http,
            inner: None,
        }
    }
}

/// Returns an empty body. tonic's interceptors need it.
impl<B> Default for CallBody<B> {
    fn default() -> CallBody<B> {
        CallBody::empty(Context::background())
    }
}

impl<B> Body for CallBody<B>
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
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        // The inner body has given all of its frames, so there is nothing left to cut off.
        if inner.is_end_stream() {
            *this.done = None;
        }
        let Some(done) = this.done else {
            return inner.poll_frame(cx).map_err(Into::into);
        };
        // The context is checked before the body is polled. Otherwise a stream that always has a
        // frame ready would never be cut off.
        let error = match this.ctx.err() {
            Some(error) => error,
            None => match inner.poll_frame(cx) {
                Poll::Ready(frame) => {
                    if !matches!(&frame, Some(Ok(frame)) if !frame.is_trailers()) {
                        *this.done = None;
                    }
                    return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
                }
                Poll::Pending => ready!(Pin::new(done).poll(cx)),
            },
        };
        *this.done = None;
        this.inner.set(None);
        let status = grpc_status(&error);
        Poll::Ready(Some(this.protocol.last_frame(status, error)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B> fmt::Debug for CallBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallBody")
            .field("is_over", &self.done.is_none())
            .finish_non_exhaustive()
    }
}

/// Returns the gRPC code and message of a call that was dropped because the caller's context is
/// done. The code is 4 if the deadline has passed, and 1 (`CANCELLED`) otherwise.
pub(super) fn grpc_status(error: &ContextError) -> (i32, &'static str) {
    if error.is_deadline_exceeded() {
        return GRPC_DEADLINE_EXCEEDED;
    }
    (1, "context cancelled")
}
