//! A handler that runs on in the layer's group, after its response was no longer needed.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::counts::Counts;
use super::tally::{self, Ended};
use super::{Answer, AnswerOf, DrainedError, Rest, aborted_for};
use crate::context::ContextError;
use crate::panic::{self, Payload};
use crate::registry::Entry;
use crate::span;
use crate::sync::Arc;
use crate::tower::deadline::poll_timer;
use crate::tracing::RequestEvent;

/// Runs a handler until it returns or its time is over. It never fails: what becomes of the handler
/// is in the counts.
pub(super) struct Lingering<F: Future> {
    /// `None` when it has ended.
    rest: Option<Rest<F>>,
    entry: Entry,
    timer: Option<Pin<Box<Sleep>>>,
    counts: Arc<Counts>,
    /// Where the layer was made.
    site: &'static Location<'static>,
}

/// The state of a handler after a poll.
enum Step {
    Returned(Answer),
    TimeIsOver,
}

impl<F: Future> Lingering<F> {
    /// The caller has counted the handler as lingering.
    pub(super) fn new(
        rest: Rest<F>,
        entry: Entry,
        counts: Arc<Counts>,
        site: &'static Location<'static>,
    ) -> Lingering<F> {
        Lingering {
            rest: Some(rest),
            entry,
            timer: None,
            counts,
            site,
        }
    }

    fn step(
        handler: Pin<&mut F>,
        answer: AnswerOf<F>,
        until: Instant,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Step> {
        if let Poll::Ready(output) = handler.poll(cx) {
            let answer = answer(&output);
            // The response is dropped: nothing takes it.
            drop(output);
            return Poll::Ready(Step::Returned(answer));
        }
        // The clock is read, too: a handler that is always ready wakes itself before any timer.
        if Instant::now() < until {
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            ready!(poll_timer(timer, cx));
        }
        Poll::Ready(Step::TimeIsOver)
    }

    /// Drops the handler, and records how it has ended.
    fn end(&mut self, ended: Result<Step, Payload>, reason: &'static str) {
        let Some(rest) = self.rest.take() else {
            return;
        };
        let Rest {
            handler,
            line,
            caller,
            began,
            ..
        } = rest;
        let entered = span::enter_caller(&caller);
        // A panic in the destructor of the future is the handler's panic too.
        let dropped = panic::catch(|| self.entry.run(|| drop(handler)));
        drop(entered);
        let elapsed: Duration = began.elapsed();
        let ended = match panic::first(ended, dropped) {
            Ok(Step::Returned(answer)) => {
                // A handler lingers after the end of its context.
                answer.note(&self.entry, || true);
                Ended::Returned
            }
            Ok(Step::TimeIsOver) => {
                line.emit_abort(&caller, elapsed, reason);
                self.entry.failed(aborted_for(&reason), true);
                Ended::Aborted(tally::entry(&line, elapsed, self.site))
            }
            Err(payload) => {
                let text = panic::text(&payload);
                line.emit(&caller, RequestEvent::Panicked { panic: &text });
                let entry = tally::entry(&line, elapsed, self.site);
                let ended = Ended::Panicked(DrainedError::new(entry, format!("panicked: {text}")));
                panic::discard(payload);
                ended
            }
        };
        // Before a task that waits for the handlers learns of it.
        self.entry.close();
        self.counts.leave_lingering();
        self.counts.leave(ended);
    }
}

impl<F: Future> Future for Lingering<F> {
    type Output = Result<(), ContextError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(rest) = &mut this.rest else {
            return Poll::Ready(Ok(()));
        };
        let (handler, answer, until) = (rest.handler.as_mut(), rest.answer, rest.until);
        let (entry, timer) = (&this.entry, &mut this.timer);
        let entered = span::enter_caller(&rest.caller);
        let step =
            panic::catch(|| entry.run(|| Lingering::step(handler, answer, until, timer, cx)));
        drop(entered);
        let ended = match step {
            Ok(step) => Ok(ready!(step)),
            Err(payload) => Err(payload),
        };
        this.end(ended, "its grace period is over");
        Poll::Ready(Ok(()))
    }
}

impl<F: Future> Drop for Lingering<F> {
    /// A handler that is dropped half-way was aborted: the last handle of the layer was dropped, or
    /// the runtime shuts down.
    fn drop(&mut self) {
        self.end(Ok(Step::TimeIsOver), "the server was dropped");
    }
}
