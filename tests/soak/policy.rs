//! The options of tasks, and the causes of contexts.

use std::fmt;
use std::time::Duration;

use errgroup::{Context, Group, Spawner, TaskBuilder};

use crate::body::Body;
use crate::plan::Pause;
use crate::random::Random;
use crate::record::{Due, Fate, Marks, Record};
use crate::script::{Stage, pause};
use crate::shutdown;
use crate::watch::{check, fail, tally};
use crate::world::{Fault, Id, World};

/// So much time that a task which ends by itself has ended before.
pub(crate) const POLICY_TIME: Duration = Duration::from_secs(100);

/// The options of a `TaskBuilder`, but for the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) background: bool,
    pub(crate) essential: bool,
    pub(crate) non_fatal: bool,
    pub(crate) cleanup: Option<Duration>,
}

impl Random {
    pub(crate) fn policy(&mut self) -> Policy {
        let cleanup = [self.micros(2_000), POLICY_TIME][self.below(2)];
        let kind = self.below(24);
        Policy {
            background: matches!(kind, 0..3),
            essential: matches!(kind, 0 | 3),
            non_fatal: matches!(kind, 1 | 4..7),
            cleanup: matches!(kind, 7 | 8).then_some(cleanup),
        }
    }
}

impl Policy {
    pub(crate) fn takes_permit(self) -> bool {
        !self.background && self.cleanup.is_none()
    }

    pub(crate) fn marks(self) -> Marks {
        Marks {
            background: self.background && self.cleanup.is_none(),
            essential: self.essential,
            non_fatal: self.non_fatal,
            cleanup: self.cleanup.is_some(),
            ..Marks::default()
        }
    }

    pub(crate) fn apply(self, builder: TaskBuilder<Fault>) -> TaskBuilder<Fault> {
        tally().policies.add(1);
        let Policy {
            background,
            essential,
            non_fatal,
            cleanup,
        } = self;
        let mut builder = builder;
        if background {
            builder = builder.background();
        }
        if essential {
            builder = builder.essential();
        }
        if non_fatal {
            builder = builder.non_fatal();
        }
        match cleanup {
            Some(max) => builder.cleanup(max),
            None => builder,
        }
    }
}

/// Starts a clean-up task when it is dropped.
pub(crate) struct GiveBack(Stage);

impl GiveBack {
    pub(crate) fn new(stage: &Stage) -> GiveBack {
        GiveBack(stage.clone())
    }
}

impl Drop for GiveBack {
    fn drop(&mut self) {
        if shutdown::expected() {
            return;
        }
        let Some(spawner) = &self.0.spawner else {
            return;
        };
        give_back(spawner, &self.0);
    }
}

fn give_back(spawner: &Spawner<Fault>, stage: &Stage) {
    tally().given_back.add(1);
    let guard = stage.world.make(false);
    let id = guard.id();
    stage.world.mark(
        id,
        Marks {
            gives_back: true,
            ..Marks::default()
        },
    );
    let inner = Box::pin(async move {
        pause(Pause::Yields(id % 3)).await;
        Ok(())
    });
    spawner
        .task()
        .cleanup(POLICY_TIME)
        .go(Body::new(guard, inner));
}

/// Every clean-up task of a destructor has run to its end, unless the group was aborted.
pub(crate) fn check_given_back(records: &[Record], what: &str) {
    let lost = records
        .iter()
        .position(|record| record.marks.gives_back && record.fate != Fate::Ok);
    if let Some(id) = lost {
        fail(format_args!(
            "{what} returned, and the clean-up task {id} of a destructor has not run: {records:?}"
        ));
    }
}

/// A cause that is made from the error of a body.
#[derive(Debug)]
pub(crate) struct Culprit {
    pub(crate) world: usize,
    pub(crate) id: Id,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the culprit is {} of {}", self.id, self.world)
    }
}

impl std::error::Error for Culprit {}

pub(crate) fn set_cause_with(g: &Group<Fault>, world: &World) {
    let world = world.number();
    g.set_cause_with(move |fault| match fault {
        Fault::Own(id) => Culprit { world, id: *id }.into(),
        Fault::Context(error) => error.clone().into(),
    });
}

/// Causes that need no body.
const FROM_OUTSIDE: [&str; 9] = [
    "the group's wait has finished",
    "the group was aborted",
    "the group was dropped",
    "the group is closed",
    "shutting down",
    "cancelled by another thread",
    "cancelled by the meddler",
    "context deadline exceeded",
    "context cancelled",
];

/// The cause of a context that is done is what has happened in its group. `ctx` is that of a group
/// whose parent no body can end. `zero`: no failure ends it but that of an essential task.
pub(crate) fn check_cause(ctx: &Context, zero: bool, records: &[Record]) {
    let Some(cause) = ctx.cause() else {
        fail(format_args!("a group has ended, and its context is live"));
    };
    let text = cause.to_string();
    let blamed = match cause.downcast_ref::<Culprit>() {
        Some(culprit) => Some(culprit.id),
        None => text
            .strip_prefix("body ")
            .and_then(|text| text.strip_suffix(" failed"))
            .map(|id| id.parse().unwrap()),
    };
    let holds = if let Some(id) = blamed {
        let record: &Record = &records[id];
        record.fate == Fate::Failed
            && record.due() != Due::Never
            && ((!record.marks.non_fatal && !zero) || record.marks.essential)
    } else if text.starts_with("essential task ") {
        let ended = |record: &Record| record.marks.essential && record.fate != Fate::Made;
        records.iter().any(ended)
    } else if text == "all tasks have finished" {
        records.iter().any(|record| record.marks.background)
    } else if text.contains("panicked") {
        records.iter().any(|record| record.fate == Fate::Panicked)
    } else {
        FROM_OUTSIDE.contains(&&*text)
    };
    check(
        holds,
        format_args!("the cause {text:?} is wrong, where the bodies ended so: {records:?}"),
    );
}
