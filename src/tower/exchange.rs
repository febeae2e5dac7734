//! A handler that is polled inside its connection: what both kinds of response future do with the
//! scope of its request.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use http::Response;
use http_body::Body;
use tokio::time::Instant;

use super::body::ResponseBody;
use super::cause::HANDLER_FAILED;
use super::handlers::InFlight;
use super::scope::Scope;
use crate::context::{Cause, Context, deadline_after};

/// How a handler has left its connection.
pub(super) enum Left<T> {
    Returned(T),
    /// It was ready, but after its deadline.
    TooLate(T),
    /// Its deadline has passed.
    Expired,
    /// Its context was cancelled, and its grace period is over.
    GraceIsOver,
}

impl Scope {
    /// Polls the handler unless its deadline has passed, and waits for the first of its response,
    /// its deadline, and the end of its grace period.
    ///
    /// The clock is read before and after the poll of the handler. A response that is ready at the
    /// deadline is too late. Most often it is the handler's own report of the same deadline, and
    /// which of the two a client received would be left to chance. Before the first poll, the clock
    /// is not read: it was read when the request arrived.
    pub(super) fn poll_handler<F: Future>(
        &mut self,
        handler: Pin<&mut F>,
        in_flight: &InFlight,
        cx: &mut task::Context<'_>,
    ) -> Poll<Left<F::Output>> {
        if self.wait.has_begun() && self.deadline.has_passed() {
            self.end_wait();
            return Poll::Ready(Left::Expired);
        }
        match in_flight.run(self, || handler.poll(cx)) {
            Poll::Ready(output) => {
                self.end_wait();
                Poll::Ready(if self.deadline.has_passed() {
                    Left::TooLate(output)
                } else {
                    Left::Returned(output)
                })
            }
            Poll::Pending => {
                ready!(self.poll_wait(in_flight, cx));
                Poll::Ready(if self.deadline.has_passed() {
                    Left::Expired
                } else {
                    Left::GraceIsOver
                })
            }
        }
    }

    /// Completes when a handler that is pending has no time left.
    fn poll_wait(&mut self, in_flight: &InFlight, cx: &mut task::Context<'_>) -> Poll<()> {
        let (ctx, deadline, grace) = (&self.ctx, &self.deadline, self.grace);
        let until = || deadline.or_earlier(end_of_grace(ctx, grace));
        self.wait.poll(ctx, until, in_flight.aborted_by(), cx)
    }

    /// Removes the listener that waits for the end of the context.
    pub(super) fn end_wait(&mut self) {
        self.wait.stop(&self.ctx);
    }

    /// Returns the instant at which the grace period of a handler ends whose context is done.
    pub(super) fn until(&self) -> Instant {
        end_of_grace(&self.ctx, self.grace)
    }

    /// Records that the handler was aborted, and has been dropped.
    pub(super) fn abort(&self, in_flight: InFlight) {
        let (elapsed, reason) = (self.began.elapsed(), "its grace period is over");
        self.line.emit_abort(&self.caller, elapsed, reason);
        in_flight.aborted(&self.line, self.began, reason);
    }

    /// Returns the response to a request that does not reach the handler: its deadline has passed,
    /// or the server shuts down.
    pub(super) fn refuse<B>(mut self: Box<Self>) -> Response<ResponseBody<B>> {
        if self.deadline.has_passed() {
            self.expire();
            self.timed_out()
        } else {
            self.unavailable()
        }
    }

    /// Returns the response future's output for what the handler has returned in time.
    pub(super) fn conclude<R: Body, E>(
        mut self: Box<Self>,
        output: Result<Response<R>, E>,
    ) -> Result<Response<ResponseBody<R>>, E> {
        match output {
            Ok(response) => Ok(self.respond(response)),
            Err(error) => {
                self.fail(Cause::from_static(&HANDLER_FAILED));
                Err(error)
            }
        }
    }
}

/// Returns the instant at which the grace period ends of a context that is done.
fn end_of_grace(ctx: &Context, grace: Duration) -> Instant {
    deadline_after(ctx.ended_at().unwrap_or_else(Instant::now), grace)
}
