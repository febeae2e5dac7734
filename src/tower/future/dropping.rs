//! The response future of a layer that drops its handlers: what is left of a handler is dropped
//! when its response is no longer needed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::tower::body::ResponseBody;
use crate::tower::exchange::Left;
use crate::tower::handlers::{Answer, InFlight};
use crate::tower::scope::{Scope, poll_budget};

pin_project! {
    /// The response future of a [`ContextService`](crate::tower::ContextService) whose layer
    /// [drops its handlers](crate::tower::ContextLayer::drop_on_disconnect).
    ///
    /// If it is dropped before it is ready, the request's context is cancelled with
    /// [`ClientGone`](crate::tower::ClientGone), and then the handler is dropped.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct DroppingFuture<F> {
        // None when the future is ready. Declared before the handler, and so dropped first: the
        // context is done when the handler's destructors run.
        scope: Option<Box<Scope>>,
        // None if the request does not reach the handler, and when the future is ready.
        #[pin]
        handler: Option<F>,
        // Declared after the handler, which is counted until it has been dropped.
        in_flight: Option<InFlight>,
    }
}

impl<F> DroppingFuture<F> {
    pub(in crate::tower) fn new(
        scope: Box<Scope>,
        handler: F,
        in_flight: InFlight,
    ) -> DroppingFuture<F> {
        DroppingFuture {
            scope: Some(scope),
            handler: Some(handler),
            in_flight: Some(in_flight),
        }
    }

    /// Returns the future of a request that does not reach the handler.
    pub(in crate::tower) fn refused(scope: Box<Scope>) -> DroppingFuture<F> {
        DroppingFuture {
            scope: Some(scope),
            handler: None,
            in_flight: None,
        }
    }
}

impl<F, R, E> Future for DroppingFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(scope) = this.scope else {
            panic!("`DroppingFuture` polled after it resolved");
        };
        let left = match (this.handler.as_mut().as_pin_mut(), &*this.in_flight) {
            (Some(handler), Some(in_flight)) => {
                Some(ready!(scope.poll_handler(handler, in_flight, cx)))
            }
            _ => {
                ready!(poll_budget(cx));
                None
            }
        };
        let Some(mut scope) = this.scope.take() else {
            unreachable!("the scope was there when the poll began");
        };
        let (Some(left), Some(in_flight)) = (left, this.in_flight.take()) else {
            return Poll::Ready(Ok(scope.refuse()));
        };
        Poll::Ready(match left {
            Left::Returned(output) => {
                in_flight.run(&mut scope, || this.handler.set(None));
                in_flight.returned(Answer::of(&output), &scope.ctx);
                scope.conclude(output)
            }
            Left::TooLate(output) => {
                let answer = Answer::of(&output);
                scope.expire();
                in_flight.run(&mut scope, || {
                    this.handler.set(None);
                    drop(output);
                });
                in_flight.returned(answer, &scope.ctx);
                Ok(scope.timed_out())
            }
            Left::Expired => {
                let error = scope.expire();
                in_flight.run(&mut scope, || this.handler.set(None));
                in_flight.expired(error);
                Ok(scope.timed_out())
            }
            Left::GraceIsOver => {
                in_flight.run(&mut scope, || this.handler.set(None));
                scope.abort(in_flight);
                Ok(scope.unavailable())
            }
        })
    }
}

impl<F> fmt::Debug for DroppingFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DroppingFuture").finish_non_exhaustive()
    }
}
