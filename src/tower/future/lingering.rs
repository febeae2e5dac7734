//! The response future of the default mode: what is left of a handler is moved to the layer's group
//! when its response is no longer needed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use http::Response;
use http_body::Body;

use crate::tower::body::ResponseBody;
use crate::tower::exchange::{Exchange, Left};
use crate::tower::handlers::{InFlight, Rest};
use crate::tower::scope::poll_budget;

/// The response future of a [`ContextService`](crate::tower::ContextService).
///
/// If it is dropped before it is ready, the request's context is cancelled with
/// [`ClientGone`](crate::tower::ClientGone), and what is left of the handler is moved to a task of
/// the layer. A handler that was never polled is dropped.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct ResponseFuture<F>
where
    F: Future + Send + 'static,
{
    /// `None` when the future is ready.
    exchange: Option<Exchange>,
    /// `None` if the request does not reach the handler, and when the future is ready.
    handler: Option<Handler<F>>,
    max_lingering: usize,
}

/// A handler, and its place among those that are counted.
struct Handler<F> {
    future: Pin<Box<F>>,
    // Declared last, and so dropped last: the handler is counted until it has been dropped.
    in_flight: InFlight,
}

impl<F> ResponseFuture<F>
where
    F: Future + Send + 'static,
{
    /// `future` is `None` if the request does not reach the handler.
    pub(in crate::tower) fn new(
        exchange: Exchange,
        handler: Option<(F, InFlight)>,
        max_lingering: usize,
    ) -> ResponseFuture<F> {
        let boxed = |(future, in_flight)| Handler {
            future: Box::pin(future),
            in_flight,
        };
        ResponseFuture {
            exchange: Some(exchange),
            handler: handler.map(boxed),
            max_lingering,
        }
    }

    /// Moves the handler, whose context is done, to the layer's group.
    fn linger(exchange: &Exchange, handler: Handler<F>, max_lingering: usize) {
        let rest = Rest {
            handler: handler.future,
            line: exchange.scope.line.clone(),
            caller: exchange.scope.caller.clone(),
            began: exchange.began,
            until: exchange.until(),
        };
        handler.in_flight.linger(rest, max_lingering);
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>> + Send + 'static,
    R: Body,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(exchange) = &mut this.exchange else {
            panic!("`ResponseFuture` polled after it resolved");
        };
        let left = match &mut this.handler {
            Some(handler) => Some(ready!(exchange.poll(handler.future.as_mut(), cx))),
            None => {
                ready!(poll_budget(cx));
                None
            }
        };
        let (Some(mut exchange), handler) = (this.exchange.take(), this.handler.take()) else {
            unreachable!("the exchange was there when the poll began");
        };
        let (Some(left), Some(handler)) = (left, handler) else {
            return Poll::Ready(Ok(exchange.refuse()));
        };
        Poll::Ready(match left {
            Left::Returned(output) => {
                exchange.scope.run(|| drop(handler.future));
                handler.in_flight.returned();
                exchange.answer(output)
            }
            Left::TooLate(output) => {
                exchange.scope.expire();
                drop(handler.future);
                drop(output);
                handler.in_flight.returned();
                Ok(exchange.scope.timed_out())
            }
            Left::Expired => {
                let has_begun = exchange.has_begun();
                exchange.stop_waiting();
                exchange.scope.expire();
                if has_begun {
                    ResponseFuture::linger(&exchange, handler, this.max_lingering);
                }
                Ok(exchange.scope.timed_out())
            }
            Left::GraceIsOver => {
                exchange.scope.run(|| drop(handler.future));
                exchange.abort(handler.in_flight);
                Ok(exchange.scope.unavailable())
            }
        })
    }
}

impl<F> Drop for ResponseFuture<F>
where
    F: Future + Send + 'static,
{
    fn drop(&mut self) {
        let Some(mut exchange) = self.exchange.take() else {
            return;
        };
        let has_begun = exchange.has_begun();
        // The connection is not woken by what comes next.
        exchange.stop_waiting();
        // A handler that has panicked has closed the scope, and must not be polled again.
        if !exchange.scope.is_open() {
            return;
        }
        exchange.scope.client_gone();
        let handler = self.handler.take().filter(|_| has_begun);
        if let Some(handler) = handler {
            ResponseFuture::linger(&exchange, handler, self.max_lingering);
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F>
where
    F: Future + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
