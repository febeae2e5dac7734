//! The tables of the registry.

use std::borrow::Cow;
use std::cell::Cell;
use std::num::{NonZeroI64, NonZeroU64};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use super::TaskKind;
use crate::sync::thread_static;

/// Identifies a task. It is never used again.
pub(crate) type TaskId = NonZeroU64;
/// Identifies a group. It is never used again.
pub(crate) type GroupId = u64;

/// With this many, threads that start tasks rarely meet at one lock.
const SHARDS: usize = 16;
/// The bits of a key that are the number of the shard.
const SHARD_BITS: u32 = SHARDS.trailing_zeros();
/// The bit of a key that says that the entry owns a place in the table of tasks.
const OWNS_PLACE: u64 = 1 << 63;

static TABLES: [Shard; SHARDS] = [const { Shard::new() }; SHARDS];
static NEXT_GROUP: AtomicU64 = AtomicU64::new(1);

/// In a cache line of its own, so that threads do not disturb each other.
#[repr(align(128))]
struct Shard {
    tasks: Mutex<Tasks>,
    groups: Mutex<Slab<GroupEntry>>,
    waits: Mutex<Slab<WaitEntry>>,
}

struct Tasks {
    entries: Slab<TaskEntry>,
    /// How many tasks there have been.
    count: u64,
}

/// A live task. It is small, because a program may have a million of them.
pub(crate) struct TaskEntry {
    pub(crate) id: TaskId,
    pub(crate) group: GroupId,
    pub(crate) site: &'static Location<'static>,
    /// The name; boxed, because most tasks have none.
    pub(crate) name: Option<Box<Cow<'static, str>>>,
    /// When it began to wait, or to run.
    since: Option<Stamp>,
    /// The number of an item.
    pub(crate) number: u32,
    pub(crate) kind: TaskKind,
    pub(crate) has_started: bool,
}

/// A live group, scope or fan-out.
#[derive(Clone)]
pub(crate) struct GroupEntry {
    pub(crate) id: GroupId,
    /// The task in which it was made.
    pub(crate) parent: Option<TaskId>,
    pub(crate) kind: GroupKind,
    pub(crate) site: &'static Location<'static>,
    pub(crate) group: Weak<dyn Inspected>,
}

/// What a task waits for, as its own code says.
#[derive(Clone)]
pub(crate) struct WaitEntry {
    pub(crate) task: TaskId,
    pub(crate) label: Cow<'static, str>,
    pub(crate) since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupKind {
    Group,
    Scope,
    FanOut,
    #[cfg(feature = "tower")]
    Handlers,
}

/// What a group tells of itself. It takes its own lock for that, and no other one.
pub(crate) trait Inspected: Send + Sync {
    fn look(&self) -> Look;
}

pub(crate) struct Look {
    pub(crate) name: Option<String>,
    /// `None` without a limit.
    pub(crate) limit: Option<usize>,
    /// `None` if it is the number of tasks that have started.
    pub(crate) running: Option<usize>,
    pub(crate) queued: usize,
    pub(crate) is_waited_for: bool,
    /// Whether no task runs and none will.
    pub(crate) is_over: bool,
    pub(crate) grace: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) end: Option<End>,
    /// The tasks that have lent their permit, and since when.
    pub(crate) lent: Vec<(TaskId, Instant)>,
}

/// How the context of a group has ended.
pub(crate) struct End {
    /// The cause, or the reason if there is none.
    pub(crate) cause: String,
    pub(crate) at: Option<Instant>,
}

/// An instant in eight bytes: nanoseconds since the first one that was taken, and one more, so that
/// `Option<Stamp>` has eight bytes, too.
#[derive(Clone, Copy)]
struct Stamp(NonZeroI64);

/// The instant from which stamps count.
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

impl Stamp {
    fn of(at: Instant) -> Option<Stamp> {
        let base = base();
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        // A paused clock may be behind the clock with which the base was taken.
        let after = match at.checked_duration_since(base) {
            Some(after) => nanos(after).saturating_add(1),
            None => -nanos(base - at),
        };
        NonZeroI64::new(after).map(Stamp)
    }

    fn instant(self) -> Instant {
        let nanos = self.0.get();
        let distance = Duration::from_nanos(nanos.unsigned_abs() - u64::from(nanos > 0));
        if nanos < 0 {
            base() - distance
        } else {
            base() + distance
        }
    }
}

impl TaskEntry {
    /// `None` if it has not been queued and is about to start.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since.map(Stamp::instant)
    }
}

// So that the memory of a task stays within its budget: with `Entry`, 64 bytes.
const _: () = assert!(size_of::<TaskEntry>() <= 48 && size_of::<Entry>() <= 16);

impl Clone for TaskEntry {
    fn clone(&self) -> Self {
        TaskEntry {
            name: self.name.clone(),
            ..*self
        }
    }
}

impl Shard {
    const fn new() -> Shard {
        Shard {
            tasks: Mutex::new(Tasks {
                entries: Slab::new(),
                count: 0,
            }),
            groups: Mutex::new(Slab::new()),
            waits: Mutex::new(Slab::new()),
        }
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_static! {
    static CURRENT: Cell<Option<TaskId>> = Cell::new(None);
}
std::thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Returns the task that runs on this thread.
pub(crate) fn current() -> Option<TaskId> {
    CURRENT.with(Cell::get)
}

/// Returns the number of this thread's shard.
fn own_shard() -> usize {
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

/// Puts an entry into a table of this thread's shard, and returns its key.
fn insert<T>(table: impl FnOnce(&Shard) -> &Mutex<Slab<T>>, entry: T) -> usize {
    let shard = own_shard();
    let index = lock(table(&TABLES[shard])).insert(entry);
    (index << SHARD_BITS) | shard
}

fn remove<T>(table: impl FnOnce(&Shard) -> &Mutex<Slab<T>>, key: usize) {
    let removed = lock(table(&TABLES[key % SHARDS])).try_remove(key >> SHARD_BITS);
    drop(removed);
}

/// The entry of a task, which is removed when this is dropped or closed; or the caller that makes a
/// group, and the group's id. A clone owns no entry.
pub(crate) struct Entry {
    /// The task, or the task in which the group is made.
    task: Option<TaskId>,
    /// The place of a task's entry, or the id of the group.
    key: u64,
}

impl Clone for Entry {
    fn clone(&self) -> Entry {
        Entry {
            task: self.task,
            key: if self.owns_place() { 0 } else { self.key },
        }
    }
}

impl Drop for Entry {
    #[inline]
    fn drop(&mut self) {
        self.close();
    }
}

impl Entry {
    pub(crate) const fn none() -> Entry {
        Entry { task: None, key: 0 }
    }

    /// Returns the caller, and an id for the group that it makes.
    pub(crate) fn caller() -> Entry {
        Entry {
            task: current(),
            // `Relaxed`: each id is given once, and nothing else follows from it.
            key: NEXT_GROUP.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn owns_place(&self) -> bool {
        self.key & OWNS_PLACE != 0
    }

    /// Enters a task of the group that has not started.
    pub(crate) fn task(
        &self,
        name: Option<&Cow<'static, str>>,
        site: &'static Location<'static>,
        kind: TaskKind,
    ) -> Entry {
        self.enter_task(site, kind, 0, None, name.cloned().map(Box::new))
    }

    /// Enters an item of the fan-out, which starts now.
    pub(crate) fn item(&self, number: usize, site: &'static Location<'static>) -> Entry {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.enter_task(site, TaskKind::Item, number, Some(Instant::now()), None)
    }

    fn enter_task(
        &self,
        site: &'static Location<'static>,
        kind: TaskKind,
        number: u32,
        started: Option<Instant>,
        name: Option<Box<Cow<'static, str>>>,
    ) -> Entry {
        let shard = own_shard();
        let since = started.and_then(Stamp::of);
        let mut tasks = lock(&TABLES[shard].tasks);
        tasks.count += 1;
        // Each shard gives ids of its own, so that threads do not meet at one counter.
        let number_of_all = (tasks.count - 1) * SHARDS as u64 + shard as u64;
        let id = NonZeroU64::MIN.saturating_add(number_of_all);
        let index = tasks.entries.insert(TaskEntry {
            id,
            group: self.key,
            site,
            name,
            since,
            number,
            kind,
            has_started: started.is_some(),
        });
        Entry {
            task: Some(id),
            key: OWNS_PLACE | ((index as u64) << SHARD_BITS) | shard as u64,
        }
    }

    /// Notes that the task waits for a permit from now on.
    pub(crate) fn queued(&self) {
        self.set(Instant::now(), false);
    }

    /// Notes that the task has started.
    pub(crate) fn started(&self, at: Instant) {
        self.set(at, true);
    }

    fn set(&self, at: Instant, has_started: bool) {
        if self.owns_place() {
            let (shard, index) = self.place();
            let since = Stamp::of(at);
            if let Some(entry) = lock(&TABLES[shard].tasks).entries.get_mut(index) {
                entry.has_started = has_started;
                entry.since = since;
            }
        }
    }

    /// Removes the entry of a task.
    #[inline]
    pub(crate) fn close(&mut self) {
        if self.owns_place() {
            let (shard, index) = self.place();
            let removed = lock(&TABLES[shard].tasks).entries.try_remove(index);
            drop(removed);
            self.key = 0;
        }
    }

    fn place(&self) -> (usize, usize) {
        let key = self.key & !OWNS_PLACE;
        let shard = key % SHARDS as u64;
        (shard as usize, (key >> SHARD_BITS) as usize)
    }
}

/// Keeps a task on the thread until this is dropped.
pub(crate) struct Entered {
    /// The task that was on the thread before.
    before: Option<TaskId>,
}

/// Puts the task on the thread, around a poll or a drop.
#[inline]
pub(crate) fn enter(entry: Option<&Entry>) -> Entered {
    let before = current();
    if let Some(entry) = entry {
        CURRENT.with(|current| current.set(entry.task));
    }
    Entered { before }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.before));
    }
}

/// The place of a group in the table, which is given back when this is dropped.
pub(crate) struct Registered(OnceLock<(GroupId, usize)>);

impl Registered {
    pub(crate) const fn new() -> Registered {
        Registered(OnceLock::new())
    }

    /// Enters a group that `caller` makes.
    pub(crate) fn enter(
        &self,
        caller: &Entry,
        kind: GroupKind,
        site: &'static Location<'static>,
        group: Weak<dyn Inspected>,
    ) {
        self.0.get_or_init(|| {
            let entry = GroupEntry {
                id: caller.key,
                parent: caller.task,
                kind,
                site,
                group,
            };
            (caller.key, insert(|shard| &shard.groups, entry))
        });
    }

    /// Returns the id of the group.
    pub(crate) fn id(&self) -> GroupId {
        self.0.get().map_or(0, |(id, _)| *id)
    }

    pub(crate) fn set_kind(&self, kind: GroupKind) {
        if let Some((_, key)) = self.0.get() {
            let mut groups = lock(&TABLES[key % SHARDS].groups);
            if let Some(entry) = groups.get_mut(key >> SHARD_BITS) {
                entry.kind = kind;
            }
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some((_, key)) = self.0.get() {
            remove(|shard| &shard.groups, *key);
        }
    }
}

/// A note that the current task waits, which ends when this is dropped.
pub(crate) struct Waits(usize);

impl Waits {
    /// Notes that the current task waits. Returns `None` outside a task.
    pub(crate) fn begin(label: Cow<'static, str>) -> Option<Waits> {
        let task = current()?;
        let since = Instant::now();
        let entry = WaitEntry { task, label, since };
        Some(Waits(insert(|shard| &shard.waits, entry)))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        remove(|shard| &shard.waits, self.0);
    }
}

/// Returns all entries of a table.
fn read<T: Clone>(table: impl Fn(&Shard) -> &Mutex<Slab<T>>) -> Vec<T> {
    let mut all = Vec::new();
    for shard in &TABLES {
        all.extend(lock(table(shard)).iter().map(|(_, entry)| entry.clone()));
    }
    all
}

/// The tasks that are alive.
pub(crate) struct LiveTasks {
    pub(crate) entries: Vec<TaskEntry>,
    /// How many tasks each shard had entered.
    counts: [u64; SHARDS],
}

impl LiveTasks {
    pub(crate) fn read() -> LiveTasks {
        let mut read = LiveTasks {
            entries: Vec::new(),
            counts: [0; SHARDS],
        };
        for (shard, count) in TABLES.iter().zip(&mut read.counts) {
            let tasks = lock(&shard.tasks);
            *count = tasks.count;
            let entries = tasks.entries.iter();
            read.entries.extend(entries.map(|(_, entry)| entry.clone()));
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
    read(|shard| &shard.groups)
}

/// Returns what tasks wait for.
pub(crate) fn waits() -> Vec<WaitEntry> {
    read(|shard| &shard.waits)
}
