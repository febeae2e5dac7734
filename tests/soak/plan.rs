//! The plans of scenarios. Every random decision, other than the schedule of threads, is made
//! before the scenario runs: see `draw`.

use std::time::Duration;

use crate::ends::DrainPlan;
use crate::exact::ExactPlan;
use crate::ordinary_plan::OrdinaryPlan;
use crate::permits::PermitUse;
use crate::policy::Policy;

pub(crate) struct Plan {
    pub(crate) deadline: Option<Duration>,
    /// When another thread cancels the context.
    pub(crate) cancel: Option<Duration>,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Group(GroupPlan),
    Scope(GroupPlan),
    FanOut(FanOutPlan),
    Hedge(HedgePlan),
    Shutdown(ShutdownPlan),
    Ordinary(OrdinaryPlan),
    Exact(ExactPlan),
    Drain(DrainPlan),
}

#[derive(Default)]
pub(crate) struct GroupPlan {
    /// `Group::new()`, whose context nothing ends by itself.
    pub(crate) zero: bool,
    pub(crate) limit: Option<usize>,
    pub(crate) grace: Option<Duration>,
    pub(crate) tasks: Vec<TaskPlan>,
    /// What another thread does meanwhile.
    pub(crate) meddling: Vec<Meddle>,
    /// The cause of the context is made from the error.
    pub(crate) cause_with: bool,
    /// The group is awaited to be idle, perhaps not to the end.
    pub(crate) idle: Option<Awaits>,
    pub(crate) before_the_end: Pause,
    pub(crate) ending: Ending,
    /// Of a scope: how its body ends.
    pub(crate) body: End,
    /// Of a scope: it returns every failure.
    pub(crate) all: bool,
}

impl GroupPlan {
    /// Whether the group may be aborted before its wait returns.
    pub(crate) fn may_abort(&self) -> bool {
        let by_meddler = |meddle: &Meddle| matches!(meddle, Meddle::Grace(Some(_)) | Meddle::Abort);
        self.grace.is_some() || self.aborts() || self.meddling.iter().any(by_meddler)
    }

    /// Whether clean-up tasks may be aborted before its wait returns.
    pub(crate) fn aborts(&self) -> bool {
        let aborts = |meddle: &Meddle| matches!(meddle, Meddle::Abort);
        matches!(self.ending, Ending::Aborted | Ending::Drain(_))
            || self.meddling.iter().any(aborts)
    }

    /// The largest limit that it will have.
    pub(crate) fn most(&self) -> Option<usize> {
        let meddled = self.meddling.iter().filter_map(|meddle| match meddle {
            Meddle::Limit(limit) => Some(*limit),
            _ => None,
        });
        let limits = meddled.chain([self.limit]);
        limits.reduce(|one, other| Some(one?.max(other?)))?
    }
}

pub(crate) struct TaskPlan {
    pub(crate) way: Way,
    pub(crate) named: bool,
    /// By the group's spawner.
    pub(crate) by_spawner: bool,
    pub(crate) policy: Policy,
    pub(crate) awaits: Awaits,
    /// The handle stops the task.
    pub(crate) stops: Option<(Pause, Stop)>,
    /// Its destructor starts a clean-up task.
    pub(crate) gives_back: bool,
    pub(crate) script: Script,
}

/// How a handle stops its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Cancel,
    CancelWith,
    Abort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Go,
    GoWith,
    GoCancellable,
    TryGo,
    Blocking,
    Local,
    Spawn,
    SpawnWith,
    SpawnBlocking,
    Start,
    Track,
    /// With a permit that is kept for a while.
    Reserve(Pause, PermitUse),
}

impl Way {
    /// Whether it runs on a thread of its own.
    pub(crate) fn blocks(self) -> bool {
        matches!(
            self,
            Way::Blocking
                | Way::SpawnBlocking
                | Way::Reserve(_, PermitUse::Blocking | PermitUse::SpawnBlocking)
        )
    }

    /// Whether it hands over a context.
    pub(crate) fn has_context(self) -> bool {
        matches!(
            self,
            Way::GoWith | Way::SpawnWith | Way::Blocking | Way::SpawnBlocking | Way::Start
        )
    }

    /// Whether there is a handle that can drop it.
    pub(crate) fn has_handle(self) -> bool {
        matches!(
            self,
            Way::Spawn | Way::SpawnWith | Way::Reserve(_, PermitUse::Spawn | PermitUse::SpawnWith)
        )
    }
}

/// What a starter does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaits {
    Nothing,
    ToTheEnd,
    /// It gives up after a while.
    Abandons(Pause),
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) before: Pause,
    pub(crate) acts: Vec<Act>,
    pub(crate) after: Pause,
    pub(crate) end: End,
    /// Its destructor panics, unless it failed or panicked before.
    pub(crate) trap: bool,
}

pub(crate) enum Act {
    Task(TaskPlan),
    FanOut(FanOutPlan),
    Group(GroupPlan),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    #[default]
    Ok,
    Fail,
    Panic,
    /// It waits for the context's end, and fails.
    UntilAsked,
    /// It ignores its context, and never ends by itself.
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pause {
    #[default]
    None,
    Yields(usize),
    Sleep(Duration),
    Spins(usize),
}

#[derive(Clone, Copy)]
pub(crate) enum Meddle {
    Limit(Option<usize>),
    Grace(Option<Duration>),
    Sleep(Duration),
    Cancel,
    Abort,
    Close,
    /// `go` from outside of every task.
    Go,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    #[default]
    Wait,
    WaitAll,
    WaitDropped(Pause),
    Dropped,
    /// Aborted, and then waited for.
    Aborted,
    /// By this many callers at once, after a first call that is dropped.
    CloseAndWait(usize, Option<Pause>),
    /// In so much time.
    Drain(Duration),
}

#[derive(Default)]
pub(crate) struct FanOutPlan {
    pub(crate) items: Vec<Script>,
    pub(crate) limit: Option<usize>,
    pub(crate) grace: Option<Duration>,
    pub(crate) local: bool,
    pub(crate) named: bool,
    /// Items from a stream, which has them wait now and then, and progress is reported.
    pub(crate) from_stream: bool,
    /// The function panics at this item.
    pub(crate) f_panics: Option<usize>,
    pub(crate) end: FanOutEnd,
    /// When the call is dropped.
    pub(crate) dropped: Option<Pause>,
    pub(crate) consumer: Pause,
    /// After how many outcomes a stream is dropped.
    pub(crate) takes: usize,
    /// It is stopped then.
    pub(crate) stops: bool,
    /// The limits that its handle sets, one after each item.
    pub(crate) limits: Vec<Option<usize>>,
    /// Its function blocks.
    pub(crate) blocking: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FanOutEnd {
    #[default]
    All,
    ForEach,
    Settle,
    TryStream,
    Stream,
    OrderedStream,
    IndexedStream,
    FirstOk,
    Quorum(usize),
}

#[derive(Default)]
pub(crate) struct HedgePlan {
    pub(crate) delay: Duration,
    pub(crate) attempts: Vec<Script>,
    pub(crate) dropped: Option<Pause>,
}

#[derive(Default)]
pub(crate) struct ShutdownPlan {
    pub(crate) workers: usize,
    /// How long the runtime is driven, if it has no thread of its own.
    pub(crate) driven: Duration,
    pub(crate) background: bool,
    pub(crate) what: Victim,
}

pub(crate) enum Victim {
    Group(GroupPlan),
    FanOut(FanOutPlan),
}

impl Default for Victim {
    fn default() -> Victim {
        Victim::FanOut(FanOutPlan::default())
    }
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::Group(_) => "a group",
            Kind::Scope(_) => "a scope",
            Kind::FanOut(_) => "a fan-out",
            Kind::Hedge(_) => "a hedge",
            Kind::Shutdown(ShutdownPlan { what, .. }) => match what {
                Victim::Group(_) => "a group whose runtime shuts down",
                Victim::FanOut(_) => "a fan-out whose runtime shuts down",
            },
            Kind::Ordinary(ordinary) => match ordinary {
                OrdinaryPlan::Compute(_) => "jobs that compute beside a heartbeat",
                OrdinaryPlan::Swallow(_) => "tasks that swallow their cancellation",
                OrdinaryPlan::Starts(_) => "calls of start that race",
                OrdinaryPlan::Bursts(_) => "bursts in a pipeline",
            },
            Kind::Exact(exact) => exact.name(),
            Kind::Drain(_) => "a drain of several groups",
        }
    }
}
