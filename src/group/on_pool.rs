//! The blocking closures that wait for a thread of the pool.

use std::collections::BTreeMap;

use super::task::Task;
use crate::scheduler::source::{HadPermit, Reach};

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

    /// Takes the tasks that an abort reaches.
    pub(crate) fn take_all(&mut self, reach: Reach) -> Vec<(Task, HadPermit)> {
        let mut taken = std::mem::take(&mut self.tasks);
        if reach == Reach::AllButCleanup {
            let (kept, rest) = taken
                .into_iter()
                .partition(|(_, (task, _))| task.policy.is_cleanup());
            self.tasks = kept;
            taken = rest;
        }
        taken.into_values().collect()
    }
}
