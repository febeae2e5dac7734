//! A handler as a task. It is polled until it is ready, or until its context is done and its grace
//! period is over.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use http::{Method, Request, Uri};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::report::{Aborted, Tally};
use crate::context::ContextError;
use crate::context::{Context, DoneOwned, deadline_after};
use crate::panic::{self, Payload};
use crate::sync::{Arc, Mutex};
use crate::tracing::{self, Span};

/// The outcome of a handler.
pub(super) enum Outcome<T, E> {
    Answered(Result<T, E>),
    Panicked(Undelivered),
    Aborted,
}

/// A panic of a handler, for the future that awaits the response. If that future does not exist any
/// more, the panic is counted when this is dropped.
pub(super) struct Undelivered {
    payload: Option<Payload>,
    tally: Arc<Mutex<Tally>>,
}

impl Undelivered {
    /// Returns the payload, which is then not counted.
    pub(super) fn deliver(mut self) -> Payload {
        match self.payload.take() {
            Some(payload) => payload,
            None => unreachable!("a payload is taken once, by value"),
        }
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        if let Some(payload) = self.payload.take() {
            self.tally.lock().panicked();
            panic::discard(payload);
        }
    }
}

/// The method and URI of a handler's request, for the report of an abort.
pub(super) struct RequestLine {
    method: Method,
    uri: Uri,
}

impl RequestLine {
    pub(super) fn of<B>(request: &Request<B>) -> RequestLine {
        RequestLine {
            method: request.method().clone(),
            uri: request.uri().clone(),
        }
    }
}

/// The time that a handler has to finish after its context is done.
struct GracePeriod {
    ctx: Context,
    done: DoneOwned,
    grace: Duration,
    /// `None` until the context is done.
    timer: Option<Pin<Box<Sleep>>>,
}

impl GracePeriod {
    fn new(ctx: Context, grace: Duration) -> GracePeriod {
        // The grace period begins when the context is done, not when this task observes it. So the
        // context must record that instant.
        ctx.record_end_time();
        GracePeriod {
            done: ctx.done_owned(),
            ctx,
            grace,
            timer: None,
        }
    }

    /// Completes when the context is done and the grace period after that is over.
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None => {
                ready!(Pin::new(&mut self.done).poll(cx));
                let ended = self.ctx.ended_at().unwrap_or_else(Instant::now);
                let timer = tokio::time::sleep_until(deadline_after(ended, self.grace));
                self.timer.insert(Box::pin(timer))
            }
        };
        // The clock is read before the timer is polled. tokio's timer does not complete in a poll
        // that has used up its budget, so a handler that uses it up in every poll would never be
        // aborted.
        if Instant::now() < timer.deadline() {
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

pin_project! {
    /// The future of a handler, with what its report needs.
    pub(super) struct Handler<F> {
        #[pin]
        future: Option<F>,
        grace: GracePeriod,
        began: Instant,
        line: RequestLine,
        tally: Arc<Mutex<Tally>>,
        // The span in which the service was called, which is the span of the request.
        caller: Span,
    }
}

impl<F> Handler<F> {
    pub(super) fn new(
        future: F,
        ctx: Context,
        grace: Duration,
        line: RequestLine,
        tally: Arc<Mutex<Tally>>,
    ) -> Handler<F> {
        Handler {
            future: Some(future),
            grace: GracePeriod::new(ctx, grace),
            began: Instant::now(),
            line,
            tally,
            caller: Span::current(),
        }
    }
}

impl<F, T, E> Future for Handler<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<Outcome<T, E>, ContextError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            panic!("a handler was polled after it had finished");
        };
        let entered = tracing::enter(Some(this.caller));
        let outcome = match panic::catch(|| future.poll(cx)) {
            Ok(Poll::Ready(answer)) => Ok(Outcome::Answered(answer)),
            Err(payload) => Err(payload),
            Ok(Poll::Pending) => {
                ready!(this.grace.poll(cx));
                Ok(Outcome::Aborted)
            }
        };
        // A panic in the destructor of the future is the handler's panic too.
        let dropped = panic::catch(|| this.future.set(None));
        drop(entered);
        let outcome = match panic::first(outcome, dropped) {
            Ok(outcome) => outcome,
            Err(payload) => Outcome::Panicked(Undelivered {
                payload: Some(payload),
                tally: this.tally.clone(),
            }),
        };
        record(&outcome, &mut this.tally.lock(), this.line, *this.began);
        Poll::Ready(Ok(outcome))
    }
}

/// Counts the outcome of a handler.
fn record<T, E>(outcome: &Outcome<T, E>, tally: &mut Tally, line: &RequestLine, began: Instant) {
    match outcome {
        Outcome::Answered(_) => tally.finished(),
        Outcome::Aborted => tally.aborted(|| Aborted {
            method: line.method.clone(),
            path: line.uri.path().to_owned(),
            elapsed: began.elapsed(),
        }),
        // `Undelivered` counts itself, if it is dropped.
        Outcome::Panicked(_) => {}
    }
}
