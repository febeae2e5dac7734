//! How a local task waits in the queue of its group.

use std::task::{self, Poll, Waker};

use super::handle::Number;
use crate::scheduler::effects::Effects;
use crate::sync::{Arc, Mutex};

/// The wait of a local task for its permit.
///
/// Its lock may be taken while the scheduler's lock is held. No lock is taken while it is held.
pub(crate) struct LocalWait(Mutex<WaitState>);

struct WaitState {
    stage: Stage,
    waker: Option<Waker>,
    /// Its number in the queue, if it has to wait there. Written under the scheduler's lock.
    number: Option<Number>,
    /// Whether the task starts, once that is decided: its admission resolves to this. It is written
    /// under the scheduler's lock, in the section in which the waiter is woken, so a waiter that is
    /// woken finds it. `stage` does not serve for that: a task leaves it outside that lock.
    decision: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not counted yet.
    New,
    /// Counted, and waiting for a permit.
    Waiting,
    /// The task has a permit.
    Admitted,
    /// The task never starts, and counts as ended when it has been dropped.
    Refused,
    /// The task never starts, and does not count: a wait of the group is over.
    Dismissed,
    /// The task has finished or was dropped.
    Left,
}

impl LocalWait {
    pub(super) fn new() -> Arc<LocalWait> {
        Arc::new(LocalWait(Mutex::new(WaitState {
            stage: Stage::New,
            waker: None,
            number: None,
            decision: None,
        })))
    }

    /// Begins to wait. Returns `false` if the task was dropped already, because its `LocalSet` was
    /// being dropped when it was spawned.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.0.lock();
        let new = state.stage == Stage::New;
        if new {
            state.stage = Stage::Waiting;
        }
        new
    }

    /// Gives the task a permit. Returns `false` if the task was dropped, and needs none.
    pub(crate) fn admit(&self, effects: &mut Effects) -> bool {
        self.decide(Stage::Admitted, effects)
    }

    /// Decides that the task never starts. It counts as ended when it has been dropped.
    pub(crate) fn refuse(&self, effects: &mut Effects) {
        self.decide(Stage::Refused, effects);
    }

    /// Decides that the task never starts and does not count, because a wait of the group is over.
    pub(crate) fn dismiss(&self, effects: &mut Effects) {
        self.decide(Stage::Dismissed, effects);
    }

    fn decide(&self, stage: Stage, effects: &mut Effects) -> bool {
        let mut state = self.0.lock();
        let waits = state.stage == Stage::Waiting;
        state.decision = Some(waits && stage == Stage::Admitted);
        if !waits {
            return false;
        }
        state.stage = stage;
        effects.wake.extend(state.waker.take());
        true
    }

    /// Notes the number in the queue. The task may have been dropped already.
    pub(crate) fn set_number(&self, number: Number) {
        self.0.lock().number = Some(number);
    }

    pub(crate) fn number(&self) -> Option<Number> {
        self.0.lock().number
    }

    /// Notes that the task was dropped in the queue: unless it was decided before, it never starts.
    pub(crate) fn forget(&self) {
        self.0.lock().decision.get_or_insert(false);
    }

    /// Returns whether the task starts, if that is decided.
    pub(crate) fn decision(&self) -> Option<bool> {
        self.0.lock().decision
    }

    /// Returns whether the task starts, if that is decided. It is for `Debug` and never blocks.
    pub(crate) fn try_decision(&self) -> Option<bool> {
        self.0.try_lock().and_then(|state| state.decision)
    }

    pub(super) fn poll(&self, cx: &mut task::Context<'_>) -> Poll<Stage> {
        let waker = cx.waker().clone();
        let mut state = self.0.lock();
        if !matches!(state.stage, Stage::New | Stage::Waiting) {
            let stage = state.stage;
            drop(state);
            return Poll::Ready(stage);
        }
        let old = state.waker.replace(waker);
        drop(state);
        drop(old);
        Poll::Pending
    }

    pub(super) fn leave(&self) -> Stage {
        let mut state = self.0.lock();
        let waker = state.waker.take();
        let stage = std::mem::replace(&mut state.stage, Stage::Left);
        drop(state);
        drop(waker);
        stage
    }
}
