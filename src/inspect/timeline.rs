//! What a recorder shows: the recorded events and the tasks that still run, by group.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::snapshot::{GroupKind, TaskKind};
use crate::registry::recording::{Event, GroupInfo, Recording, What};
use crate::registry::{self, FailureKind, GroupEntry, GroupId, LiveTasks, TaskEntry, TaskId};

/// The rows of a recording. Each time is a number of nanoseconds since the first one, and of
/// microseconds where it is serialized.
#[derive(Serialize)]
pub(super) struct Timeline {
    /// When this was made.
    #[serde(serialize_with = "as_micros")]
    pub(super) until: u64,
    /// Oldest first.
    pub(super) groups: Vec<GroupRows>,
}

#[derive(Serialize)]
pub(super) struct GroupRows {
    pub(super) id: GroupId,
    /// `None` if the group was gone before its first event.
    pub(super) kind: Option<GroupKind>,
    pub(super) name: Option<String>,
    pub(super) site: Option<String>,
    /// The task in which it was made.
    pub(super) made_in: Option<TaskId>,
    /// How its context has ended before its tasks were waited for.
    pub(super) cancelled: Option<Mark>,
    /// In the order of their starts.
    pub(super) tasks: Vec<Bar>,
}

/// A task.
#[derive(Serialize)]
pub(super) struct Bar {
    pub(super) id: TaskId,
    pub(super) name: Option<String>,
    pub(super) kind: TaskKind,
    pub(super) site: String,
    /// When it started, or when it was queued if it has not started.
    #[serde(serialize_with = "as_micros")]
    pub(super) start: u64,
    /// When it ended, or when this was made.
    #[serde(serialize_with = "as_micros")]
    pub(super) end: u64,
    pub(super) has_started: bool,
    pub(super) outcome: Outcome,
    /// What its failure said.
    pub(super) failure: Option<Mark>,
}

#[derive(Serialize)]
pub(super) struct Mark {
    #[serde(serialize_with = "as_micros")]
    pub(super) at: u64,
    pub(super) text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Queued,
    Running,
    /// Without a failure.
    Ended,
    Failed,
    /// It returned an error when its context was done.
    Stopped,
    Panicked,
    Aborted,
}

/// Returns a time as the trace event format has it.
pub(super) fn micros(nanos: u64) -> f64 {
    // Exact below 104 days.
    nanos as f64 / 1_000.0
}

fn as_micros<S: Serializer>(nanos: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(micros(*nanos))
}

impl Outcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Outcome::Queued => "queued",
            Outcome::Running => "running",
            Outcome::Ended => "ended",
            Outcome::Failed => "failed",
            Outcome::Stopped => "stopped",
            Outcome::Panicked => "panicked",
            Outcome::Aborted => "aborted",
        }
    }
}

impl From<FailureKind> for Outcome {
    fn from(kind: FailureKind) -> Outcome {
        match kind {
            FailureKind::Failed => Outcome::Failed,
            FailureKind::Stopped => Outcome::Stopped,
            FailureKind::Panicked => Outcome::Panicked,
            FailureKind::Aborted => Outcome::Aborted,
        }
    }
}

impl Timeline {
    pub(super) fn read(recording: &Recording) -> Timeline {
        // The live tasks first: one that ends meanwhile is found twice, and never not at all.
        let live = LiveTasks::read().entries;
        let groups = registry::groups();
        let events = recording.events();
        // Last, so that it is after every time in what was read.
        let now = Instant::now();
        let mut read = Read::default();
        read.add_events(events);
        read.add_live(live, groups);
        read.into_timeline(now)
    }
}

/// What has been read, with times as instants.
#[derive(Default)]
struct Read {
    groups: BTreeMap<GroupId, ReadGroup>,
    ended: HashSet<TaskId>,
    failures: HashMap<TaskId, (Instant, Box<str>)>,
}

#[derive(Default)]
struct ReadGroup {
    made: Option<(GroupKind, String)>,
    name: Option<String>,
    made_in: Option<TaskId>,
    cancelled: Option<(Instant, String)>,
    /// Each task, and when it ended.
    tasks: Vec<(TaskEntry, Option<Instant>)>,
}

impl Read {
    fn add_events(&mut self, events: Vec<Event>) {
        for Event { at, group, what } in events {
            let rows = self.groups.entry(group.id).or_default();
            rows.learn(&group);
            match what {
                What::Ended(task) => {
                    self.ended.insert(task.id);
                    rows.tasks.push((task, Some(at)));
                }
                What::Failed { task, text } => {
                    self.failures.insert(task, (at, text));
                }
                What::Cancelled { cause } => {
                    // The same end may have been noted more than once, by several threads.
                    if rows.cancelled.as_ref().is_none_or(|(first, _)| at < *first) {
                        rows.cancelled = Some((at, cause.into()));
                    }
                }
            }
        }
    }

    fn add_live(&mut self, tasks: Vec<TaskEntry>, groups: Vec<GroupEntry>) {
        for task in tasks {
            if !self.ended.contains(&task.id) {
                let rows = self.groups.entry(task.group).or_default();
                rows.tasks.push((task, None));
            }
        }
        for entry in groups {
            let Some(rows) = self.groups.get_mut(&entry.id) else {
                continue;
            };
            rows.made = Some((entry.kind.into(), entry.site.to_string()));
            rows.made_in = entry.parent;
            let Some(group) = entry.group.upgrade() else {
                continue;
            };
            let look = group.look();
            rows.name = look.name.or(rows.name.take());
            if let (false, None, Some(end)) = (look.is_over, &rows.cancelled, look.end) {
                rows.cancelled = end.at.map(|at| (at, end.cause.into()));
            }
        }
    }

    fn into_timeline(mut self, now: Instant) -> Timeline {
        let times = self.groups.values().flat_map(ReadGroup::times);
        // A paused clock may be behind another one, so the present is not always the last time.
        let (from, until) = times.fold((now, now), |(from, until), at| {
            (from.min(at), until.max(at))
        });
        let clock = Clock { from, until };
        let mut groups = Vec::with_capacity(self.groups.len());
        for (id, group) in std::mem::take(&mut self.groups) {
            groups.push(self.rows(id, group, &clock));
        }
        Timeline {
            until: clock.nanos(until),
            groups,
        }
    }

    fn rows(&mut self, id: GroupId, group: ReadGroup, clock: &Clock) -> GroupRows {
        let mut tasks = group.tasks;
        tasks.sort_by_key(|(task, end)| (task.since.or(*end), task.number, task.id));
        let name = group.name.as_deref();
        let tasks = tasks
            .iter()
            .map(|(task, end)| bar(task, *end, name, self.failures.remove(&task.id), clock))
            .collect();
        let (kind, site) = group.made.unzip();
        GroupRows {
            id,
            kind,
            site,
            made_in: group.made_in,
            cancelled: group.cancelled.map(|(at, text)| clock.mark(at, text)),
            tasks,
            name: group.name,
        }
    }
}

impl ReadGroup {
    /// Takes over what an event knows of the group.
    fn learn(&mut self, group: &GroupInfo) {
        if let Some((kind, site)) = group.made {
            self.made = Some((kind.into(), site.to_string()));
            self.made_in = group.parent;
        }
        if group.name.is_some() {
            self.name.clone_from(&group.name);
        }
    }

    fn times(&self) -> impl Iterator<Item = Instant> + '_ {
        let tasks = self.tasks.iter();
        let tasks = tasks.flat_map(|(task, end)| task.since.into_iter().chain(*end));
        tasks.chain(self.cancelled.as_ref().map(|(at, _)| *at))
    }
}

fn bar(
    task: &TaskEntry,
    end: Option<Instant>,
    group: Option<&str>,
    failure: Option<(Instant, Box<str>)>,
    clock: &Clock,
) -> Bar {
    let outcome = match (task.failed, end) {
        (Some(how), Some(_)) => how.into(),
        (None, Some(_)) => Outcome::Ended,
        (_, None) if task.has_started => Outcome::Running,
        (_, None) => Outcome::Queued,
    };
    let last = end.unwrap_or(clock.until);
    // It is about to start, or never had to wait.
    let start = task.since.unwrap_or(last);
    Bar {
        id: task.id,
        kind: task.kind.into(),
        site: task.site.to_string(),
        start: clock.nanos(start),
        end: clock.nanos(last.max(start)),
        has_started: task.has_started,
        outcome,
        failure: failure.map(|(at, text)| clock.mark(at, text.into())),
        name: task.full_name(group),
    }
}

/// The times between which everything is.
struct Clock {
    from: Instant,
    until: Instant,
}

impl Clock {
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.from);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn mark(&self, at: Instant, text: String) -> Mark {
        Mark {
            at: self.nanos(at),
            text,
        }
    }
}
