//! How the context is cancelled, and how everything that runs or waits is aborted.

use std::panic::Location;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::Scheduler;
use super::calls::Failure;
use super::effects::Effects;
use super::error::{Label, Panic, TaskErrorKind};
use super::source::{Outcome, Source};
use super::state::{HadPermit, Phase, State};
use crate::context::{Cause, StaticCause};
use crate::panic::{self, Payload};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

static WATCHER_FAILED: StaticCause =
    StaticCause("the group's watcher panicked: does the runtime have a timer?");

/// What has started and is in no worker.
pub(crate) struct Reclaimed<S: Source> {
    /// What no worker has taken yet.
    pub(crate) works: Vec<(S::Tag, S::Work)>,
    /// Jobs that begin no more and count as ended at once, wherever their work is dropped.
    pub(crate) lost: Vec<(S::Tag, HadPermit)>,
    /// Tasks of their own.
    pub(crate) tasks: Vec<AbortHandle>,
}

impl<S: Source> Scheduler<S> {
    /// Ends the context, and drops everything now: what waits, and what runs as soon as its present poll returns.
    pub(crate) fn abort(self: &Arc<Self>, why: &'static StaticCause) {
        self.end_context(why);
        // After a wait nothing is left to be stopped.
        if !self.read(State::is_closed) {
            self.abort_workers();
        }
    }

    pub(crate) fn abort_workers(self: &Arc<Self>) {
        let reclaimed = self.with_effects(|state, effects| self.begin_abort(state, effects));
        self.finish_abort(reclaimed);
    }

    /// Nothing runs or starts any more. What `finish_abort` is to do follows, outside the lock.
    pub(crate) fn begin_abort(&self, state: &mut State<S>, effects: &mut Effects) -> Reclaimed<S> {
        // No worker is called yet: it would be aborted with the others.
        state.reject_unstarted_without_worker(effects);
        if state.is_open() {
            state.phase = Phase::Aborted;
            self.aborted.store(true, Ordering::Relaxed);
        }
        let mut reclaimed = state.source.reclaim();
        state.reject(std::mem::take(&mut reclaimed.works), HadPermit::Yes);
        reclaimed
    }

    /// Aborts the workers, once. A later abort must not hit those that drop what never runs, and
    /// none returns before the workers have been aborted.
    fn abort_all_workers(&self) {
        let mut workers = self.workers.lock();
        // `Relaxed`: it is only touched under this lock.
        if !self.workers_aborted.swap(true, Ordering::Relaxed) {
            workers.abort_all();
        }
    }

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

    /// The watcher cannot watch. Its panic is the group's, and nothing runs on that it should have stopped.
    pub(crate) fn fail_watch(self: &Arc<Self>, payload: Payload) {
        let failure = Failure {
            label: Label {
                name: Some("the group's watcher".into()),
                site: Location::caller(),
            },
            elapsed: Duration::ZERO,
            kind: TaskErrorKind::Panicked(Panic::new(payload)),
            ended: false,
        };
        let (later, _) = self.with_effects(|state, _| state.failures.record(failure, None));
        panic::discard(later);
        self.abort(&WATCHER_FAILED);
    }

    /// Asks everybody to stop.
    pub(crate) fn cancel(&self, cause: Option<Cause>) {
        match cause {
            Some(cause) => self.cancel.cancel_with(cause),
            None => self.cancel.cancel(),
        }
    }

    /// Ends the context on the scheduler's own account.
    pub(crate) fn end_context(&self, why: &'static StaticCause) {
        self.end_context_with(Cause::from_static(why));
    }

    /// A waker that panics is not the task's doing, and must not undo the accounting.
    pub(super) fn end_context_with(&self, cause: Cause) {
        if let Err(payload) = panic::catch(|| self.cancel.end_with(cause)) {
            panic::discard(payload);
        }
    }
}
