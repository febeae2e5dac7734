//! Makes a snapshot of what the registry has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::snapshot::{
    EndSnapshot, GroupKind, GroupSnapshot, Snapshot, TaskId, TaskKind, TaskSnapshot, TaskState,
    WaitSnapshot,
};
use crate::registry::{
    self, GroupEntry, GroupId, LiveTasks, Look, StopEntry, TaskEntry, WaitEntry,
};

/// Returns the id of the task in which the caller runs: of a group's task, of an item of a fan-out,
/// or of a closure that the crate runs. `None` elsewhere, and inside `tokio::spawn`.
///
/// tokio's own [`task::id`](tokio::task::id) names the worker, which may run several tasks.
pub fn task_id() -> Option<TaskId> {
    registry::current().map(TaskId)
}

/// Returns all live groups, scopes, fan-outs and their tasks.
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
}

impl Tree {
    fn new(now: Instant, tasks: LiveTasks, groups: Vec<GroupEntry>, waits: Vec<WaitEntry>) -> Tree {
        let alive: HashSet<_> = tasks.entries.iter().map(|task| task.id).collect();
        let mut tree = Tree {
            now,
            tasks: HashMap::new(),
            groups: HashMap::new(),
            roots: Vec::new(),
            waits: HashMap::new(),
            stops: BTreeMap::new(),
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
        tree.stops = tasks.stops;
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
        Snapshot {
            groups: self.groups(roots),
        }
    }

    fn groups(&mut self, entries: Vec<GroupEntry>) -> Vec<GroupSnapshot> {
        let groups = entries.into_iter().filter_map(|entry| self.group(entry));
        let mut groups: Vec<_> = groups.collect();
        groups.sort_by_key(|group| group.id);
        groups
    }

    /// Returns `None` for a group that is over. Its workers or its spawners may exist longer.
    fn group(&mut self, entry: GroupEntry) -> Option<GroupSnapshot> {
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
            .map(|task| self.task(task, &look, &lent))
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
            limit: look.limit,
            running: running.unwrap_or_else(started),
            queued: look.queued,
            is_waited_for: look.is_waited_for,
            grace: look.grace,
            deadline_left: look
                .deadline
                .map(|deadline| deadline.saturating_duration_since(self.now)),
            ended: look.end.map(|end| EndSnapshot {
                cause: end.cause,
                ago: end.at.map(|at| self.now.saturating_duration_since(at)),
            }),
            tasks,
        })
    }

    fn task(
        &mut self,
        entry: TaskEntry,
        look: &Look,
        lent: &BTreeMap<registry::TaskId, Instant>,
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
        let state = if !entry.has_started {
            TaskState::Queued
        } else if look.end.is_some() && entry.kind != registry::TaskKind::Cleanup {
            match look.grace {
                Some(grace) if grace < Duration::MAX => TaskState::InGrace,
                _ => TaskState::Cancelled,
            }
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
        let groups = self.groups(below);
        TaskSnapshot {
            id: TaskId(entry.id),
            kind: entry.kind.into(),
            name: entry.full_name(look.name.as_deref()),
            site: entry.site.to_string(),
            state,
            age,
            lent_for: lent.get(&entry.id).map(|at| since(*at)),
            waits_for,
            stopped,
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
