//! Cancels the context, and aborts everything that runs or waits.

use std::panic::Location;
use std::time::Duration;

use super::Scheduler;
use super::calls::Failure;
use super::effects::Effects;
use super::error::{Label, Panic, TaskErrorKind};
use super::source::{HadPermit, Outcome, Reach, Reclaimed, Source};
use super::state::{Phase, State};
use crate::context::{Cause, StaticCause};
use crate::panic::{self, Payload};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, JoinSet};

static TIMER_FAILED: StaticCause = StaticCause(
    "no timer for the deadline or the grace period: call `enable_time` on the runtime's builder",
);

/// How many handles of its context a scheduler has: `ctx` and `cancel`.
const OWN_HANDLES: usize = 2;

impl<S: Source> Scheduler<S> {
    /// Cancels the context and aborts everything: work that waits is dropped, and a running job is
    /// dropped when its present poll returns.
    pub(crate) fn abort(self: &Arc<Self>, why: &'static StaticCause) {
        self.abort_with(Cause::from_static(why));
    }

    /// Cancels the context with a cause and aborts everything.
    pub(crate) fn abort_with(self: &Arc<Self>, cause: Cause) {
        self.end_context_with(cause);
        self.note_end();
        // After a join there is nothing left to abort.
        if !self.read(State::is_closed) {
            self.abort_workers(Reach::All);
        }
    }

    /// Aborts what `reach` says. The context is done already.
    pub(crate) fn abort_workers(self: &Arc<Self>, reach: Reach) {
        let reclaimed = self.with_effects(|state, effects| self.begin_abort(reach, state, effects));
        self.finish_abort(reclaimed);
    }

    /// Begins an abort, under the lock: nothing is accepted or started any more. The caller passes
    /// the result to `finish_abort`, outside the lock.
    pub(crate) fn begin_abort(
        &self,
        reach: Reach,
        state: &mut State<S>,
        effects: &mut Effects,
    ) -> Reclaimed<S> {
        // No worker is called yet: it would be aborted with the others.
        state.reject_unstarted_without_worker(effects);
        if state.is_open() {
            state.phase = Phase::Aborted;
            self.aborted.store(true, Ordering::Relaxed);
        }
        if reach == Reach::All {
            self.aborted_cleanup.store(true, Ordering::Relaxed);
        }
        let mut reclaimed = state.source.reclaim(reach, effects);
        state.reject(std::mem::take(&mut reclaimed.works), HadPermit::Yes);
        reclaimed
    }

    /// Aborts the workers, once. A later abort must not hit the workers that drop work which never
    /// runs, and no abort returns before the workers have been aborted.
    fn abort_all_workers(&self) {
        let mut workers = self.workers.lock();
        // `Relaxed`: it is only touched under this lock.
        if !self.workers_aborted.swap(true, Ordering::Relaxed) {
            workers.iter_mut().for_each(JoinSet::abort_all);
        }
    }

    /// Finishes an abort, outside the lock: aborts the workers and tasks, completes the jobs that
    /// are lost, and calls a worker that drops the rejected work.
    pub(crate) fn finish_abort(self: &Arc<Self>, reclaimed: Reclaimed<S>) {
        self.abort_all_workers();
        for task in reclaimed.tasks {
            task.abort();
        }
        for (tag, permit) in reclaimed.lost {
            self.complete_without_worker(tag, permit, Outcome::Aborted);
        }
        self.with_effects(State::call_searcher);
    }

    /// Records the panic of a timer as a failure, and aborts the jobs: nothing would abort them at
    /// the deadline, or after the grace period.
    pub(crate) fn fail_timer(self: &Arc<Self>, payload: Payload) {
        let failure = Failure {
            label: Label {
                name: Some("the timer of a deadline or a grace period".into()),
                site: Location::caller(),
            },
            elapsed: Duration::ZERO,
            kind: TaskErrorKind::Panicked(Panic::new(payload)),
            ended: false,
            was_running: false,
            ends_context: true,
            on_pool: None,
        };
        let (later, _) = self.with_state(|state| state.failures.record(failure, None));
        panic::discard(later);
        self.abort(&TIMER_FAILED);
    }

    /// Cancels the context on behalf of the user.
    pub(crate) fn cancel(&self, cause: Option<Cause>) {
        match cause {
            Some(cause) => self.cancel.cancel_with(cause),
            None => self.cancel.cancel(),
        }
        self.note_end();
    }

    /// Cancels the context for a reason of the scheduler's own.
    pub(crate) fn end_context(&self, why: &'static StaticCause) {
        self.end_context_with(Cause::from_static(why));
        self.note_end();
    }

    /// Cancels the context like `end_context`, when everything is complete, unless nothing can see
    /// that. The scheduler itself need not be notified any more.
    pub(crate) fn end_context_if_seen(&self, why: &'static StaticCause) {
        self.ctx().forget_observer(&self.cancel_key);
        self.note_join();
        if self.ctx().is_seen_beside(OWN_HANDLES) {
            self.end_context_with(Cause::from_static(why));
        }
    }

    /// Cancels the context of a group whose tasks have all been waited for.
    pub(crate) fn end_context_after_join(&self, cause: Cause) {
        self.note_join();
        self.end_context_with(cause);
    }

    /// Notes for a recorder how the context has ended, if it has. Must be called without a lock.
    #[inline]
    pub(super) fn note_end(&self) {
        #[cfg(feature = "inspect")]
        if crate::registry::recording::is_on() {
            self.record_end();
        }
    }

    /// Notes that everything has been waited for: only what has ended the context before is noted.
    #[inline]
    fn note_join(&self) {
        self.note_end();
        #[cfg(feature = "inspect")]
        self.registered.waited_for();
    }

    /// Cancels the context. A panic of a waker is discarded: it is not a failure of the task, and
    /// the bookkeeping must go on.
    pub(crate) fn end_context_with(&self, cause: Cause) {
        if let Err(payload) = panic::catch(|| self.cancel.end_with(cause)) {
            panic::discard(payload);
        }
    }
}
