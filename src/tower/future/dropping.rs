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
use crate::tower::exchange::{Exchange, Left};
use crate::tower::handlers::InFlight;
use crate::tower::scope::poll_budget;

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
        exchange: Option<Exchange>,
        // None if the request does not reach the handler, and when the future is ready.
        #[pin]
        handler: Option<F>,
        // Declared after the handler, which is counted until it has been dropped.
        in_flight: Option<InFlight>,
    }
}

impl<F> DroppingFuture<F> {
    /// `handler` is `None` if the request does not reach the handler.
    pub(in crate::tower) fn new(
        exchange: Exchange,
        handler: Option<(F, InFlight)>,
    ) -> DroppingFuture<F> {
        let (handler, in_flight) = handler.unzip();
        DroppingFuture {
            exchange: Some(exchange),
            handler,
            in_flight,
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
        let Some(exchange) = this.exchange else {
            panic!("`DroppingFuture` polled after it resolved");
        };
        let left = match this.handler.as_mut().as_pin_mut() {
            Some(handler) => Some(ready!(exchange.poll(handler, cx))),
            None => {
                ready!(poll_budget(cx));
                None
            }
        };
        let Some(mut exchange) = this.exchange.take() else {
            unreachable!("the exchange was there when the poll began");
        };
        let (Some(left), Some(in_flight)) = (left, this.in_flight.take()) else {
            return Poll::Ready(Ok(exchange.refuse()));
        };
        Poll::Ready(match left {
            Left::Returned(output) => {
                exchange.scope.run(|| this.handler.set(None));
                in_flight.returned();
                exchange.answer(output)
            }
            Left::TooLate(output) => {
                exchange.scope.expire();
                this.handler.set(None);
                drop(output);
                in_flight.returned();
                Ok(exchange.scope.timed_out())
            }
            Left::Expired => {
                exchange.stop_waiting();
                exchange.scope.expire();
                this.handler.set(None);
                Ok(exchange.scope.timed_out())
            }
            Left::GraceIsOver => {
                exchange.scope.run(|| this.handler.set(None));
                exchange.abort(in_flight);
                Ok(exchange.scope.unavailable())
            }
        })
    }
}

impl<F> fmt::Debug for DroppingFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DroppingFuture").finish_non_exhaustive()
    }
}
