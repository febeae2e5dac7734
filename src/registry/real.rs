//! The tables of the registry.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZeroU64;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::time::Instant;

use super::entries::{
    End, FailureKind, GroupEntry, GroupId, GroupKind, Inspected, StopEntry, TaskEntry, TaskId,
    TaskRef, WaitEntry,
};
use super::recording::{self, GroupInfo, What};
use super::table::Table;
use super::{First, TaskKind};
use crate::sync::thread_static;
use crate::tracing;

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
    /// The id of a group says in which shard it is, so that a task can find its group.
    groups: Mutex<BTreeMap<GroupId, GroupEntry>>,
    waits: Mutex<Table<WaitEntry>>,
}

struct Tasks {
    entries: Table<TaskEntry>,
    /// How many tasks there have been.
    count: u64,
    /// The few that their handles have stopped.
    stops: BTreeMap<TaskId, StopEntry>,
}

impl Shard {
    const fn new() -> Shard {
        Shard {
            tasks: Mutex::new(Tasks {
                entries: Table::new(),
                count: 0,
                stops: BTreeMap::new(),
            }),
            groups: Mutex::new(BTreeMap::new()),
            waits: Mutex::new(Table::new()),
        }
    }
}

// So that the memory of a task stays within its budget: with its `TaskEntry`, 64 bytes.
const _: () = assert!(size_of::<Entry>() <= 8);

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_static! {
    static CURRENT: Cell<OnThread> = Cell::new(OnThread::NOTHING);
}
std::thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// What is on a thread, in eight bytes: the place of a task's entry with [`OWNS_PLACE`], the id of
/// a task, or zero. The id of a task is looked up when it is asked for, which is rare.
#[derive(Clone, Copy)]
struct OnThread(u64);

impl OnThread {
    const NOTHING: OnThread = OnThread(0);

    fn task(self) -> Option<TaskId> {
        if self.0 & OWNS_PLACE == 0 {
            return NonZeroU64::new(self.0);
        }
        let (shard, index) = place(self.0);
        let mut tasks = lock(&TABLES[shard].tasks);
        tasks.entries.get_mut(index).map(|entry| entry.id)
    }
}

/// Returns the task that runs on this thread.
pub(crate) fn current() -> Option<TaskId> {
    CURRENT.with(Cell::get).task()
}

/// Returns the shard and the index to which a key with [`OWNS_PLACE`] refers.
#[inline]
fn place(key: u64) -> (usize, usize) {
    let key = key & !OWNS_PLACE;
    let shard = key % SHARDS as u64;
    (shard as usize, (key >> SHARD_BITS) as usize)
}

/// Returns the number of this thread's shard.
#[inline]
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

/// The code that makes a group: the task in which it runs, and the id of the group.
#[derive(Clone)]
pub(crate) struct Caller {
    task: Option<TaskId>,
    group: GroupId,
}

impl Caller {
    /// Returns the caller, and an id for the group that it makes.
    pub(crate) fn current() -> Caller {
        Caller {
            task: current(),
            // `Relaxed`: each id is given once, and nothing else follows from it.
            group: NEXT_GROUP.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Enters a task of the group that has not started.
    pub(crate) fn task(
        &self,
        name: Option<&Cow<'static, str>>,
        site: &'static Location<'static>,
        kind: TaskKind,
        first: First,
    ) -> Entry {
        let since = match first {
            First::Waits => Some(Instant::now()),
            First::Starts => None,
        };
        let name = name.map(boxed);
        enter_task(TaskEntry {
            // Given below.
            id: NonZeroU64::MIN,
            group: self.group,
            site,
            name,
            since,
            number: 0,
            kind,
            has_started: false,
            is_stopped: false,
            failed: None,
        })
    }

    /// Enters an item of the fan-out, which starts now.
    pub(crate) fn item(&self, number: usize, site: &'static Location<'static>) -> Entry {
        enter_task(TaskEntry {
            // Given below.
            id: NonZeroU64::MIN,
            group: self.group,
            site,
            name: None,
            since: Some(Instant::now()),
            number: u32::try_from(number).unwrap_or(u32::MAX),
            kind: TaskKind::Item,
            has_started: true,
            is_stopped: false,
            failed: None,
        })
    }
}

/// Returns a name for an entry. Most tasks have none, so this is not compiled into their way.
#[inline(never)]
#[expect(clippy::ptr_arg, reason = "a name that is static stays so")]
fn boxed(name: &Cow<'static, str>) -> Box<Cow<'static, str>> {
    Box::new(name.clone())
}

/// Enters a task, and gives it its id.
#[inline(always)]
fn enter_task(mut entry: TaskEntry) -> Entry {
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
pub(crate) struct Entry(u64);

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

    /// Notes that the task has failed and is about to end, and whether its context was done. It is
    /// written for a recorder only. Runs user code, so it must be called without a lock.
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
        let text = recording::text(text);
        let (shard, index) = self.place();
        let mut tasks = lock(&TABLES[shard].tasks);
        let Some(entry) = tasks.entries.get_mut(index) else {
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
                (entry.name.take(), entry.is_stopped.then_some(entry.id))
            });
            let stop = removed.as_ref().and_then(|(_, stopped)| *stopped);
            let stop = stop.and_then(|id| tasks.stops.remove(&id));
            drop(tasks);
            drop((removed, stop));
        }
    }

    #[cold]
    fn close_and_record(&mut self) {
        let (shard, index) = self.place();
        self.0 = 0;
        let mut tasks = lock(&TABLES[shard].tasks);
        let removed = tasks.entries.remove_with(index, TaskEntry::take);
        let stopped = removed.as_ref().filter(|entry| entry.is_stopped);
        let stop = stopped.and_then(|entry| tasks.stops.remove(&entry.id));
        drop(tasks);
        drop(stop);
        if let Some(entry) = removed {
            recording::push(entry.group, What::Ended(entry), group_info);
        }
    }

    #[inline]
    fn place(&self) -> (usize, usize) {
        place(self.0)
    }
}

impl TaskRef {
    /// Notes that the handle of the task has stopped it, unless the task has ended or was stopped
    /// before. Runs user code, so it must be called without a lock.
    #[cold]
    pub(crate) fn stopped(self, cause: &dyn Display) {
        let cause = recording::text(cause);
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

/// Keeps a task on the thread until this is dropped.
pub(crate) struct Entered {
    /// The task that was on the thread before.
    before: OnThread,
}

/// Puts the task on the thread, around a poll or a drop.
#[inline]
pub(crate) fn enter(entry: Option<&Entry>) -> Entered {
    let before = CURRENT.with(Cell::get);
    if let Some(entry) = entry {
        CURRENT.with(|current| current.set(OnThread(entry.0)));
    }
    Entered { before }
}

/// Puts the task of a caller on the thread, around a call of its function.
pub(crate) fn enter_caller(caller: &Caller) -> Entered {
    let task = OnThread(caller.task.map_or(0, NonZeroU64::get));
    let before = CURRENT.with(|current| current.replace(task));
    Entered { before }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.before));
    }
}

/// Returns what is known of a group. It takes the lock of the group's name, and no other lock of
/// the group.
fn group_info(id: GroupId) -> GroupInfo {
    let entry = lock(&group_shard(id).groups).get(&id).cloned();
    let group = entry.as_ref().and_then(|entry| entry.group.upgrade());
    GroupInfo {
        id,
        made: entry.as_ref().map(|entry| (entry.kind, entry.site)),
        name: group.and_then(|group| group.name()),
        parent: entry.and_then(|entry| entry.parent),
    }
}

fn group_shard(id: GroupId) -> &'static Shard {
    &TABLES[(id % SHARDS as u64) as usize]
}

/// The entry of a group in the table, which is removed when this is dropped.
pub(crate) struct Registered {
    id: OnceLock<GroupId>,
    /// Whether its tasks have been waited for. An end of its context after that is no cancellation.
    was_waited_for: AtomicBool,
}

impl Registered {
    pub(crate) const fn new() -> Registered {
        Registered {
            id: OnceLock::new(),
            was_waited_for: AtomicBool::new(false),
        }
    }

    /// Enters a group that `caller` makes.
    pub(crate) fn enter(
        &self,
        caller: &Caller,
        kind: GroupKind,
        site: &'static Location<'static>,
        group: Weak<dyn Inspected>,
    ) {
        self.id.get_or_init(|| {
            let id = caller.group;
            let entry = GroupEntry {
                id,
                parent: caller.task,
                kind,
                site,
                group,
            };
            let before = lock(&group_shard(id).groups).insert(id, entry);
            debug_assert!(before.is_none(), "a caller makes one group");
            id
        });
    }

    /// Returns the id of the group.
    pub(crate) fn id(&self) -> GroupId {
        self.id.get().copied().unwrap_or(0)
    }

    pub(crate) fn set_kind(&self, kind: GroupKind) {
        let id = self.id();
        if let Some(entry) = lock(&group_shard(id).groups).get_mut(&id) {
            entry.kind = kind;
        }
    }

    /// Notes how the context of the group has ended, if it has, for a recorder. Must be called
    /// without a lock.
    pub(crate) fn ended(&self, end: impl FnOnce() -> Option<End>) {
        // `Relaxed`: it concerns ends that the same caller makes later.
        if self.was_waited_for.load(Ordering::Relaxed) {
            return;
        }
        if let Some(end) = end() {
            let cause = recording::text(&end.cause);
            recording::push_at(end.at, self.id(), What::Cancelled { cause }, group_info);
        }
    }

    /// Notes that the group's tasks have been waited for. How its context ends later is not noted.
    pub(crate) fn waited_for(&self) {
        self.was_waited_for.store(true, Ordering::Relaxed);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(id) = self.id.get() {
            let removed = lock(&group_shard(*id).groups).remove(id);
            drop(removed);
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

/// The tasks that are alive.
pub(crate) struct LiveTasks {
    pub(crate) entries: Vec<TaskEntry>,
    /// How the handles of some of them have stopped them.
    pub(crate) stops: BTreeMap<TaskId, StopEntry>,
    /// How many tasks each shard had entered.
    counts: [u64; SHARDS],
}

impl LiveTasks {
    pub(crate) fn read() -> LiveTasks {
        let mut read = LiveTasks {
            entries: Vec::new(),
            stops: BTreeMap::new(),
            counts: [0; SHARDS],
        };
        for (shard, count) in TABLES.iter().zip(&mut read.counts) {
            let tasks = lock(&shard.tasks);
            *count = tasks.count;
            read.entries.extend(tasks.entries.iter().cloned());
            let stops = tasks.stops.iter().map(|(id, stop)| (*id, stop.clone()));
            read.stops.extend(stops);
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
