//! Reads and changes a group's limit, for the group and for its spawners.

use super::queue::Queue;
use crate::scheduler::Scheduler;
use crate::scheduler::group_error::GroupError;
use crate::sync::Arc;

/// Sets the limit, and starts what can start.
pub(super) fn set_limit<E: GroupError>(scheduler: &Arc<Scheduler<Queue<E>>>, limit: Option<usize>) {
    let ended = scheduler.ctx().is_done();
    scheduler.with_effects(|state, effects| {
        state.permits.set_limit(limit.unwrap_or(usize::MAX));
        state.start_ready(ended, effects);
    });
}

/// Returns the limit, or `None` if there is none.
pub(super) fn limit<E: GroupError>(scheduler: &Scheduler<Queue<E>>) -> Option<usize> {
    let limit = scheduler.read(|state| state.permits.limit());
    (limit != usize::MAX).then_some(limit)
}

/// Returns whether the group was waited for or dropped, and all its tasks have ended. A worker may
/// still hold the scheduler for a moment.
pub(super) fn is_gone<E: GroupError>(scheduler: &Scheduler<Queue<E>>) -> bool {
    scheduler.read(|state| !state.is_open() && !state.has_open())
}

pub(super) fn running<E: GroupError>(scheduler: &Scheduler<Queue<E>>) -> usize {
    scheduler.read(|state| state.permits.running())
}

pub(super) fn queued<E: GroupError>(scheduler: &Scheduler<Queue<E>>) -> usize {
    scheduler.read(|state| state.source.waiting())
}
