//! The text of a snapshot: a tree that a person reads in a terminal.

use std::fmt::{self, Display, Formatter, Write};
use std::time::Duration;

use super::snapshot::{
    EndSnapshot, GroupKind, GroupSnapshot, Snapshot, Straggler, TaskKind, TaskSnapshot, TaskState,
};

/// How many tasks of a group are written. Of a group with more, the stragglers and those with
/// something below them come first.
const MOST_TASKS: usize = 50;

impl Display for Snapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.groups.is_empty() {
            return f.write_str("no groups\n");
        }
        self.groups
            .iter()
            .try_for_each(|group| write_group(f, group, 0))
    }
}

fn write_group(f: &mut Formatter<'_>, group: &GroupSnapshot, depth: usize) -> fmt::Result {
    write!(f, "{:1$}", "", 2 * depth)?;
    writeln!(f, "{group}")?;
    let mut tasks: Vec<&TaskSnapshot> = group.tasks.iter().collect();
    if tasks.len() > MOST_TASKS {
        let is_plain = |task: &&TaskSnapshot| task.groups.is_empty() && task.waits_for.is_empty();
        tasks.sort_by_key(|task| (task.state == TaskState::Queued, is_plain(task)));
    }
    for task in tasks.iter().take(MOST_TASKS) {
        write!(f, "{:1$}", "", 2 * depth + 2)?;
        write_task(f, task, task.end_of_group(group))?;
        f.write_str("\n")?;
        for below in &task.groups {
            write_group(f, below, depth + 2)?;
        }
    }
    let rest = tasks.len().saturating_sub(MOST_TASKS);
    if rest > 0 {
        let queued = tasks.iter().skip(MOST_TASKS);
        let queued = queued
            .filter(|task| task.state == TaskState::Queued)
            .count();
        let indent = 2 * depth + 2;
        writeln!(
            f,
            "{:indent$}and {rest} more tasks, {queued} of them queued",
            ""
        )?;
    }
    Ok(())
}

pub(super) fn group_kind(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Group => "group",
        GroupKind::Scope => "scope",
        GroupKind::FanOut => "fan-out",
        GroupKind::Handlers => "handlers",
    }
}

/// Writes the line of the group, without its tasks.
impl Display for GroupSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(group_kind(self.kind))?;
        if let Some(name) = &self.name {
            write!(f, " {name:?}")?;
        }
        write!(f, " at {}", self.site)?;
        if let Some(task) = self.made_in {
            write!(f, ", made in task #{task}")?;
        }
        if let Some(ended) = &self.ended {
            write!(f, ", CANCELLED{ended}")?;
        }
        write!(f, ": {} running", self.running)?;
        if let Some(limit) = self.limit {
            write!(f, " of {limit}")?;
        }
        if self.queued > 0 {
            write!(f, ", {} queued", self.queued)?;
        }
        if let (Some(left), None) = (self.deadline_left, &self.ended) {
            write!(f, ", deadline in {}", Short(left))?;
        }
        if self.ended.is_none() && !self.is_waited_for {
            f.write_str(", not waited for")?;
        }
        Ok(())
    }
}

/// Writes ` 3.2 s ago (disk full)`.
impl Display for EndSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(ago) = self.ago {
            write!(f, " {} ago", Short(ago))?;
        }
        write!(f, " ({})", OneLine(&self.cause))
    }
}

fn write_task(
    f: &mut Formatter<'_>,
    task: &TaskSnapshot,
    mut ended: Option<&EndSnapshot>,
) -> fmt::Result {
    f.write_str(match task.kind {
        TaskKind::Task => "task",
        TaskKind::Background => "background task",
        TaskKind::Cleanup => "clean-up task",
        TaskKind::Blocking => "blocking task",
        TaskKind::Local => "local task",
        TaskKind::Tracked => "tracked task",
        TaskKind::Item => "item",
        TaskKind::Handler => "handler",
        TaskKind::Lingering => "lingering handler",
    })?;
    match &task.name {
        // An item is called `item 3`.
        Some(name) if task.kind == TaskKind::Item => {
            let name = name.strip_prefix("item ").unwrap_or(name);
            write!(f, " {}", OneLine(name))?;
        }
        Some(name) => write!(f, " {name:?}")?,
        None => {}
    }
    write!(f, " #{} at {}: ", task.id, task.site)?;
    let age = Short(task.age);
    match task.state {
        TaskState::Queued => write!(f, "queued for {age}")?,
        TaskState::Running => write!(f, "running for {age}")?,
        TaskState::Lent => write!(f, "waits for its own group, started {age} ago")?,
        TaskState::Blocking => write!(f, "on a blocking thread for {age}")?,
        TaskState::Cancelled => write!(f, "STILL RUNNING, started {age} ago")?,
        TaskState::InGrace => write!(f, "STILL RUNNING in its grace period, started {age} ago")?,
    }
    let is_handler = matches!(task.kind, TaskKind::Handler | TaskKind::Lingering);
    if let Some(stopped) = &task.stopped {
        f.write_str(if is_handler {
            ", cancelled"
        } else {
            ", stopped through its handle"
        })?;
        write!(f, "{stopped}")?;
        // It is what a straggler of a live group has instead of the end of its context.
        if ended.is_some_and(|ended| std::ptr::eq(ended, stopped)) {
            ended = None;
        }
    }
    if let (true, Some(ago)) = (task.state.is_late(), ended.and_then(|ended| ended.ago)) {
        write!(f, ", cancelled {} ago", Short(ago))?;
    }
    for (at, wait) in task.waits_for.iter().enumerate() {
        let word = if at == 0 { ", waits for" } else { " and" };
        write!(f, "{word} {:?} for {}", wait.label, Short(wait.since))?;
    }
    Ok(())
}

/// Writes the line of the task, without the groups below it.
impl Display for TaskSnapshot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_task(f, self, None)
    }
}

/// Writes the line of the task, and then the line of its group.
impl Display for Straggler<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_task(f, self.task, Some(self.ended))?;
        write!(f, ", in {}", self.group)
    }
}

/// The characters that end a line or change the direction of a text and are no control characters.
const MOVES: [char; 11] = [
    '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}',
    '\u{2067}', '\u{2068}', '\u{2069}',
];

/// A text without what would end its line or change the terminal. It may come from another program.
struct OneLine<'a>(&'a str);

impl Display for OneLine<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if c.is_control() || MOVES.contains(&c) => write!(f, "{}", c.escape_default()),
            c => f.write_char(c),
        })
    }
}

/// A duration as a person says it: `250 ms`, `3.2 s`, `4 min 5 s`, `2 h 3 min`, `5 d 7 h`.
pub(super) struct Short(pub(super) Duration);

impl Display for Short {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
        match seconds {
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..60 => write!(f, "{}.{} s", seconds, self.0.subsec_millis() / 100),
            60..3_600 => write!(f, "{minutes} min {} s", seconds % 60),
            3_600..86_400 => write!(f, "{hours} h {} min", minutes % 60),
            _ => write!(f, "{days} d {} h", hours % 24),
        }
    }
}
