//! The future of a call, which is dropped when its context is done.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::body::{CallBody, grpc_status};
use crate::context::{Cause, Context, ContextError, RunOwned};
use crate::tower::error::BoxError;
use crate::tower::protocol::Protocol;
use crate::tower::scope::poll_budget;

pin_project! {
    /// The response future of a [`PropagateService`](super::PropagateService).
    ///
    /// When the context is done, it drops the call and fails with a [`ContextError`], or for gRPC
    /// returns a response with the matching `grpc-status`.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct CallFuture<F> {
        #[pin]
        call: Call<F>,
        ctx: Context,
        protocol: Protocol,
    }
}

impl<F> CallFuture<F> {
    /// Returns the future of a call that was sent. `until` is the instant at which the timeout that
    /// was sent passes.
    pub(super) fn sent(
        call: RunOwned<F>,
        until: Option<Instant>,
        ctx: Context,
        protocol: Protocol,
    ) -> CallFuture<F> {
        CallFuture {
            call: Call::Sent { call, until },
            ctx,
            protocol,
        }
    }

    /// Returns the future of a call that is not sent, and fails with `error`.
    pub(super) fn refused(error: ContextError, ctx: Context, protocol: Protocol) -> CallFuture<F> {
        CallFuture {
            call: Call::Refused { error: Some(error) },
            ctx,
            protocol,
        }
    }
}

pin_project! {
    #[project = CallProjection]
    enum Call<F> {
        Sent {
            #[pin]
            call: RunOwned<F>,
            until: Option<Instant>,
        },
        Refused {
            error: Option<ContextError>,
        },
    }
}

impl<F, R, E> Future for CallFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<CallBody<R>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let error = match this.call.project() {
            CallProjection::Sent { call, until } => match ready!(call.poll(cx)) {
                Ok(Ok(response)) => {
                    let protocol = std::mem::replace(this.protocol, Protocol::Http);
                    let ctx = this.ctx.clone();
                    let wrap = |inner| CallBody::new(ctx, protocol, inner);
                    return Poll::Ready(Ok(response.map(wrap)));
                }
                // Some clients enforce the timeout header that they send: tonic's `Channel` does,
                // and fails with `Code::Cancelled`. That is the deadline, too.
                Ok(Err(error)) if until.is_some_and(|until| until <= Instant::now()) => {
                    ContextError::deadline_exceeded(Some(Cause::from(error.into())))
                }
                Ok(Err(error)) => return Poll::Ready(Err(error.into())),
                Err(error) => error,
            },
            CallProjection::Refused { error } => {
                ready!(poll_budget(cx));
                match error.take() {
                    Some(error) => error,
                    None => panic!("`CallFuture` polled after it resolved"),
                }
            }
        };
        let (code, message) = grpc_status(&error);
        Poll::Ready(match this.protocol.trailers_only(code, message) {
            Some(response) => Ok(response.map(|()| CallBody::empty(this.ctx.clone()))),
            None => Err(error.into()),
        })
    }
}

impl<F> fmt::Debug for CallFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}
