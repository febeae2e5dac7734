//! What looks wrong in a snapshot, although nothing has failed.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::snapshot::{GroupKind, GroupSnapshot, Snapshot, TaskState};

/// How long is too long.
const LONG: Duration = Duration::from_secs(60);

/// Something that looks wrong: see [`Snapshot::suspects`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Suspect<'a> {
    /// What is wrong with the group.
    pub kind: SuspectKind,
    /// The group.
    pub group: &'a GroupSnapshot,
}

/// Why a group looks wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SuspectKind {
    /// It has tasks, and no call waits for them. A group that a struct keeps until its
    /// [`close_and_wait`](crate::Group::close_and_wait) is found here, too.
    NotWaitedFor,
    /// Its context has been done for over a minute, and tasks still run.
    LongCancelled,
    /// Tasks are queued behind a limit of 0.
    LimitOfZero,
    /// A task has lent its permit for over a minute.
    LongLent,
}

impl Snapshot {
    /// Returns the groups that look wrong, those above before those below. A group may be found for
    /// several reasons.
    pub fn suspects(&self) -> Vec<Suspect<'_>> {
        let mut found = Vec::new();
        self.visit(&mut |group| {
            let kinds = [
                (is_forgotten(group), SuspectKind::NotWaitedFor),
                (is_long_cancelled(group), SuspectKind::LongCancelled),
                (
                    group.limit == Some(0) && group.queued > 0,
                    SuspectKind::LimitOfZero,
                ),
                (has_long_lent(group), SuspectKind::LongLent),
            ];
            let kinds = kinds.into_iter().filter(|(is_so, _)| *is_so);
            found.extend(kinds.map(|(_, kind)| Suspect { kind, group }));
        });
        found
    }
}

fn is_forgotten(group: &GroupSnapshot) -> bool {
    group.kind == GroupKind::Group && !group.is_waited_for && !group.tasks.is_empty()
}

fn is_long_cancelled(group: &GroupSnapshot) -> bool {
    let ended = group.ended.as_ref().and_then(|ended| ended.ago);
    let runs = group.tasks.iter().any(|task| task.state.is_late());
    runs && ended.is_some_and(|ago| ago > LONG)
}

fn has_long_lent(group: &GroupSnapshot) -> bool {
    let is_lent = |state| state == TaskState::Lent;
    let mut tasks = group.tasks.iter();
    tasks.any(|task| is_lent(task.state) && task.lent_for.is_some_and(|lent| lent > LONG))
}

impl Display for Suspect<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            SuspectKind::NotWaitedFor => "nothing waits for it",
            SuspectKind::LongCancelled => "cancelled for over a minute, and tasks still run",
            SuspectKind::LimitOfZero => "tasks are queued behind a limit of 0",
            SuspectKind::LongLent => "a task has waited for its own group for over a minute",
        })?;
        write!(f, ": {}", self.group)
    }
}
