//! Drains a scheduler: enters in a ledger how each job ends.
//!
//! # Invariants
//!
//! 1. From `open_ledger` to `end_drain`, each job that ends is entered once, under the lock: a
//!    success in `finished` or `stopped` when it is counted as completed; a job that was dropped or
//!    never started in `aborted` or `stopped`, and any other failure in the failures, when it is
//!    recorded.
//! 2. A blocking closure that runs is in the source's register until it is entered, and a job whose
//!    failure is entered is counted in `failed` until it is completed. So the report, which is made
//!    in one section, has each job once: what is open, in no register and not in `failed` is left
//!    running.
//! 3. When everything but the closures that run is completed, the task that drains is woken.

use std::task::{self, Poll};

use super::Scheduler;
use super::calls::Failure;
use super::current;
use super::effects::Effects;
use super::error::{TaskError, TaskErrorKind};
use super::failures::Failures;
use super::ledger::{Ledger, Straggler};
use super::source::Source;
use super::state::{Phase, State};
use crate::context::{Cause, StaticCause};
use crate::sync::Arc;

/// What became of the jobs of a scheduler while it was drained.
pub(crate) struct Entries<E> {
    /// Jobs that succeeded before they were asked to stop.
    pub(crate) finished: usize,
    /// Jobs that succeeded after they were asked to stop, or never started.
    pub(crate) stopped: usize,
    pub(crate) aborted: Vec<Straggler>,
    /// Closures that still run.
    pub(crate) blocking: Vec<Straggler>,
    /// Other jobs that have not ended.
    pub(crate) left_running: usize,
    pub(crate) failures: Failures<E>,
}

impl<S: Source> State<S> {
    /// Enters a job that is counted as completed. If it has failed, that was recorded before, and
    /// it is no longer counted in `failed`.
    #[cold]
    #[inline(never)]
    pub(super) fn enter_in_ledger(&mut self, succeeded: bool, effects: &mut Effects) {
        self.failed -= usize::from(!succeeded);
        let was_notified = self.shutdown.was_asked();
        let Some(ledger) = self.extras.as_mut().and_then(|it| it.ledger.as_mut()) else {
            return;
        };
        let was_asked = was_notified || ledger.is_asked || ledger.has_deadline_passed();
        if succeeded && was_asked {
            ledger.stopped += 1;
        } else if succeeded {
            ledger.finished += 1;
        }
        if self.is_drained() {
            effects.wake.extend(self.waiter.take());
        }
    }

    /// Returns whether only closures are left that run, after an abort.
    fn is_drained(&self) -> bool {
        let ledger = self.extras.as_ref().and_then(|it| it.ledger.as_ref());
        let is_aborted = ledger.is_some_and(|ledger| ledger.is_aborted);
        is_aborted && self.open == self.source.stragglers_count() && !self.source.has_unstarted()
    }

    /// Enters a job whose outcome is no failure of the group, although it has not succeeded: its
    /// handle has stopped it, or it is a background task that has ended with the group.
    pub(super) fn enter_as_stopped(&mut self, failure: &Failure<S::Error>, jobs: usize) {
        self.failed += jobs;
        if let Some(id) = failure.on_pool {
            self.source.left_pool(id);
        }
        if let Some(ledger) = self.extras.as_mut().and_then(|it| it.ledger.as_mut()) {
            ledger.enter_unfinished(failure);
        }
    }

    /// Keeps a failure that was reported with the given cause, and is that of as many open `jobs`.
    /// Returns it if it is not kept, to be dropped outside the lock, and the cause with which to
    /// cancel the context.
    pub(super) fn keep_failure(
        &mut self,
        failure: Failure<S::Error>,
        cause: Option<Cause>,
        jobs: usize,
    ) -> (Option<TaskError<S::Error>>, Option<Cause>) {
        self.failed += jobs;
        if let Some(id) = failure.on_pool {
            self.source.left_pool(id);
        }
        match self.extras.as_mut().and_then(|it| it.ledger.as_mut()) {
            Some(ledger) if matches!(failure.kind, TaskErrorKind::Aborted(_)) => {
                ledger.enter_unfinished(&failure);
                self.failures.pass(failure, cause)
            }
            Some(_) => self.failures.record_all(failure, cause),
            None => self.failures.record(failure, cause),
        }
    }
}

impl<S: Source> Scheduler<S> {
    /// Begins to enter how the jobs end. Returns the failures from before.
    pub(crate) fn open_ledger(self: &Arc<Self>) -> Failures<S::Error> {
        let deadline = self.ctx().deadline();
        let before = self.with_state(|state| {
            state
                .extras()
                .ledger
                .get_or_insert_with(|| Ledger::new(deadline));
            std::mem::replace(&mut state.failures, Failures::new())
        });
        self.watch();
        before
    }

    /// Refuses every job from now on.
    pub(crate) fn begin_drain(&self) {
        self.with_state(|state| {
            state.is_shut = true;
            state.extras().waits += 1;
        });
    }

    /// Waits until all jobs have ended or, after [`abort_drain`](Scheduler::abort_drain), all but
    /// the closures that run.
    pub(crate) fn poll_drained(self: &Arc<Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        if self.poll_complete(cx).is_ready() || self.read(State::is_drained) {
            return Poll::Ready(());
        }
        current::wait_for_all(self, cx.waker());
        Poll::Pending
    }

    /// Cancels the context. What ends from now on was asked to.
    pub(crate) fn cancel_drain(self: &Arc<Self>, why: &'static StaticCause) {
        self.with_state(|state| {
            if let Some(ledger) = &mut state.extras().ledger {
                ledger.is_asked = true;
            }
        });
        self.end_context(why);
    }

    /// Notes that the jobs that are left are aborted, before the caller aborts them.
    pub(crate) fn abort_drain(self: &Arc<Self>) {
        self.with_state(|state| {
            if let Some(ledger) = &mut state.extras().ledger {
                ledger.is_aborted = true;
            }
        });
    }

    /// Makes the report. What ends later is in no report.
    pub(crate) fn end_drain(self: &Arc<Self>) -> Entries<S::Error> {
        self.with_state(|state| {
            let ledger = state.extras().ledger.take().unwrap_or_default();
            let blocking: Vec<Straggler> = state.source.stragglers().collect();
            if state.is_complete() {
                state.is_concluded = true;
                if state.phase == Phase::Open {
                    state.phase = Phase::Closed;
                }
            }
            Entries {
                finished: ledger.finished,
                stopped: ledger.stopped,
                aborted: ledger.aborted,
                left_running: state.open.saturating_sub(blocking.len() + state.failed),
                blocking,
                failures: std::mem::replace(&mut state.failures, Failures::new()),
            }
        })
    }
}
