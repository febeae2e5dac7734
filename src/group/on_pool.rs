//! The blocking closures that wait for a thread of the pool, and those that run there.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::task::Task;
use crate::scheduler::calls::PoolId;
use crate::scheduler::error::Label;
use crate::scheduler::ledger::Straggler;
use crate::scheduler::source::{HadPermit, Reach};

/// The blocking closures of a group. They are boxed, since most groups have none.
pub(crate) struct OnPool(Option<Box<Closures>>);

#[derive(Default)]
struct Closures {
    /// The tasks whose closures wait for a thread of the pool.
    waiting: BTreeMap<PoolId, (Task, HadPermit)>,
    /// A register of those whose closures run, and since when.
    running: BTreeMap<PoolId, (Label, Instant)>,
    last: PoolId,
}

impl OnPool {
    pub(crate) fn new() -> OnPool {
        OnPool(None)
    }

    pub(super) fn insert(&mut self, task: Task, permit: HadPermit) -> PoolId {
        let closures = self.0.get_or_insert_default();
        closures.last += 1;
        closures.waiting.insert(closures.last, (task, permit));
        closures.last
    }

    /// Takes a task whose closure never runs.
    pub(super) fn remove(&mut self, id: PoolId) -> Option<(Task, HadPermit)> {
        self.0.as_mut()?.waiting.remove(&id)
    }

    /// Takes the tasks that an abort reaches.
    pub(crate) fn take_all(&mut self, reach: Reach) -> Vec<(Task, HadPermit)> {
        let Some(closures) = &mut self.0 else {
            return Vec::new();
        };
        let mut taken = std::mem::take(&mut closures.waiting);
        if reach == Reach::AllButCleanup {
            let is_cleanup = |task: &Task| task.policy.is_cleanup();
            let (kept, rest) = taken
                .into_iter()
                .partition(|(_, (task, _))| is_cleanup(task));
            closures.waiting = kept;
            taken = rest;
        }
        taken.into_values().collect()
    }

    /// Takes a task whose closure begins now on a thread of the pool, and enters that it runs.
    pub(super) fn begin(&mut self, id: PoolId) -> Option<(Task, HadPermit)> {
        let closures = self.0.as_mut()?;
        let (task, permit) = closures.waiting.remove(&id)?;
        let entry = (task.label.clone(), Instant::now());
        closures.running.insert(id, entry);
        Some((task, permit))
    }

    /// Removes a closure that has run.
    pub(super) fn left(&mut self, id: PoolId) {
        if let Some(closures) = &mut self.0 {
            closures.running.remove(&id);
        }
    }

    /// Returns how many closures run.
    pub(super) fn running(&self) -> usize {
        self.0.as_ref().map_or(0, |it| it.running.len())
    }

    /// Returns the closures that run.
    pub(super) fn stragglers(&self) -> impl Iterator<Item = Straggler> {
        let running = self.0.iter().flat_map(|it| it.running.values());
        running.map(|(label, since)| Straggler {
            label: label.clone(),
            age: since.elapsed(),
        })
    }
}
