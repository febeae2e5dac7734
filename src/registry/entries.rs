//! The entries of the registry: what it has of a live task, a group and a wait.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::panic::Location;
use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

use super::TaskKind;

/// Identifies a task. It is never used again.
pub(crate) type TaskId = NonZeroU64;
/// Identifies a group. It is never used again.
pub(crate) type GroupId = u64;

/// A live task. It is small, because a program may have a million of them.
pub(crate) struct TaskEntry {
    pub(crate) id: TaskId,
    pub(crate) group: GroupId,
    pub(crate) site: &'static Location<'static>,
    /// The name; boxed, because most tasks have none.
    pub(crate) name: Option<Box<Cow<'static, str>>>,
    /// When it began to wait, or to run. `None` if it has not been queued and is about to start.
    pub(crate) since: Option<Instant>,
    /// The number of an item.
    pub(crate) number: u32,
    pub(crate) kind: TaskKind,
    pub(crate) has_started: bool,
    /// Whether its handle has stopped it: then it has a [`StopEntry`], too.
    pub(super) is_stopped: bool,
    /// How it failed. It is written only while a recorder records.
    pub(crate) failed: Option<FailureKind>,
}

/// Where the handle of a task finds its entry.
#[derive(Clone, Copy)]
pub(crate) struct TaskRef {
    pub(super) key: u64,
    /// Another task may have the place later.
    pub(super) id: TaskId,
}

/// How the handle of a task has stopped it.
#[derive(Clone)]
pub(crate) struct StopEntry {
    pub(crate) cause: Box<str>,
    pub(crate) at: Instant,
}

/// How a task failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    Failed,
    /// It returned an error when its context was done.
    Stopped,
    Panicked,
    Aborted,
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

    /// Returns the name that it was given.
    fn name(&self) -> Option<String>;
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

/// How the context of a group or of a handler has ended.
pub(crate) struct End {
    /// The cause, or the reason if there is none. It is a [`text`](super::text).
    pub(crate) cause: Box<str>,
    pub(crate) at: Option<Instant>,
}

impl TaskEntry {
    /// Takes the entry out of its place, which is about to be emptied.
    pub(super) fn take(&mut self) -> TaskEntry {
        TaskEntry {
            name: self.name.take(),
            ..*self
        }
    }

    /// Returns whether something is kept of the task beside this entry: how it was stopped, or the
    /// context of a handler.
    pub(super) fn has_more(&self) -> bool {
        #[cfg(feature = "tower")]
        if matches!(self.kind, TaskKind::Handler | TaskKind::Lingering) {
            return true;
        }
        self.is_stopped
    }

    /// Returns the name. An item is named by its number, and by the name of its fan-out.
    pub(crate) fn full_name(&self, group: Option<&str>) -> Option<String> {
        match (&self.name, self.kind, group) {
            (Some(name), ..) => Some(name.to_string()),
            (None, TaskKind::Item, Some(group)) => Some(format!("{group}[{}]", self.number)),
            (None, TaskKind::Item, None) => Some(format!("item {}", self.number)),
            _ => None,
        }
    }
}

// So that the memory of a task stays within its budget: with `Entry`, 64 bytes.
const _: () = assert!(size_of::<TaskEntry>() <= 56);

impl Clone for TaskEntry {
    fn clone(&self) -> Self {
        TaskEntry {
            name: self.name.clone(),
            ..*self
        }
    }
}
