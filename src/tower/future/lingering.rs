//! The response future of the default mode: what is left of a handler is moved to the layer's group
//! when its response is no longer needed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use http::Response;
use http_body::Body;

use crate::tower::body::ResponseBody;
use crate::tower::exchange::Left;
use crate::tower::handlers::{Answer, AnswerOf, InFlight, Rest};
use crate::tower::scope::{Scope, poll_budget};

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
    scope: Option<Box<Scope>>,
    /// `None` if the request does not reach the handler, and when the future is ready.
    handler: Option<Handler<F>>,
    max_lingering: usize,
}

/// A handler, and its place among those that are counted.
struct Handler<F: Future> {
    future: Pin<Box<F>>,
    answer: AnswerOf<F>,
    // Declared last, and so dropped last: the handler is counted until it has been dropped.
    in_flight: InFlight,
}

impl<F> ResponseFuture<F>
where
    F: Future + Send + 'static,
{
    pub(in crate::tower) fn new(
        scope: Box<Scope>,
        future: Pin<Box<F>>,
        answer: AnswerOf<F>,
        in_flight: InFlight,
        max_lingering: usize,
    ) -> ResponseFuture<F> {
        let handler = Handler {
            future,
            answer,
            in_flight,
        };
        ResponseFuture {
            scope: Some(scope),
            handler: Some(handler),
            max_lingering,
        }
    }

    /// Returns the future of a request that does not reach the handler.
    pub(in crate::tower) fn refused(scope: Box<Scope>) -> ResponseFuture<F> {
        ResponseFuture {
            scope: Some(scope),
            handler: None,
            max_lingering: 0,
        }
    }

    /// Moves the handler, whose context is done, to the layer's group.
    fn linger(scope: &Scope, handler: Handler<F>, max_lingering: usize) {
        let rest = Rest {
            handler: handler.future,
            answer: handler.answer,
            line: scope.line.clone(),
            caller: scope.caller.clone(),
            began: scope.began,
            until: scope.until(),
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
        let Some(scope) = &mut this.scope else {
            panic!("`ResponseFuture` polled after it resolved");
        };
        let left = match &mut this.handler {
            Some(handler) => {
                let (future, in_flight) = (handler.future.as_mut(), &handler.in_flight);
                Some(ready!(scope.poll_handler(future, in_flight, cx)))
            }
            None => {
                ready!(poll_budget(cx));
                None
            }
        };
        let (Some(mut scope), handler) = (this.scope.take(), this.handler.take()) else {
            unreachable!("the scope was there when the poll began");
        };
        let (Some(left), Some(handler)) = (left, handler) else {
            return Poll::Ready(Ok(scope.refuse()));
        };
        Poll::Ready(match left {
            Left::Returned(output) => {
                let in_flight = handler.in_flight;
                in_flight.run(&mut scope, || drop(handler.future));
                in_flight.returned(Answer::of(&output), &scope.ctx);
                scope.conclude(output)
            }
            Left::TooLate(output) => {
                let (in_flight, answer) = (handler.in_flight, Answer::of(&output));
                scope.expire();
                in_flight.run(&mut scope, || {
                    drop(handler.future);
                    drop(output);
                });
                in_flight.returned(answer, &scope.ctx);
                Ok(scope.timed_out())
            }
            Left::Expired => {
                scope.expire();
                ResponseFuture::linger(&scope, handler, this.max_lingering);
                Ok(scope.timed_out())
            }
            Left::GraceIsOver => {
                let in_flight = handler.in_flight;
                in_flight.run(&mut scope, || drop(handler.future));
                scope.abort(in_flight);
                Ok(scope.unavailable())
            }
        })
    }
}

impl<F> Drop for ResponseFuture<F>
where
    F: Future + Send + 'static,
{
    fn drop(&mut self) {
        let Some(mut scope) = self.scope.take() else {
            return;
        };
        // A handler that has panicked has closed the scope, and must not be polled again.
        if !scope.is_open() {
            return;
        }
        // The connection is not woken by what comes next.
        scope.end_wait();
        scope.client_gone();
        // A handler that was never polled has not begun.
        if let Some(handler) = self.handler.take().filter(|_| scope.wait.has_begun()) {
            ResponseFuture::linger(&scope, handler, self.max_lingering);
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
