//! The blocking closures that wait for a thread of the pool.

use std::collections::BTreeMap;

use super::task::Task;
use crate::scheduler::source::HadPermit;

/// The tasks whose closures wait for a thread of the pool.
pub(crate) struct OnPool {
    pub(super) tasks: BTreeMap<OnPoolId, (Task, HadPermit)>,
    next: OnPoolId,
}

pub(super) type OnPoolId = u64;

impl OnPool {
    pub(crate) fn new() -> OnPool {
        OnPool {
            tasks: BTreeMap::new(),
            next: 0,
        }
    }

    pub(super) fn insert(&mut self, task: Task, permit: HadPermit) -> OnPoolId {
        self.next += 1;
        self.tasks.insert(self.next, (task, permit));
        self.next
    }

    /// Takes all tasks, for an abort.
    pub(crate) fn take_all(&mut self) -> Vec<(Task, HadPermit)> {
        std::mem::take(&mut self.tasks).into_values().collect()
    }
}
