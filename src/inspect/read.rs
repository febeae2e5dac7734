//! Makes a snapshot of what the registry has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::snapshot::{
    EndSnapshot, GroupKind, GroupSnapshot, Snapshot, TaskId, TaskKind, TaskSnapshot, TaskState,
    WaitSnapshot,
};
use crate::registry::{
    self, End, GroupEntry, GroupId, HandlerContexts, LiveTasks, Look, StopEntry, TaskEntry,
    WaitEntry,
};

/// How many groups are below each other in a tree. A reader of JSON allows 128 objects and arrays
/// inside each other, of which a group and its task take four.
const MOST_BELOW: usize = 30;

/// Returns the id of the task in which the caller runs: of a group's task, of an item of a fan-out,
/// or of a closure that the crate runs. `None` elsewhere, and inside `tokio::spawn`.
///
/// tokio's own [`task::id`](tokio::task::id) names the worker, which may run several tasks.
pub fn task_id() -> Option<TaskId> {
    registry::current().map(TaskId)
}

/// Returns all live groups, scopes, fan-outs and their tasks.
///
/// At most 30 groups are below each other. Those that are deeper are beside the others, each with
/// the task in which it was made.
///
/// A task that has started before the call and ends after it is in the snapshot; one that has ended
/// before is not. Tasks that start or end meanwhile may be. The groups are looked at one after
/// another, so the numbers of two groups may be of different moments.
///
/// It may be called from any thread, inside and outside a runtime. It waits for no task and polls
/// none. Its time grows with the number of live tasks: about a microsecond for each.
pub fn snapshot() -> Snapshot {
    let now = Instant::now();
    // The tasks first: the group of each of them is found after that (invariant 2 of the registry),
    // unless its last task ends meanwhile.
    let tasks = LiveTasks::read();
    let groups = registry::groups();
    let waits = registry::waits();
    Tree::new(now, tasks, groups, waits).build()
}

/// The parts of a snapshot, by what they are below of.
struct Tree {
    now: Instant,
    tasks: HashMap<GroupId, Vec<TaskEntry>>,
    /// The groups that were made in a task.
    groups: HashMap<registry::TaskId, Vec<GroupEntry>>,
    roots: Vec<GroupEntry>,
    waits: HashMap<registry::TaskId, Vec<WaitEntry>>,
    /// How the handles of some tasks have stopped them.
    stops: BTreeMap<registry::TaskId, StopEntry>,
    contexts: HandlerContexts,
    /// The groups that are too far below, each with the task in which it was made.
    deeper: Vec<(registry::TaskId, Vec<GroupEntry>)>,
}

impl Tree {
    fn new(
        now: Instant,
        mut tasks: LiveTasks,
        groups: Vec<GroupEntry>,
        waits: Vec<WaitEntry>,
    ) -> Tree {
        let alive: HashSet<_> = tasks.entries.iter().map(|task| task.id).collect();
        let mut tree = Tree {
            now,
            tasks: HashMap::new(),
            groups: HashMap::new(),
            roots: Vec::new(),
            waits: HashMap::new(),
            stops: std::mem::take(&mut tasks.stops),
            contexts: std::mem::take(&mut tasks.contexts),
            deeper: Vec::new(),
        };
        for group in groups {
            match group.parent {
                Some(parent) if alive.contains(&parent) => {
                    tree.groups.entry(parent).or_default().push(group);
                }
                // It is younger than the snapshot.
                Some(parent) if tasks.is_newer(parent) => {}
                _ => tree.roots.push(group),
            }
        }
        for task in tasks.entries {
            tree.tasks.entry(task.group).or_default().push(task);
        }
        for wait in waits {
            tree.waits.entry(wait.task).or_default().push(wait);
        }
        tree
    }

    fn build(mut self) -> Snapshot {
        let roots = std::mem::take(&mut self.roots);
        let mut groups = self.groups(roots, 0);
        // The stack of a thread is too small to build, write or drop a deep tree.
        while let Some((task, entries)) = self.deeper.pop() {
            let first = groups.len();
            groups.extend(self.groups(entries, 0));
            for group in &mut groups[first..] {
                group.made_in = Some(TaskId(task));
            }
        }
        Snapshot { groups }
    }

    /// `above` is the number of groups above these.
    fn groups(&mut self, entries: Vec<GroupEntry>, above: usize) -> Vec<GroupSnapshot> {
        let groups = entries.into_iter();
        let groups = groups.filter_map(|entry| self.group(entry, above));
        let mut groups: Vec<_> = groups.collect();
        groups.sort_by_key(|group| group.id);
        groups
    }

    /// Returns `None` for a group that is over. Its workers or its spawners may exist longer.
    fn group(&mut self, entry: GroupEntry, above: usize) -> Option<GroupSnapshot> {
        let look = match entry.group.upgrade() {
            Some(group) => group.look(),
            // It was dropped meanwhile.
            None => Look::gone(),
        };
        let mut tasks = self.tasks.remove(&entry.id).unwrap_or_default();
        tasks.sort_by_key(|task| (task.number, task.id));
        if look.is_over && tasks.is_empty() {
            return None;
        }
        let lent: BTreeMap<_, _> = look.lent.iter().copied().collect();
        let tasks: Vec<_> = tasks
            .into_iter()
            .map(|task| self.task(task, &look, &lent, above))
            .collect();
        let started = || {
            let started = tasks.iter().filter(|task| task.state.has_started());
            started.count()
        };
        let kind = entry.kind.into();
        // A handler inside its connection is no task of the group.
        let running = look.running.filter(|_| kind != GroupKind::Handlers);
        Some(GroupSnapshot {
            id: entry.id,
            kind,
            name: look.name,
            site: entry.site.to_string(),
            made_in: None,
            limit: look.limit,
            running: running.unwrap_or_else(started),
            queued: look.queued,
            // The connections wait for the handlers.
            is_waited_for: look.is_waited_for || kind == GroupKind::Handlers,
            grace: look.grace,
            deadline_left: look
                .deadline
                .map(|deadline| deadline.saturating_duration_since(self.now)),
            ended: look.end.map(|end| self.ended(end)),
            tasks,
        })
    }

    fn ended(&self, end: End) -> EndSnapshot {
        EndSnapshot {
            cause: end.cause.into(),
            ago: end.at.map(|at| self.now.saturating_duration_since(at)),
        }
    }

    fn task(
        &mut self,
        entry: TaskEntry,
        look: &Look,
        lent: &BTreeMap<registry::TaskId, Instant>,
        above: usize,
    ) -> TaskSnapshot {
        let now = self.now;
        let since = |at: Instant| now.saturating_duration_since(at);
        let age = entry.since.map_or(Duration::ZERO, since);
        let waits = self.waits.get(&entry.id).into_iter().flatten();
        let waits_for = waits
            .map(|wait| WaitSnapshot {
                label: wait.label.to_string(),
                since: since(wait.since),
            })
            .collect();
        let stopped = self.stops.remove(&entry.id).map(|stop| EndSnapshot {
            cause: stop.cause.into(),
            ago: Some(since(stop.at)),
        });
        let end_of_handler = self.contexts.end_of(entry.id).map(|end| self.ended(end));
        let state = if !entry.has_started {
            TaskState::Queued
        } else if look.end.is_some() && entry.kind != registry::TaskKind::Cleanup {
            match look.grace {
                Some(grace) if grace < Duration::MAX => TaskState::InGrace,
                _ => TaskState::Cancelled,
            }
        } else if end_of_handler.is_some() {
            TaskState::InGrace
        } else if stopped.is_some() {
            TaskState::Cancelled
        } else if lent.contains_key(&entry.id) {
            TaskState::Lent
        } else if entry.kind == registry::TaskKind::Blocking {
            TaskState::Blocking
        } else {
            TaskState::Running
        };
        let below = self.groups.remove(&entry.id).unwrap_or_default();
        let groups = if below.is_empty() || above + 1 < MOST_BELOW {
            self.groups(below, above + 1)
        } else {
            self.deeper.push((entry.id, below));
            Vec::new()
        };
        TaskSnapshot {
            id: TaskId(entry.id),
            kind: entry.kind.into(),
            name: entry.full_name(look.name.as_deref()),
            site: entry.site.to_string(),
            state,
            age,
            lent_for: lent.get(&entry.id).map(|at| since(*at)),
            waits_for,
            stopped: end_of_handler.or(stopped),
            groups,
        }
    }
}

impl Look {
    fn gone() -> Look {
        Look {
            name: None,
            limit: None,
            running: None,
            queued: 0,
            is_waited_for: true,
            is_over: true,
            grace: None,
            deadline: None,
            end: None,
            lent: Vec::new(),
        }
    }
}

impl From<registry::GroupKind> for GroupKind {
    fn from(kind: registry::GroupKind) -> GroupKind {
        match kind {
            registry::GroupKind::Group => GroupKind::Group,
            registry::GroupKind::Scope => GroupKind::Scope,
            registry::GroupKind::FanOut => GroupKind::FanOut,
            #[cfg(feature = "tower")]
            registry::GroupKind::Handlers => GroupKind::Handlers,
        }
    }
}

impl From<registry::TaskKind> for TaskKind {
    fn from(kind: registry::TaskKind) -> TaskKind {
        match kind {
            registry::TaskKind::Task => TaskKind::Task,
            registry::TaskKind::Background => TaskKind::Background,
            registry::TaskKind::Cleanup => TaskKind::Cleanup,
            registry::TaskKind::Blocking => TaskKind::Blocking,
            registry::TaskKind::Local => TaskKind::Local,
            registry::TaskKind::Tracked => TaskKind::Tracked,
            registry::TaskKind::Item => TaskKind::Item,
            #[cfg(feature = "tower")]
            registry::TaskKind::Handler => TaskKind::Handler,
            #[cfg(feature = "tower")]
            registry::TaskKind::Lingering => TaskKind::Lingering,
        }
    }
}
