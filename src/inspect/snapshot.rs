//! The data of a snapshot.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// The id of a task, which no other task of the process has or will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TaskId(pub(super) NonZeroU64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All live groups and tasks of the process at one moment: see [`snapshot`](super::snapshot).
///
/// Its `Display` is a tree for a terminal. Serialized, each struct here is an object with the names
/// of its fields. A duration is a number of milliseconds, and its name ends in `_ms`: `age_ms`,
/// `ago_ms`, `deadline_left_ms`, `grace_ms`, `lent_for_ms`, `for_ms`. An enum is its name in
/// `snake_case`. These names do not change within a major version; new ones may be added.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// The groups that were made outside of any task that is still alive, oldest first. Then those
    /// that are too deep to be below their task: see [`made_in`](GroupSnapshot::made_in).
    pub groups: Vec<GroupSnapshot>,
}

/// A group, a scope or a fan-out.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct GroupSnapshot {
    /// The id of the group, which no other group of the process has or will have.
    pub id: u64,
    /// What made it.
    pub kind: GroupKind,
    /// The name that it was given.
    pub name: Option<String>,
    /// Where it was made: file, line and column.
    pub site: String,
    /// The task in which it was made, if it is not below that because it is too deep.
    pub made_in: Option<TaskId>,
    /// The limit of tasks at once; `None` if there is none.
    pub limit: Option<usize>,
    /// How many permits are in use. Tasks without a permit (background, clean-up) are not counted.
    pub running: usize,
    /// How many tasks wait for a permit.
    pub queued: usize,
    /// Whether a call waits for all its tasks. It is always true for a scope and a fan-out, and for
    /// handlers, whose connections wait for them.
    pub is_waited_for: bool,
    /// How long its tasks may go on when its context is done.
    #[serde(rename = "grace_ms", serialize_with = "as_opt_ms")]
    pub grace: Option<Duration>,
    /// The time until the deadline of its context; zero if that has passed.
    #[serde(rename = "deadline_left_ms", serialize_with = "as_opt_ms")]
    pub deadline_left: Option<Duration>,
    /// How its context has ended; `None` while that is live. Each handler has a context of its own:
    /// see [`stopped`](TaskSnapshot::stopped).
    pub ended: Option<EndSnapshot>,
    /// Its tasks, oldest first; items by their number.
    pub tasks: Vec<TaskSnapshot>,
}

/// How the context of a group or of a handler has ended, or how a task was stopped through its
/// handle.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct EndSnapshot {
    /// The text of the cause with its sources, or of the error if there is no cause; at most 500
    /// bytes.
    pub cause: String,
    /// How long ago that was.
    #[serde(rename = "ago_ms", serialize_with = "as_opt_ms")]
    pub ago: Option<Duration>,
}

/// A task of a group, or an item of a fan-out.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TaskSnapshot {
    /// The id that [`task_id`](super::task_id) returns inside the task.
    pub id: TaskId,
    /// How it was started.
    pub kind: TaskKind,
    /// Its name. An item is named by its number.
    pub name: Option<String>,
    /// Where it was started: file, line and column.
    pub site: String,
    /// What it does now.
    pub state: TaskState,
    /// The time since it started, or since it was queued.
    #[serde(rename = "age_ms", serialize_with = "as_ms")]
    pub age: Duration,
    /// How long it has waited for its own group with its permit lent.
    #[serde(rename = "lent_for_ms", serialize_with = "as_opt_ms")]
    pub lent_for: Option<Duration>,
    /// What it waits for, by its own [`waiting`](super::waiting).
    pub waits_for: Vec<WaitSnapshot>,
    /// How its handle has stopped it while it ran. For a handler, how its own context has ended.
    pub stopped: Option<EndSnapshot>,
    /// The groups that were made inside it.
    pub groups: Vec<GroupSnapshot>,
}

/// What a task waits for.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct WaitSnapshot {
    /// The label that was given to [`waiting`](super::waiting).
    pub label: String,
    /// Since when.
    #[serde(rename = "for_ms", serialize_with = "as_ms")]
    pub since: Duration,
}

/// What made a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupKind {
    /// [`Group::new`](crate::Group::new) or [`Group::with_context`](crate::Group::with_context).
    Group,
    /// [`Group::scope`](crate::Group::scope) or [`Group::scope_all`](crate::Group::scope_all).
    Scope,
    /// [`fetch_all`](crate::fetch_all) or another fan-out.
    FanOut,
    /// The handlers of a `ContextLayer`: those inside their connections, and those that linger.
    Handlers,
}

/// How a task was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskKind {
    /// With [`go`](crate::Group::go), [`spawn`](crate::Group::spawn) and the like.
    Task,
    /// With [`background`](crate::TaskBuilder::background).
    Background,
    /// With [`cleanup`](crate::TaskBuilder::cleanup).
    Cleanup,
    /// A closure on the blocking pool.
    Blocking,
    /// With [`go_local`](crate::Group::go_local).
    Local,
    /// A future of the caller's, counted with [`track`](crate::Group::track).
    Tracked,
    /// An item of a fan-out.
    Item,
    /// A handler of a `ContextLayer` that is inside its connection.
    Handler,
    /// A handler of a `ContextLayer` that runs on although its response is no longer needed.
    Lingering,
}

/// What a task does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskState {
    /// It waits for a permit or for a worker.
    Queued,
    /// It has started and its context is live.
    Running,
    /// It waits for its own group and has lent its permit meanwhile.
    Lent,
    /// It runs on the blocking pool.
    Blocking,
    /// Its context is done or its handle has stopped it, and it still runs. No grace period limits
    /// that.
    Cancelled,
    /// Its context is done, and it is aborted when the grace period is over. All handlers whose
    /// context is done are in this state.
    InGrace,
}

/// A task that still runs although it was asked to stop: see [`Snapshot::stragglers`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Straggler<'a> {
    /// The task.
    pub task: &'a TaskSnapshot,
    /// Its group.
    pub group: &'a GroupSnapshot,
    /// How the context of the group has ended; if it is live, or the task is a clean-up task, how
    /// the task itself was [stopped](TaskSnapshot::stopped).
    pub ended: &'a EndSnapshot,
}

impl TaskState {
    /// Returns whether the task has started.
    pub fn has_started(self) -> bool {
        self != TaskState::Queued
    }

    /// Returns whether the task still runs although it was asked to stop.
    pub(super) fn is_late(self) -> bool {
        matches!(self, TaskState::Cancelled | TaskState::InGrace)
    }
}

impl Snapshot {
    /// Returns the tasks that still run although their context is done or their handle has stopped
    /// them: those that ignore the cancellation, and those that have not come to it yet. Those that
    /// were cancelled first come first.
    pub fn stragglers(&self) -> Vec<Straggler<'_>> {
        let mut found = Vec::new();
        self.visit(&mut |group| {
            let late = group.tasks.iter().filter(|task| task.state.is_late());
            found.extend(late.filter_map(|task| {
                let ended = task.end_of_group(group).or(task.stopped.as_ref())?;
                Some(Straggler { task, group, ended })
            }));
        });
        found.sort_by_key(|straggler| std::cmp::Reverse(straggler.ended.ago));
        found
    }

    /// Calls `look` for each group, those above before those below.
    pub(super) fn visit<'a>(&'a self, look: &mut dyn FnMut(&'a GroupSnapshot)) {
        let mut next: Vec<&GroupSnapshot> = self.groups.iter().rev().collect();
        // No recursion: groups may be nested deeply.
        while let Some(group) = next.pop() {
            look(group);
            let below = group.tasks.iter().flat_map(|task| &task.groups);
            let at = next.len();
            next.extend(below);
            next[at..].reverse();
        }
    }
}

impl TaskSnapshot {
    /// Returns how the context of the task's group has ended, if that concerns the task.
    pub(super) fn end_of_group<'a>(&self, group: &'a GroupSnapshot) -> Option<&'a EndSnapshot> {
        let ended = group.ended.as_ref();
        // The context of a clean-up task is live when that of the group is done.
        ended.filter(|_| self.kind != TaskKind::Cleanup)
    }
}

fn as_ms<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn as_opt_ms<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => as_ms(duration, serializer),
        None => serializer.serialize_none(),
    }
}
