//! Whether a background task is polled on this thread, so that the permits that it reserves are
//! known as its own.
//!
//! Such a task takes no permit, so it is no [current job](crate::scheduler::current), which is
//! something that may lend its permit.

use std::cell::Cell;

use super::policy::Policy;
use crate::scheduler::current;
use crate::scheduler::permits::lending::SchedulerId;
use crate::sync::thread_static;

thread_static! {
    // The scheduler of the task, or 0.
    static POLLED: Cell<SchedulerId> = Cell::new(0);
}

/// Keeps a background task on the thread until this is dropped.
pub(super) struct Entered {
    before: SchedulerId,
}

/// Puts a task of this scheduler on the thread for a poll, if it is a background task.
pub(super) fn enter(policy: Policy, scheduler: SchedulerId) -> Option<Entered> {
    policy.is_background().then(|| Entered {
        before: POLLED.with(|polled| polled.replace(scheduler)),
    })
}

impl Drop for Entered {
    fn drop(&mut self) {
        POLLED.with(|polled| polled.set(self.before));
    }
}

/// Returns whether a background task of this scheduler is polled on this thread, and no other task
/// of the scheduler inside it.
pub(super) fn is_polled(scheduler: SchedulerId) -> bool {
    POLLED.with(Cell::get) == scheduler && !current::is_job_of(scheduler)
}
