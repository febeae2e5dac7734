//! Records the outcome of a job that has finished, and completes the job.

use super::Scheduler;
use super::calls::Failure;
use super::error::{Panic, TaskErrorKind};
use super::failures::Failures;
use super::permits::lending::LenderId;
use super::source::{Completion, HadPermit, Outcome, Rejected, Source, Tag};
use super::state::State;
use crate::context::{Cause, ContextError, StaticCause};
use crate::panic;
use crate::sync::Arc;
use crate::tracing;

static TASK_ABORTED: StaticCause = StaticCause("the task was aborted");

impl<S: Source> Scheduler<S> {
    /// Records the outcome of a job. If the job failed, cancels the context according to
    /// `on_failure` (invariant 7). Returns the value of a job that succeeded.
    #[inline]
    pub(crate) fn record(
        self: &Arc<Self>,
        tag: &mut S::Tag,
        outcome: Outcome<S>,
    ) -> Option<S::Value> {
        let value = if let Outcome::Returned(Ok(value)) = outcome {
            Some(value)
        } else {
            self.record_failure(tag, outcome);
            None
        };
        tag.close_span();
        value
    }

    #[cold]
    fn record_failure(self: &Arc<Self>, tag: &mut S::Tag, outcome: Outcome<S>) {
        let kind = match outcome {
            Outcome::Returned(Ok(_)) => return,
            Outcome::Returned(Err(kind)) => kind,
            Outcome::Panicked(payload) => TaskErrorKind::Panicked(Panic::new(payload)),
            Outcome::Aborted => TaskErrorKind::Aborted(self.ctx().err().unwrap_or_else(|| {
                ContextError::cancelled(Some(Cause::from_static(&TASK_ABORTED)))
            })),
        };
        let (label, elapsed) = S::describe(&self.shared, tag);
        let failure = Failure {
            label,
            elapsed,
            kind,
            ended: self.ctx().is_done(),
        };
        let failure = match tag.failed_call() {
            Some(call) if !matches!(failure.kind, TaskErrorKind::Panicked(_)) => {
                self.with_state(|state| state.calls.keep(call, failure))
            }
            _ => Some(failure),
        };
        let _entered = tracing::enter(tag.span());
        if let Some(failure) = failure {
            self.fail(failure);
        }
    }

    /// Records a failure of the group.
    pub(crate) fn fail(self: &Arc<Self>, failure: Failure<S::Error>) {
        let cause = failure.report(self.on_failure);
        let (later, cause) = self.with_state(|state| {
            if failure.is_own() {
                state.source.failed();
            }
            state.failures.record(failure, cause)
        });
        panic::discard(later);
        if let Some(cause) = cause {
            self.end_context_with(cause);
            self.with_state(|state| state.ended_by_failure = true);
        }
    }

    /// Drops work that was never polled, and counts it as completed.
    pub(crate) fn dispose(self: &Arc<Self>, rejected: Rejected<S>) {
        let Rejected { tag, work, permit } = rejected;
        let outcome = Outcome::of_drop(panic::catch(|| drop(work)));
        self.complete_without_worker(tag, permit, outcome);
    }

    /// Completes a job that no worker ran: a blocking closure, or work that never starts.
    pub(crate) fn complete_without_worker(
        self: &Arc<Self>,
        tag: S::Tag,
        permit: HadPermit,
        outcome: Outcome<S>,
    ) {
        match permit {
            HadPermit::Yes => self.complete_elsewhere(tag, outcome, None),
            HadPermit::No => self.complete_unstarted(tag, outcome),
        }
    }

    /// Completes a job that never had a permit.
    pub(crate) fn complete_unstarted(self: &Arc<Self>, mut tag: S::Tag, outcome: Outcome<S>) {
        let value = self.record(&mut tag, outcome);
        self.with_effects(|state, effects| state.end(tag, value, effects));
    }

    /// Completes a job that had a permit, outside the loop of a worker, and starts the jobs that
    /// can start.
    pub(crate) fn complete_elsewhere(
        self: &Arc<Self>,
        mut tag: S::Tag,
        outcome: Outcome<S>,
        lender: Option<LenderId>,
    ) {
        let value = self.record(&mut tag, outcome);
        let completion = Completion { lender, tag, value };
        self.with_effects(|state, effects| state.complete(completion, effects));
        self.start_ready();
    }

    /// Takes the failures, once everything is complete.
    pub(crate) fn take_failures(&self) -> Failures<S::Error> {
        self.with_state(State::take_failures)
    }
}

impl<S: Source> State<S> {
    /// Takes the failures, once everything is complete.
    pub(crate) fn take_failures(&mut self) -> Failures<S::Error> {
        std::mem::replace(&mut self.failures, Failures::new())
    }
}
