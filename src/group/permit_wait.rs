//! How a local task or a reservation waits in the queue of its group.

use std::task::{self, Poll, Waker};

use super::handle::Number;
use crate::scheduler::effects::Effects;
use crate::scheduler::permits::lending::ReservedId;
use crate::sync::{Arc, Mutex};

/// The wait of a local task or of a reservation for its permit.
///
/// Neither has a job that a worker could run, and both may be dropped while they wait.
///
/// Its lock may be taken while the scheduler's lock is held. No lock is taken while it is held.
pub(crate) struct PermitWait {
    state: Mutex<WaitState>,
    /// Whether it is a reservation that a background task of the group has made.
    by_background: bool,
}

struct WaitState {
    stage: Stage,
    waker: Option<Waker>,
    /// The number in the queue, if it has to wait there. Written under the scheduler's lock.
    number: Option<Number>,
    /// Whether the permit is given, once that is decided: the admission of a local task resolves to
    /// this. It is written under the scheduler's lock, in the section in which the waiter is woken,
    /// so a waiter that is woken finds it. `stage` does not serve for that: a local task leaves it
    /// outside that lock.
    decision: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not counted yet.
    New,
    /// Counted, and waiting for a permit.
    Waiting,
    /// It has its permit.
    Admitted,
    /// It gets no permit. A local task counts as ended when it has been dropped.
    Refused,
    /// It gets no permit, and does not count: a wait of the group is over.
    Dismissed,
    /// It has ended or was dropped.
    Left,
}

impl PermitWait {
    pub(super) fn new() -> Arc<PermitWait> {
        PermitWait::of_reservation(false)
    }

    /// Returns the wait of a reservation, which a background task of the group may have made.
    pub(super) fn of_reservation(by_background: bool) -> Arc<PermitWait> {
        Arc::new(PermitWait {
            state: Mutex::new(WaitState {
                stage: Stage::New,
                waker: None,
                number: None,
                decision: None,
            }),
            by_background,
        })
    }

    pub(super) fn is_by_background(&self) -> bool {
        self.by_background
    }

    /// Returns the id of the permit that a reservation gets: no other wait has it while this one
    /// exists.
    pub(crate) fn reserved_id(&self) -> ReservedId {
        std::ptr::from_ref(self) as ReservedId
    }

    /// Begins to wait. Returns `false` if the task was dropped already, because its `LocalSet` was
    /// being dropped when it was spawned.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        let new = state.stage == Stage::New;
        if new {
            state.stage = Stage::Waiting;
        }
        new
    }

    /// Gives it a permit. Returns `false` if it was dropped, and needs none.
    pub(crate) fn admit(&self, effects: &mut Effects) -> bool {
        self.decide(Stage::Admitted, effects)
    }

    /// Decides that it gets no permit. A local task counts as ended when it has been dropped.
    pub(crate) fn refuse(&self, effects: &mut Effects) {
        self.decide(Stage::Refused, effects);
    }

    /// Decides that it gets no permit and does not count, because a wait of the group is over.
    pub(crate) fn dismiss(&self, effects: &mut Effects) {
        self.decide(Stage::Dismissed, effects);
    }

    fn decide(&self, stage: Stage, effects: &mut Effects) -> bool {
        let mut state = self.state.lock();
        let waits = state.stage == Stage::Waiting;
        state.decision = Some(waits && stage == Stage::Admitted);
        if !waits {
            return false;
        }
        state.stage = stage;
        effects.wake.extend(state.waker.take());
        true
    }

    /// Notes the number in the queue. A local task may have been dropped already.
    pub(crate) fn set_number(&self, number: Number) {
        self.state.lock().number = Some(number);
    }

    pub(crate) fn number(&self) -> Option<Number> {
        self.state.lock().number
    }

    /// Notes that it was dropped in the queue: unless it was decided before, it gets no permit.
    pub(crate) fn forget(&self) {
        self.state.lock().decision.get_or_insert(false);
    }

    /// Returns whether it gets its permit, if that is decided.
    pub(crate) fn decision(&self) -> Option<bool> {
        self.state.lock().decision
    }

    /// Returns whether it gets its permit, if that is decided. It is for `Debug` and never blocks.
    pub(crate) fn try_decision(&self) -> Option<bool> {
        self.state.try_lock().and_then(|state| state.decision)
    }

    pub(super) fn poll(&self, cx: &mut task::Context<'_>) -> Poll<Stage> {
        let waker = cx.waker().clone();
        let mut state = self.state.lock();
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
        let mut state = self.state.lock();
        let waker = state.waker.take();
        let stage = std::mem::replace(&mut state.stage, Stage::Left);
        drop(state);
        drop(waker);
        stage
    }
}
