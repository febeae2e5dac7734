//! The task that runs on this thread, and the code that makes a group in it.

use std::borrow::Cow;
use std::cell::Cell;
use std::num::NonZeroU64;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::entries::{GroupId, TaskEntry, TaskId};
use super::shards::{OWNS_PLACE, TABLES, lock, place};
use super::tasks::{Entry, enter_task};
use super::{First, TaskKind};
use crate::sync::thread_static;
#[cfg(feature = "tower")]
use crate::{panic, tracing};

static NEXT_GROUP: AtomicU64 = AtomicU64::new(1);

thread_static! {
    static CURRENT: Cell<OnThread> = Cell::new(OnThread::NOTHING);
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

#[cfg(feature = "tower")]
impl Entry {
    /// Runs code of the task with the task on the thread, around a poll or a drop. If it panics,
    /// notes that the task has failed, and resumes the panic.
    pub(crate) fn run<T>(&self, code: impl FnOnce() -> T) -> T {
        let entered = enter(Some(self));
        let ran = panic::catch(code);
        drop(entered);
        ran.unwrap_or_else(|payload| {
            self.failed(tracing::Failure::Panic(&panic::text(&payload)), false);
            panic::resume(payload)
        })
    }
}

/// The code that makes a group: the task in which it runs, and the id of the group.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(super) task: Option<TaskId>,
    pub(super) group: GroupId,
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
