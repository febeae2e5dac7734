//! A handler that is polled inside its connection: what both kinds of response future do.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use http::Response;
use http_body::Body;
use tokio::time::{Instant, Sleep};

use super::body::ResponseBody;
use super::cause::HANDLER_FAILED;
use super::handlers::InFlight;
use super::scope::{Scope, poll_timer};
use crate::context::{Cause, EndWatch, deadline_after};

/// A request whose handler has not returned.
pub(super) struct Exchange {
    pub(super) scope: Scope,
    /// When the request arrived.
    pub(super) began: Instant,
    grace: Duration,
    wait: Wait,
}

/// What a pending handler waits for, besides its own work.
enum Wait {
    /// It has not been pending yet.
    NotYet,
    /// The end of its context.
    ForEnd(EndWatch),
    /// The context was cancelled: the end of its grace period, or its deadline if that is earlier.
    ForGrace(Pin<Box<Sleep>>),
}

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

impl Exchange {
    pub(super) fn new(scope: Scope, began: Instant, grace: Duration) -> Exchange {
        Exchange {
            scope,
            began,
            grace,
            wait: Wait::NotYet,
        }
    }

    /// Polls the handler unless its deadline has passed, and waits for the first of its response,
    /// its deadline, and the end of its grace period.
    ///
    /// The clock is read before and after the poll of the handler. A response that is ready at the
    /// deadline is too late. Most often it is the handler's own report of the same deadline, and
    /// which of the two a client received would be left to chance.
    pub(super) fn poll<F: Future>(
        &mut self,
        handler: Pin<&mut F>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Left<F::Output>> {
        if self.scope.deadline.has_passed() {
            return Poll::Ready(Left::Expired);
        }
        match self.scope.run(|| handler.poll(cx)) {
            Poll::Ready(output) => {
                self.stop_waiting();
                Poll::Ready(if self.scope.deadline.has_passed() {
                    Left::TooLate(output)
                } else {
                    Left::Returned(output)
                })
            }
            Poll::Pending => {
                ready!(self.poll_wait(cx));
                Poll::Ready(if self.scope.deadline.has_passed() {
                    Left::Expired
                } else {
                    Left::GraceIsOver
                })
            }
        }
    }

    /// Completes when a handler that is pending has no time left.
    fn poll_wait(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        loop {
            match &mut self.wait {
                Wait::NotYet => {
                    // The grace period begins when the context is done, not when this task observes
                    // that. So the context must record the instant.
                    self.scope.ctx.record_end_time();
                    self.wait = Wait::ForEnd(EndWatch::new());
                }
                Wait::ForEnd(watch) => {
                    let error = ready!(watch.poll(&self.scope.ctx, cx));
                    if error.is_deadline_exceeded() {
                        return Poll::Ready(());
                    }
                    let until = self.scope.deadline.or_earlier(self.until());
                    self.wait = Wait::ForGrace(Box::pin(tokio::time::sleep_until(until)));
                }
                Wait::ForGrace(timer) => {
                    // The clock is read, too: a handler that is always ready wakes itself before
                    // any timer.
                    if Instant::now() < timer.deadline() {
                        ready!(poll_timer(timer, cx));
                    }
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Returns the instant at which the grace period of a handler ends whose context is done.
    pub(super) fn until(&self) -> Instant {
        let ended = self.scope.ctx.ended_at().unwrap_or_else(Instant::now);
        deadline_after(ended, self.grace)
    }

    /// Removes the listener, which would wake the connection when the context is cancelled.
    pub(super) fn stop_waiting(&mut self) {
        if let Wait::ForEnd(watch) = &mut self.wait {
            watch.release(&self.scope.ctx);
        }
        self.wait = Wait::NotYet;
    }

    /// Returns `true` if the handler has been polled and was pending.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.wait, Wait::NotYet)
    }

    /// Records that the handler was aborted, and has been dropped.
    pub(super) fn abort(&self, in_flight: InFlight) {
        let (line, caller) = (&self.scope.line, &self.scope.caller);
        line.emit_abort(caller, self.began.elapsed(), "its grace period is over");
        in_flight.aborted(line, self.began);
    }

    /// Returns the response to a request that does not reach the handler: its deadline has passed,
    /// or the server shuts down.
    pub(super) fn refuse<B>(mut self) -> Response<ResponseBody<B>> {
        if self.scope.deadline.has_passed() {
            self.scope.expire();
            self.scope.timed_out()
        } else {
            self.scope.unavailable()
        }
    }

    /// Returns the response future's output for what the handler has returned in time.
    pub(super) fn answer<R: Body, E>(
        mut self,
        output: Result<Response<R>, E>,
    ) -> Result<Response<ResponseBody<R>>, E> {
        match output {
            Ok(response) => Ok(self.scope.respond(response)),
            Err(error) => {
                self.scope.fail(Cause::from_static(&HANDLER_FAILED));
                Err(error)
            }
        }
    }
}
