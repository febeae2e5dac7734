//! The plans of ordinary programs.

use std::time::Duration;

use crate::plan::Pause;
use crate::random::Random;

pub(crate) enum OrdinaryPlan {
    Compute(ComputePlan),
    Swallow(SwallowPlan),
    Starts(StartsPlan),
    Bursts(BurstPlan),
}

/// Jobs that compute.
pub(crate) struct ComputePlan {
    pub(crate) form: Form,
    pub(crate) jobs: usize,
    /// How long each job computes: longer than a worker may run in one poll.
    pub(crate) job: Duration,
    /// The first of each `yields_each` jobs yields before it computes.
    pub(crate) yields_each: usize,
    pub(crate) limit: usize,
}

#[derive(Clone, Copy)]
pub(crate) enum Form {
    Group,
    FanOut,
}

/// Tasks that swallow their cancellation.
pub(crate) struct SwallowPlan {
    pub(crate) tasks: usize,
    pub(crate) limit: Option<usize>,
    /// How long the tasks sleep between two looks.
    pub(crate) nap: Duration,
    pub(crate) before: Pause,
    pub(crate) trigger: Trigger,
    pub(crate) end: SwallowEnd,
}

/// What cancels the context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    Cancel,
    Failure,
}

#[derive(Clone, Copy)]
pub(crate) enum SwallowEnd {
    Grace(Duration),
    Abort(Pause),
    /// The tasks end by themselves, when a flag is set.
    Flag(Pause),
    WaitDropped(Pause),
}

/// Calls of `start` that race with something else.
pub(crate) struct StartsPlan {
    pub(crate) limit: Option<usize>,
    pub(crate) calls: Vec<CallPlan>,
    /// When the group is cancelled, beside the calls.
    pub(crate) cancel: Option<Pause>,
}

#[derive(Clone, Copy)]
pub(crate) struct CallPlan {
    /// Turns of the task until it is ready, or would be.
    pub(crate) before: usize,
    /// Turns of the task from then until its end.
    pub(crate) after: usize,
    pub(crate) end: StartEnd,
    pub(crate) stop: Stop,
    pub(crate) order: PollOrder,
    pub(crate) leaves: Leaves,
}

#[derive(Clone, Copy)]
pub(crate) enum StartEnd {
    FailsBefore,
    FailsAfter,
    /// It is ready, and succeeds.
    Serves,
    /// It succeeds without having been ready.
    Silent,
}

impl StartEnd {
    pub(crate) fn is_ready(self) -> bool {
        matches!(self, StartEnd::FailsAfter | StartEnd::Serves)
    }
}

/// What a call of `start` races with.
#[derive(Clone, Copy)]
pub(crate) enum Stop {
    Turns(usize),
    /// A signal of the task itself.
    Signal,
}

/// Which of two futures is polled first, and so wins if both are ready.
#[derive(Clone, Copy)]
pub(crate) enum PollOrder {
    CallFirst,
    StopFirst,
}

/// What becomes of a call that has lost its race.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    Dropped,
    PolledBesideTheWait,
    PolledAfterTheWait,
}

/// A pipeline of two stages that gets its items in bursts.
pub(crate) struct BurstPlan {
    /// How many items each burst has.
    pub(crate) bursts: Vec<usize>,
    /// What the items of each stage wait for.
    pub(crate) pauses: [Pause; 2],
    pub(crate) orders: [OutcomeOrder; 2],
    /// The pipeline is dropped, and does not come to its end.
    pub(crate) dropped: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum OutcomeOrder {
    Completion,
    Items,
}
impl Random {
    pub(crate) fn ordinary(&mut self) -> OrdinaryPlan {
        match self.below(4) {
            0 => OrdinaryPlan::Compute(ComputePlan {
                form: [Form::Group, Form::FanOut][self.below(2)],
                jobs: 20 + self.below(80),
                job: Duration::from_micros(201) + self.micros(200),
                yields_each: [1, 2, 5, usize::MAX][self.below(4)],
                limit: 1 + self.below(4),
            }),
            1 => OrdinaryPlan::Swallow(SwallowPlan {
                tasks: 1 + self.below(8),
                limit: self.limit(),
                nap: self.micros(500),
                before: self.pause(),
                trigger: [Trigger::Cancel, Trigger::Failure][self.below(2)],
                end: match self.below(4) {
                    0 => SwallowEnd::Grace(self.micros(500)),
                    1 => SwallowEnd::Abort(self.pause()),
                    2 => SwallowEnd::Flag(self.pause()),
                    _ => SwallowEnd::WaitDropped(self.pause()),
                },
            }),
            2 => OrdinaryPlan::Starts(StartsPlan {
                limit: self.limit(),
                calls: (0..1 + self.below(8)).map(|_| self.start_call()).collect(),
                cancel: self.one_in(3).then(|| Pause::Yields(self.below(4))),
            }),
            _ => OrdinaryPlan::Bursts(BurstPlan {
                bursts: (0..1 + self.below(4))
                    .map(|_| 50 + self.below(351))
                    .collect(),
                pauses: [self.pause(), self.pause()],
                orders: [self.outcome_order(), self.outcome_order()],
                dropped: self.one_in(3),
            }),
        }
    }

    pub(crate) fn start_call(&mut self) -> CallPlan {
        CallPlan {
            before: self.below(4),
            after: self.below(3),
            end: match self.below(8) {
                0..4 => StartEnd::FailsBefore,
                4 | 5 => StartEnd::FailsAfter,
                6 => StartEnd::Serves,
                _ => StartEnd::Silent,
            },
            stop: match self.below(2) {
                0 => Stop::Turns(self.below(5)),
                _ => Stop::Signal,
            },
            order: [PollOrder::CallFirst, PollOrder::StopFirst][self.below(2)],
            leaves: [
                Leaves::Dropped,
                Leaves::Dropped,
                Leaves::PolledBesideTheWait,
                Leaves::PolledAfterTheWait,
            ][self.below(4)],
        }
    }

    pub(crate) fn outcome_order(&mut self) -> OutcomeOrder {
        [OutcomeOrder::Completion, OutcomeOrder::Items][self.below(2)]
    }
}
