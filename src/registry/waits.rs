//! The note of a task that it waits for something.

use std::borrow::Cow;

use tokio::time::Instant;

use super::caller::current;
use super::entries::WaitEntry;
use super::shards::{SHARD_BITS, SHARDS, TABLES, lock, own_shard};

/// A note that the current task waits, which ends when this is dropped.
pub(crate) struct Waits(usize);

impl Waits {
    /// Notes that the current task waits. Returns `None` outside a task.
    pub(crate) fn begin(label: Cow<'static, str>) -> Option<Waits> {
        let task = current()?;
        let since = Instant::now();
        let entry = WaitEntry { task, label, since };
        let shard = own_shard();
        let index = lock(&TABLES[shard].waits).insert(entry);
        Some(Waits((index << SHARD_BITS) | shard))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let shard = &TABLES[self.0 % SHARDS];
        let mut waits = lock(&shard.waits);
        let label = waits.remove_with(self.0 >> SHARD_BITS, |entry| {
            std::mem::take(&mut entry.label)
        });
        drop(waits);
        drop(label);
    }
}
