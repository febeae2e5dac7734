//! Reading the tables: what is alive.

use std::collections::BTreeMap;

use super::entries::{GroupEntry, StopEntry, TaskEntry, TaskId, WaitEntry};
use super::handlers::HandlerContexts;
use super::shards::{SHARDS, TABLES, lock};

/// The tasks that are alive.
pub(crate) struct LiveTasks {
    pub(crate) entries: Vec<TaskEntry>,
    /// How the handles of some of them have stopped them.
    pub(crate) stops: BTreeMap<TaskId, StopEntry>,
    /// The contexts of the handlers among them.
    pub(crate) contexts: HandlerContexts,
    /// How many tasks each shard had entered.
    counts: [u64; SHARDS],
}

impl LiveTasks {
    pub(crate) fn read() -> LiveTasks {
        let mut read = LiveTasks {
            entries: Vec::new(),
            stops: BTreeMap::new(),
            contexts: HandlerContexts::new(),
            counts: [0; SHARDS],
        };
        for (shard, count) in TABLES.iter().zip(&mut read.counts) {
            let tasks = lock(&shard.tasks);
            *count = tasks.count;
            read.entries.extend(tasks.entries.iter().cloned());
            let stops = tasks.stops.iter().map(|(id, stop)| (*id, stop.clone()));
            read.stops.extend(stops);
            read.contexts.add_all(&tasks.contexts);
        }
        read
    }

    /// Returns whether the task was entered after the reading.
    pub(crate) fn is_newer(&self, id: TaskId) -> bool {
        let number = id.get() - 1;
        number / SHARDS as u64 >= self.counts[(number % SHARDS as u64) as usize]
    }
}

/// Returns the groups that are alive.
pub(crate) fn groups() -> Vec<GroupEntry> {
    let mut all = Vec::new();
    for shard in &TABLES {
        all.extend(lock(&shard.groups).values().cloned());
    }
    all
}

/// Returns what tasks wait for.
pub(crate) fn waits() -> Vec<WaitEntry> {
    let mut all = Vec::new();
    for shard in &TABLES {
        all.extend(lock(&shard.waits).iter().cloned());
    }
    all
}
