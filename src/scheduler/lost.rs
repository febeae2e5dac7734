//! Workers that are dropped before their first poll: an abort has hit them, or their runtime has
//! shut down (invariant 5 of the [scheduler](super)). No thread holds a lock when it drops what is
//! left.

use super::Scheduler;
use super::source::{HadPermit, Source};
use super::state::{Phase, State};
use crate::context::StaticCause;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

static RUNTIME_GONE: StaticCause = StaticCause("the runtime of the tasks has shut down");

impl<S: Source> Scheduler<S> {
    /// Handles a searching worker that was dropped before it looked for work: its runtime has shut
    /// down, or an abort has hit it (invariant 5).
    ///
    /// If the drop happened inside `spawn_guarded`, the lock on `workers` is held further up the
    /// stack, and `spawn_guarded` does the rest.
    pub(crate) fn searcher_lost(self: &Arc<Self>) {
        let phase = self.with_state(|state| {
            state.permits.search_done();
            state.phase
        });
        self.worker_lost(phase);
    }

    /// Handles a worker that was dropped before its first poll, together with the work that it was
    /// spawned with: its runtime has shut down, or an abort has hit it. The work (a job, or the
    /// permit for an item) may be user code, so it is kept, and dropped where no lock is held.
    pub(crate) fn worker_lost_with_job(self: &Arc<Self>, tag: S::Tag, work: S::Work) {
        let phase = self.with_state(|state| {
            state.reject(vec![(tag, work)], HadPermit::Yes);
            state.phase
        });
        self.worker_lost(phase);
    }

    fn worker_lost(self: &Arc<Self>, phase: Phase) {
        if phase == Phase::Closed {
            return;
        }
        // A read-modify-write, like the one in `spawn_guarded`: the later of the two sees what the
        // thread of the earlier one did before it.
        self.lost_while_spawning.swap(true, Ordering::SeqCst);
        if self.spawning.load(Ordering::SeqCst) > 0 {
            return;
        }
        if self.lost_while_spawning.swap(false, Ordering::SeqCst) {
            match phase {
                Phase::Open => self.runtime_lost(),
                Phase::Aborted | Phase::Closed => self.replace_worker(),
            }
        }
    }

    /// Aborts everything after the runtime has shut down: no job will ever run, and this thread
    /// drops those that are left.
    pub(crate) fn runtime_lost(self: &Arc<Self>) {
        self.with_state(|state| state.runtime_lost = true);
        self.abort(&RUNTIME_GONE);
        self.drop_what_is_left();
    }

    /// Drops all work that never runs, and reports that, in this thread: no worker can be called.
    pub(super) fn drop_what_is_left(self: &Arc<Self>) {
        self.with_state(|state| state.runtime_lost = true);
        self.dispose_all();
        S::report(self);
    }

    /// Replaces a worker that was dropped before its first poll. A new worker does what is left, or
    /// this thread if the runtime has shut down.
    pub(super) fn replace_worker(self: &Arc<Self>) {
        let is_runtime_lost = self.with_effects(|state, effects| {
            state.call_searcher(effects);
            state.runtime_lost
        });
        if is_runtime_lost {
            self.dispose_all();
        }
    }

    /// Drops all work that never runs, in this thread, which holds no lock.
    fn dispose_all(self: &Arc<Self>) {
        // Ends: an aborted scheduler gets no more work.
        while let Some(rejected) = self.with_state(State::next_rejected) {
            S::dispose(self, rejected);
        }
    }
}
