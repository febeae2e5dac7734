//! Records the outcome of a job that has finished, and completes the job.

use super::Scheduler;
use super::calls::Failure;
use super::error::{Panic, TaskErrorKind};
use super::failures::{CauseWith, Failures, OnFailure};
use super::permits::lending::LenderId;
use super::source::{Completion, HadPermit, Outcome, Rejected, Source, Tag};
use super::state::State;
use crate::context::{Cause, ContextError, StaticCause};
use crate::panic;
use crate::span;
use crate::sync::Arc;

static TASK_ABORTED: StaticCause = StaticCause("the task was aborted");

impl<S: Source> Scheduler<S> {
    /// Records the outcome of a job, which is counted as completed afterwards. If the job failed,
    /// cancels the context according to `on_failure` (invariant 7). Returns the value of a job that
    /// succeeded.
    #[inline]
    pub(crate) fn record(
        self: &Arc<Self>,
        tag: &mut S::Tag,
        outcome: Outcome<S>,
    ) -> Option<S::Value> {
        let value = if let Outcome::Returned(Ok(value)) = outcome {
            self.end_with_job(tag);
            Some(value)
        } else {
            self.record_failure(tag, outcome, 1);
            None
        };
        tag.close_span();
        value
    }

    /// Records the failure of user code that is not counted as an open job: a callback, a
    /// destructor, or the body of a scope.
    #[cold]
    pub(crate) fn record_beside_jobs(self: &Arc<Self>, tag: &mut S::Tag, outcome: Outcome<S>) {
        self.record_failure(tag, outcome, 0);
        tag.close_span();
    }

    /// Records the failure of as many open `jobs`, which are none or one.
    #[cold]
    fn record_failure(self: &Arc<Self>, tag: &mut S::Tag, outcome: Outcome<S>, jobs: usize) {
        let was_refused = matches!(outcome, Outcome::Refused);
        let was_running = matches!(outcome, Outcome::Aborted) && tag.has_started();
        let kind = match outcome {
            Outcome::Returned(Ok(_)) => return,
            Outcome::Returned(Err(kind)) => kind,
            Outcome::Panicked(payload) => TaskErrorKind::Panicked(Panic::new(payload)),
            Outcome::Aborted => TaskErrorKind::Aborted(self.ctx().err().unwrap_or_else(|| {
                ContextError::cancelled(Some(Cause::from_static(&TASK_ABORTED)))
            })),
            Outcome::Refused => {
                let is_shut = || ContextError::cancelled(Some(S::why_shut(&self.shared)));
                TaskErrorKind::Aborted(self.ctx().err().unwrap_or_else(is_shut))
            }
        };
        let (label, elapsed) = S::describe(&self.shared, tag);
        let failure = Failure {
            label,
            elapsed,
            kind,
            ended: was_refused || self.ctx().is_done(),
            was_running,
            ends_context: !was_refused,
            on_pool: tag.on_pool(),
        };
        let is_panic = matches!(failure.kind, TaskErrorKind::Panicked(_));
        if tag.is_observed() {
            tag.hand_failure(failure.for_handle(), is_panic);
        }
        let _entered = span::enter(tag.span());
        if let Some(span) = tag.span() {
            span.failed(failure.kind.as_failure(), failure.ended);
        }
        if !is_panic && tag.is_stopped() {
            self.with_state(|state| state.enter_as_stopped(&failure, jobs));
            panic::discard(failure);
            self.end_with_job(tag);
            return;
        }
        if !is_panic && tag.is_background() && self.read(|state| state.all_finished) {
            failure.report(OnFailure::GoOn, None);
            self.with_state(|state| state.enter_as_stopped(&failure, jobs));
            panic::discard(failure);
            return;
        }
        let failure = match tag.failed_call() {
            Some(call) if !is_panic => {
                let mut failure = failure;
                // It may become the group's later, when the task is not known any more.
                failure.ends_context &= tag.on_failure(self.on_failure) == OnFailure::EndContext;
                self.with_effects(|state, _| {
                    let failure = state.calls.keep(call, failure);
                    state.failed += if failure.is_none() { jobs } else { 0 };
                    failure
                })
            }
            _ => Some(failure),
        };
        match failure {
            Some(failure) => self.fail_as(failure, tag.on_failure(self.on_failure), jobs),
            // It is a failure of the call, and the end of a task.
            None => self.end_with_job(tag),
        }
    }

    /// Cancels the context if the end of this job does that, whatever its outcome is.
    #[inline]
    fn end_with_job(self: &Arc<Self>, tag: &S::Tag) {
        if let Some(cause) = tag.cause_of_end() {
            self.end_by_job(cause);
        }
    }

    /// Cancels the context because a job has ended, before its permit is free.
    fn end_by_job(self: &Arc<Self>, cause: Cause) {
        self.end_context_with(cause);
        self.with_state(|state| {
            state.ended_by_failure = true;
            state.is_shut = true;
        });
        self.note_end();
    }

    /// Records a failure of the group.
    pub(crate) fn fail(self: &Arc<Self>, failure: Failure<S::Error>) {
        self.fail_as(failure, self.on_failure, 0);
    }

    /// Records a failure of the group that has the given effect on the other jobs, and is that of
    /// as many open `jobs`.
    fn fail_as(self: &Arc<Self>, failure: Failure<S::Error>, on_failure: OnFailure, jobs: usize) {
        let on_failure = if failure.ends_context {
            on_failure
        } else {
            OnFailure::GoOn
        };
        let cause_with = self.with_state(|state| state.extras.as_ref()?.cause_with.clone());
        let cause = failure.report(on_failure, cause_with.as_ref());
        panic::discard(cause_with);
        let (later, cause) = self.with_effects(|state, _| {
            if failure.is_own() {
                state.source.failed();
            }
            state.keep_failure(failure, cause, jobs)
        });
        panic::discard(later);
        if let Some(cause) = cause {
            self.end_by_job(cause);
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

    /// Sets the function that makes the cause from the error of a job. Returns the last one, to be
    /// dropped outside the lock.
    pub(crate) fn set_cause_with(&self, make: CauseWith<S::Error>) -> Option<CauseWith<S::Error>> {
        self.with_state(|state| state.extras().cause_with.replace(make))
    }

    /// Takes the failures, once everything is complete.
    pub(crate) fn take_failures(&self) -> Failures<S::Error> {
        self.with_state(State::take_failures)
    }

    /// Completes a job with an observer in a critical section of its own. Its observer claims a
    /// permit before that permit goes to a job that has not started.
    pub(crate) fn complete_observed(self: &Arc<Self>, completed: &mut Option<Completion<S>>) {
        if let Some(observed) = completed.take_if(|completed| completed.tag.is_observed()) {
            self.with_effects(|state, effects| state.complete(observed, effects));
        }
    }
}

impl<S: Source> State<S> {
    /// Takes the failures, once everything is complete.
    pub(crate) fn take_failures(&mut self) -> Failures<S::Error> {
        std::mem::replace(&mut self.failures, Failures::new())
    }
}
