//! The tables, and the locks that guard them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::entries::{GroupEntry, GroupId, StopEntry, TaskEntry, TaskId, WaitEntry};
use super::handlers::HandlerContexts;
use super::recording::GroupInfo;
use super::table::Table;

/// With this many, threads that start tasks rarely meet at one lock.
pub(super) const SHARDS: usize = 16;
/// The bits of a key that are the number of the shard.
pub(super) const SHARD_BITS: u32 = SHARDS.trailing_zeros();
/// The bit of a key that says that the entry owns a place in the table of tasks.
pub(super) const OWNS_PLACE: u64 = 1 << 63;

pub(super) static TABLES: [Shard; SHARDS] = [const { Shard::new() }; SHARDS];

/// In a cache line of its own, so that threads do not disturb each other.
#[repr(align(128))]
pub(super) struct Shard {
    pub(super) tasks: Mutex<Tasks>,
    /// The id of a group says in which shard it is, so that a task can find its group.
    pub(super) groups: Mutex<BTreeMap<GroupId, GroupEntry>>,
    pub(super) waits: Mutex<Table<WaitEntry>>,
}

pub(super) struct Tasks {
    pub(super) entries: Table<TaskEntry>,
    /// How many tasks there have been.
    pub(super) count: u64,
    /// The few that their handles have stopped.
    pub(super) stops: BTreeMap<TaskId, StopEntry>,
    pub(super) contexts: HandlerContexts,
}

impl Shard {
    const fn new() -> Shard {
        Shard {
            tasks: Mutex::new(Tasks {
                entries: Table::new(),
                count: 0,
                stops: BTreeMap::new(),
                contexts: HandlerContexts::new(),
            }),
            groups: Mutex::new(BTreeMap::new()),
            waits: Mutex::new(Table::new()),
        }
    }
}

std::thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

pub(super) fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the shard and the index to which a key with [`OWNS_PLACE`] refers.
#[inline]
pub(super) fn place(key: u64) -> (usize, usize) {
    let key = key & !OWNS_PLACE;
    let shard = key % SHARDS as u64;
    (shard as usize, (key >> SHARD_BITS) as usize)
}

/// Returns the number of this thread's shard.
#[inline]
pub(super) fn own_shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    // While the thread ends, the first shard serves as well.
    let shard = SHARD.try_with(|shard| {
        if shard.get() == usize::MAX {
            // `Relaxed`: threads only have to be spread.
            shard.set(THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    });
    shard.unwrap_or(0)
}

pub(super) fn group_shard(id: GroupId) -> &'static Shard {
    &TABLES[(id % SHARDS as u64) as usize]
}

/// Returns what is known of a group. It takes the lock of the group's name, and no other lock of
/// the group.
pub(super) fn group_info(id: GroupId) -> GroupInfo {
    let entry = lock(&group_shard(id).groups).get(&id).cloned();
    let group = entry.as_ref().and_then(|entry| entry.group.upgrade());
    GroupInfo {
        id,
        made: entry.as_ref().map(|entry| (entry.kind, entry.site)),
        name: group.and_then(|group| group.name()),
        parent: entry.and_then(|entry| entry.parent),
    }
}
