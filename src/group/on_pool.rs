//! The blocking closures that wait for a thread of the pool, and those that run there.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::task::Task;
use crate::scheduler::calls::PoolId;
use crate::scheduler::error::Label;
use crate::scheduler::ledger::Straggler;
use crate::scheduler::source::{HadPermit, Reach};

/// The tasks whose closures wait for a thread of the pool, and a register of those whose closures
/// run.
pub(crate) struct OnPool {
    pub(super) tasks: BTreeMap<PoolId, (Task, HadPermit)>,
    running: BTreeMap<PoolId, (Label, Instant)>,
    next: PoolId,
}

impl OnPool {
    pub(crate) fn new() -> OnPool {
        OnPool {
            tasks: BTreeMap::new(),
            running: BTreeMap::new(),
            next: 0,
        }
    }

    pub(super) fn insert(&mut self, task: Task, permit: HadPermit) -> PoolId {
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

    /// Takes a task whose closure begins now on a thread of the pool, and enters that it runs.
    pub(super) fn begin(&mut self, id: PoolId) -> Option<(Task, HadPermit)> {
        let (task, permit) = self.tasks.remove(&id)?;
        self.running
            .insert(id, (task.label.clone(), Instant::now()));
        Some((task, permit))
    }

    /// Removes a closure that has run.
    pub(super) fn left(&mut self, id: PoolId) {
        self.running.remove(&id);
    }

    /// Returns how many closures run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns the closures that run.
    pub(super) fn stragglers(&self) -> impl Iterator<Item = Straggler> {
        self.running.values().map(|(label, since)| Straggler {
            label: label.clone(),
            age: since.elapsed(),
        })
    }
}
