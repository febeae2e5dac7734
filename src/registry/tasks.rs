//! The entry of a task: written when the task is submitted, when it starts, and when it ends.

use std::fmt::Display;
use std::num::NonZeroU64;
#[cfg(feature = "tower")]
use std::sync::Arc;

use tokio::time::Instant;

#[cfg(feature = "tower")]
use super::TaskKind;
use super::entries::{FailureKind, StopEntry, TaskEntry, TaskId, TaskRef};
#[cfg(feature = "tower")]
use super::handlers::HandlerContext;
use super::recording::{self, What};
use super::shards::{
    OWNS_PLACE, SHARD_BITS, SHARDS, TABLES, Tasks, group_info, lock, own_shard, place,
};
use super::text::text as bounded;
use crate::tracing;

// So that the memory of a task stays within its budget: with its `TaskEntry`, 64 bytes.
const _: () = assert!(size_of::<Entry>() <= 8);

/// Enters a task, and gives it its id.
#[inline(always)]
pub(super) fn enter_task(mut entry: TaskEntry) -> Entry {
    let shard = own_shard();
    let mut tasks = lock(&TABLES[shard].tasks);
    // Each shard gives ids of its own, so that threads do not meet at one counter.
    let number = tasks.count * SHARDS as u64 + shard as u64;
    tasks.count += 1;
    entry.id = NonZeroU64::MIN.saturating_add(number);
    let index = tasks.entries.insert(entry);
    Entry(OWNS_PLACE | ((index as u64) << SHARD_BITS) | shard as u64)
}

/// The key to the entry of a task, which is removed when this is dropped or closed.
pub(crate) struct Entry(pub(super) u64);

impl Drop for Entry {
    #[inline]
    fn drop(&mut self) {
        // Most entries have been closed, so the rest of it is not compiled into each destructor.
        if self.owns_place() {
            self.close();
        }
    }
}

impl Entry {
    pub(crate) const fn none() -> Entry {
        Entry(0)
    }

    fn owns_place(&self) -> bool {
        self.0 & OWNS_PLACE != 0
    }

    /// Notes that the task waits for a permit from now on.
    pub(crate) fn queued(&self) {
        let _ = self.set(Instant::now(), false);
    }

    /// Notes that the task has started. Returns where its handle finds the entry.
    pub(crate) fn started(&self, at: Instant) -> Option<TaskRef> {
        self.set(at, true)
    }

    #[inline]
    fn set(&self, at: Instant, has_started: bool) -> Option<TaskRef> {
        if !self.owns_place() {
            return None;
        }
        let (shard, index) = self.place();
        let mut tasks = lock(&TABLES[shard].tasks);
        let entry = tasks.entries.get_mut(index)?;
        entry.has_started = has_started;
        entry.since = Some(at);
        let id = entry.id;
        Some(TaskRef { key: self.0, id })
    }

    /// Notes that the handler has started. Its context is kept as long as its entry.
    #[cfg(feature = "tower")]
    pub(crate) fn handler_started(&self, at: Instant, ctx: Arc<dyn HandlerContext>) {
        if !self.owns_place() {
            return;
        }
        let (shard, index) = self.place();
        let mut tasks = lock(&TABLES[shard].tasks);
        if let Some(entry) = tasks.entries.get_mut(index) {
            entry.has_started = true;
            entry.since = Some(at);
            let id = entry.id;
            // Its id is new, so nothing is replaced.
            tasks.contexts.insert(id, ctx);
        }
    }

    /// Notes that the handler runs on without its client from now on.
    #[cfg(feature = "tower")]
    pub(crate) fn lingers(&self) {
        if !self.owns_place() {
            return;
        }
        let (shard, index) = self.place();
        let mut tasks = lock(&TABLES[shard].tasks);
        if let Some(entry) = tasks.entries.get_mut(index) {
            entry.kind = TaskKind::Lingering;
        }
    }

    /// Notes that the task has failed and is about to end, and whether its context was done. Of
    /// several failures, the first one counts. It is written for a recorder only. Runs user code,
    /// so it must be called without a lock.
    #[inline]
    pub(crate) fn failed(&self, failure: tracing::Failure<'_>, was_done: bool) {
        if recording::is_on() {
            self.record_failure(failure, was_done);
        }
    }

    #[cold]
    fn record_failure(&self, failure: tracing::Failure<'_>, was_done: bool) {
        if !self.owns_place() {
            return;
        }
        let (how, text): (_, &dyn Display) = match failure {
            tracing::Failure::Error(error) if was_done => (FailureKind::Stopped, error),
            tracing::Failure::Error(error) => (FailureKind::Failed, error),
            tracing::Failure::Panic(panic) => (FailureKind::Panicked, panic),
            tracing::Failure::Abort { reason, cause } => {
                (FailureKind::Aborted, cause.unwrap_or(reason))
            }
        };
        let text = bounded(text);
        let (shard, index) = self.place();
        let mut tasks = lock(&TABLES[shard].tasks);
        let entry = tasks.entries.get_mut(index);
        let Some(entry) = entry.filter(|entry| entry.failed.is_none()) else {
            return;
        };
        entry.failed = Some(how);
        let (task, group) = (entry.id, entry.group);
        drop(tasks);
        recording::push(group, What::Failed { task, text }, group_info);
    }

    /// Removes the entry of a task.
    pub(crate) fn close(&mut self) {
        if self.owns_place() {
            if recording::is_on() {
                return self.close_and_record();
            }
            let (shard, index) = self.place();
            self.0 = 0;
            let mut tasks = lock(&TABLES[shard].tasks);
            let removed = tasks.entries.remove_with(index, |entry| {
                (entry.name.take(), entry.has_more().then_some(entry.id))
            });
            let has_more = removed.as_ref().and_then(|(_, has_more)| *has_more);
            let more = has_more.map(|id| tasks.take_more(id));
            drop(tasks);
            drop((removed, more));
        }
    }

    #[cold]
    fn close_and_record(&mut self) {
        let (shard, index) = self.place();
        self.0 = 0;
        let mut tasks = lock(&TABLES[shard].tasks);
        let removed = tasks.entries.remove_with(index, TaskEntry::take);
        let has_more = removed.as_ref().filter(|entry| entry.has_more());
        let more = has_more.map(|entry| tasks.take_more(entry.id));
        drop(tasks);
        drop(more);
        if let Some(entry) = removed {
            recording::push(entry.group, What::Ended(entry), group_info);
        }
    }

    #[inline]
    fn place(&self) -> (usize, usize) {
        place(self.0)
    }
}

impl Tasks {
    /// Takes what is kept of a task beside its entry. It must be dropped without the lock.
    #[cold]
    fn take_more(&mut self, id: TaskId) -> impl Sized + use<> {
        (self.stops.remove(&id), self.contexts.take(id))
    }
}

impl TaskRef {
    /// Notes that the handle of the task has stopped it, unless the task has ended or was stopped
    /// before. Runs user code, so it must be called without a lock.
    #[cold]
    pub(crate) fn stopped(self, cause: &dyn Display) {
        let cause = bounded(cause);
        let at = Instant::now();
        let (shard, index) = place(self.key);
        let mut tasks = lock(&TABLES[shard].tasks);
        let entry = tasks.entries.get_mut(index);
        if let Some(entry) = entry.filter(|it| it.id == self.id && !it.is_stopped) {
            entry.is_stopped = true;
            tasks.stops.insert(self.id, StopEntry { cause, at });
        }
    }
}
