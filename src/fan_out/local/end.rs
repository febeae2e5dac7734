//! How a local run ends: it winds down, is stopped, finishes, or is dropped.

use std::fmt::Display;
use std::future::Future;

use super::{LocalRun, Stage};
use crate::context::{Cause, ContextError};
use crate::fan_out::causes::{FAN_OUT_DROPPED, FAN_OUT_FINISHED};
use crate::fan_out::collect::{Collector, RunSummary, reason};
use crate::fan_out::items::{Next, drop_in};
use crate::fan_out::progress::Progress;
use crate::panic::{self, Payload};
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::failures::Failures;

impl<P, Fut, C, T, E, R> LocalRun<P, Fut, C, T, E, R>
where
    P: Next<Future = Fut>,
    Fut: Future<Output = Result<T, E>>,
    C: Collector<T, E>,
    E: From<ContextError> + Display,
    R: FnMut(Progress),
{
    /// Stops the pulling, since the context is done. The items in flight are dropped when the grace
    /// period is over.
    pub(super) fn wind_down(&mut self) {
        self.note_end();
        self.counts.cut();
        if self.grace.is_zero() {
            self.stop();
        } else {
            self.stage = Stage::WindingDown(Box::pin(tokio::time::sleep(self.grace)));
        }
    }

    /// Drops the items in flight and counts them as finished: first those whose destructors
    /// panicked.
    pub(super) fn stop(&mut self) {
        self.stage = Stage::Stopped;
        let mut aborted = Vec::new();
        for (tag, dropped) in self.in_flight.stop() {
            match dropped {
                Ok(()) => aborted.push(tag),
                Err(payload) => self.end_panicked(&tag, payload),
            }
        }
        let error = reason(self.ctx.get().err());
        for tag in aborted {
            self.end_failed(&tag, TaskErrorKind::Aborted(error.clone()));
        }
    }

    /// Ends the run: drops the iterator with the function, and `on_progress`, and returns what it
    /// has kept.
    pub(super) fn end(&mut self) -> (C, RunSummary<E>) {
        self.stage = Stage::Finished;
        let error = self.ctx.get().err();
        let cause = Cause::from_static(&FAN_OUT_FINISHED);
        if let Err(payload) = panic::catch(|| self.ctx.cancel_if_seen(cause)) {
            panic::discard(payload);
        }
        // Before the failures are taken: a panic of a destructor becomes one of them.
        let (pull, report) = self.drop_inputs();
        if let Err(payload) = pull {
            self.fail_pull(payload);
        }
        if let Err(payload) = report {
            self.fail_report(payload);
        }
        let summary = RunSummary {
            failures: std::mem::replace(&mut self.failures, Failures::new()),
            exhausted: self.counts.is_exhausted(),
            left: self.counts.left(),
            error,
            decided: self.counts.is_decided(),
            call_site: self.call_site.clone(),
        };
        (std::mem::take(&mut self.counts.collector), summary)
    }
}

impl<P, Fut, C: Collector<T, E>, T, E, R> LocalRun<P, Fut, C, T, E, R> {
    /// Drops the iterator with the function, and `on_progress`, one after the other. Two
    /// destructors that panic in one drop would abort the process. Returns the panics.
    fn drop_inputs(&mut self) -> (Result<(), Payload>, Result<(), Payload>) {
        let caller = &self.call_site.span;
        let pull = drop_in(caller, self.pull.take());
        (pull, drop_in(caller, self.report.take()))
    }
}

impl<P, Fut, C, T, E, R> Drop for LocalRun<P, Fut, C, T, E, R>
where
    C: Collector<T, E>,
{
    /// Cancels the context before it drops the items in flight, so that their destructors see it
    /// done.
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Finished) {
            let _ = panic::catch(|| self.ctx.cancel(Cause::from_static(&FAN_OUT_DROPPED)))
                .map_err(panic::discard);
        }
        self.in_flight.stop().into_iter().for_each(panic::discard);
        let (pull, report) = self.drop_inputs();
        panic::discard(pull);
        panic::discard(report);
    }
}
