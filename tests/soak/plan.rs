//! The plans of scenarios. Every random decision, other than the schedule of threads, is made here,
//! before the scenario runs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seed() -> u64 {
        RandomState::new().build_hasher().finish() >> 32
    }

    pub(crate) fn of(seed: u64, number: u64) -> Random {
        let mut random = Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn micros(&mut self, end: usize) -> Duration {
        Duration::from_micros(self.below(end) as u64)
    }
}

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
    pub(crate) before_the_end: Pause,
    pub(crate) ending: Ending,
    /// Of a scope: how its body ends.
    pub(crate) body: End,
}

impl GroupPlan {
    /// Whether the group may be aborted before its wait returns.
    pub(crate) fn may_abort(&self) -> bool {
        let by_meddler = |meddle: &Meddle| matches!(meddle, Meddle::Grace(Some(_)) | Meddle::Abort);
        self.grace.is_some()
            || self.ending == Ending::Aborted
            || self.meddling.iter().any(by_meddler)
    }
}

pub(crate) struct TaskPlan {
    pub(crate) way: Way,
    pub(crate) named: bool,
    /// By the group's spawner.
    pub(crate) by_spawner: bool,
    pub(crate) awaits: Awaits,
    pub(crate) script: Script,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Go,
    GoWith,
    GoCancellable,
    TryGo,
    Blocking,
    Local,
    Spawn,
    Start,
}

/// What a starter does with what it is given.
#[derive(Clone, Copy, PartialEq, Eq)]
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

#[derive(Clone, Copy, Default, PartialEq, Eq)]
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

#[derive(Clone, Copy, Default, PartialEq, Eq)]
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
    /// `go` from outside of every task.
    Go,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    #[default]
    Wait,
    WaitAll,
    WaitDropped(Pause),
    Dropped,
    /// Aborted, and then waited for.
    Aborted,
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
        }
    }
}

/// What may be drawn: it depends on whether the context is certain to be done.
#[derive(Clone, Copy)]
struct Bounds {
    /// The context is certain to be done at some time, so a body may wait for that.
    ended: bool,
    /// Bodies are dropped then, so that one need not end at all.
    dropped: bool,
    depth: usize,
    /// One in this many bodies fails, or panics.
    trouble: usize,
}

impl Plan {
    pub(crate) fn draw(seed: u64, number: u64) -> Plan {
        let random = &mut Random::of(seed, number);
        let mut deadline = random.one_in(4).then(|| random.micros(4_000));
        let mut cancel = random.one_in(4).then(|| random.micros(3_000));
        let kind = random.below(12);
        if matches!(kind, 5 | 9) && random.one_in(2) {
            // So that more bodies wait for that.
            cancel = cancel.or_else(|| deadline.is_none().then(|| random.micros(2_000)));
        }
        let ended = deadline.is_some() || cancel.is_some();
        let bounds = Bounds {
            ended,
            dropped: ended,
            depth: 2,
            trouble: [6, 20, 200][random.below(3)],
        };
        let kind = match kind {
            0..5 => {
                let group = random.group(bounds);
                if group.zero {
                    // It is not a child of the context that ends.
                    (deadline, cancel) = (None, None);
                }
                Kind::Group(group)
            }
            5 => Kind::Scope(random.scope(bounds)),
            6..9 => Kind::FanOut(random.fan_out(bounds, 40)),
            9 => Kind::Hedge(random.hedge(bounds)),
            10 => Kind::Shutdown(random.shutdown(bounds)),
            _ => {
                let ordinary = random.ordinary();
                if let OrdinaryPlan::Bursts(_) = ordinary {
                    // All of its outcomes are to come.
                    (deadline, cancel) = (None, None);
                }
                Kind::Ordinary(ordinary)
            }
        };
        Plan {
            deadline,
            cancel,
            kind,
        }
    }
}

impl Random {
    fn pause(&mut self) -> Pause {
        match self.below(8) {
            0..3 => Pause::None,
            3..6 => Pause::Yields(1 + self.below(4)),
            6 => Pause::Sleep(self.micros(1_500)),
            _ => Pause::Spins(self.below(2_000)),
        }
    }

    fn limit(&mut self) -> Option<usize> {
        [None, Some(1), Some(1), Some(2), Some(3), Some(8)][self.below(6)]
    }

    fn grace(&mut self) -> Option<Duration> {
        match self.below(3) {
            0 => None,
            1 => Some(Duration::ZERO),
            _ => Some(self.micros(2_000)),
        }
    }

    fn group(&mut self, bounds: Bounds) -> GroupPlan {
        let zero = self.one_in(5);
        let meddled = self.one_in(2);
        // The meddler's last word may be the end of the context.
        let last = match self.below(4) {
            0 if meddled => Some(Meddle::Cancel),
            1 if meddled => Some(Meddle::Abort),
            _ => None,
        };
        let ended = last.is_some() || (bounds.ended && !zero);
        let grace = self.grace();
        let bounds = Bounds {
            ended,
            dropped: ended && grace.is_some(),
            ..bounds
        };
        let mut meddling = Vec::new();
        if meddled {
            for _ in 0..self.below(8) {
                meddling.push(match self.below(6) {
                    0 | 1 => {
                        Meddle::Limit([Some(0), Some(1), Some(2), Some(5), None][self.below(5)])
                    }
                    2 => Meddle::Grace(match self.grace() {
                        None if bounds.dropped => Some(Duration::ZERO),
                        grace => grace,
                    }),
                    3 => Meddle::Go,
                    _ => Meddle::Sleep(self.micros(500)),
                });
            }
            // A limit of 0 must not be the last.
            meddling.push(Meddle::Limit(self.limit()));
            meddling.extend(last);
        }
        GroupPlan {
            zero,
            limit: self.limit(),
            grace,
            tasks: self.tasks(bounds, 12),
            meddling,
            before_the_end: self.pause(),
            ending: match self.below(10) {
                0..3 => Ending::Wait,
                3..7 => Ending::WaitAll,
                7 => Ending::WaitDropped(self.pause()),
                8 => Ending::Dropped,
                _ => Ending::Aborted,
            },
            body: End::Ok,
        }
    }

    fn scope(&mut self, bounds: Bounds) -> GroupPlan {
        let grace = self.grace();
        let bounds = Bounds {
            dropped: bounds.ended && grace.is_some(),
            ..bounds
        };
        GroupPlan {
            limit: self.limit(),
            grace,
            tasks: self.tasks(bounds, 8),
            before_the_end: self.pause(),
            ending: match self.below(4) {
                0 => Ending::WaitDropped(self.pause()),
                _ => Ending::Wait,
            },
            body: match self.below(bounds.trouble) {
                0 => End::Fail,
                1 => End::Panic,
                _ => End::Ok,
            },
            ..GroupPlan::default()
        }
    }

    /// One that a task has for itself.
    fn nested_group(&mut self, bounds: Bounds) -> GroupPlan {
        let bounds = Bounds {
            ended: false,
            dropped: false,
            ..bounds
        };
        GroupPlan {
            limit: self.limit(),
            grace: self.grace(),
            tasks: self.tasks(bounds, 4),
            before_the_end: self.pause(),
            ending: [Ending::Wait, Ending::WaitAll, Ending::Dropped][self.below(3)],
            ..GroupPlan::default()
        }
    }

    fn tasks(&mut self, bounds: Bounds, most: usize) -> Vec<TaskPlan> {
        (0..self.below(most + 1))
            .map(|_| self.task(bounds))
            .collect()
    }

    fn task(&mut self, bounds: Bounds) -> TaskPlan {
        let way = [
            Way::Go,
            Way::Go,
            Way::GoWith,
            Way::GoCancellable,
            Way::TryGo,
            Way::Blocking,
            Way::Local,
            Way::Spawn,
            Way::Spawn,
            Way::Start,
        ][self.below(10)];
        let cancellable = way == Way::GoCancellable && bounds.ended;
        let bounds = Bounds {
            // A closure cannot be stopped.
            dropped: (bounds.dropped || cancellable) && way != Way::Blocking,
            ..bounds
        };
        TaskPlan {
            way,
            named: self.one_in(3),
            by_spawner: self.one_in(3),
            awaits: match self.below(4) {
                0 => Awaits::ToTheEnd,
                1 => Awaits::Abandons(self.pause()),
                // Without a poll it starts nothing.
                _ if way == Way::Start => Awaits::Abandons(self.pause()),
                _ => Awaits::Nothing,
            },
            script: self.script(bounds, true),
        }
    }

    fn script(&mut self, bounds: Bounds, in_group: bool) -> Script {
        let mut acts = Vec::new();
        if bounds.depth > 0 && self.one_in(4) {
            let deeper = Bounds {
                depth: bounds.depth - 1,
                ..bounds
            };
            // What a body awaits must end by itself.
            let by_itself = Bounds {
                ended: false,
                dropped: false,
                ..deeper
            };
            for _ in 0..1 + self.below(2) {
                acts.push(match self.below(5) {
                    0 => Act::FanOut(self.fan_out(by_itself, 8)),
                    1 => Act::Group(self.nested_group(deeper)),
                    _ if in_group => Act::Task(self.task(by_itself)),
                    _ => Act::FanOut(self.fan_out(by_itself, 4)),
                });
            }
        }
        let end = match self.below(bounds.trouble) {
            0 | 1 => End::Fail,
            2 => End::Panic,
            3 | 4 if bounds.ended => End::UntilAsked,
            5 if bounds.dropped => End::Never,
            _ => End::Ok,
        };
        Script {
            before: self.pause(),
            acts,
            after: self.pause(),
            end,
            trap: self.one_in(10 * bounds.trouble),
        }
    }

    fn fan_out(&mut self, bounds: Bounds, most: usize) -> FanOutPlan {
        let count = 1 + self.below(most);
        let mut items: Vec<Script> = (0..count).map(|_| self.script(bounds, false)).collect();
        let local = self.one_in(4);
        if local {
            // Dropping the call drops them, and so would let their panics out of the drop.
            items.iter_mut().for_each(|item| item.trap = false);
        }
        FanOutPlan {
            local,
            limit: self.limit(),
            grace: self.grace(),
            named: self.one_in(2),
            from_stream: self.one_in(2),
            f_panics: self.one_in(10 * bounds.trouble).then(|| self.below(count)),
            end: match self.below(9) {
                0 => FanOutEnd::All,
                1 => FanOutEnd::ForEach,
                2 => FanOutEnd::Settle,
                3 => FanOutEnd::TryStream,
                4 | 5 => FanOutEnd::Stream,
                6 => FanOutEnd::OrderedStream,
                7 => FanOutEnd::FirstOk,
                _ => FanOutEnd::Quorum(self.below(count + 2)),
            },
            dropped: self.one_in(6).then(|| self.pause()),
            consumer: self.pause(),
            takes: match self.below(4) {
                0 => self.below(count + 1),
                _ => usize::MAX,
            },
            items,
        }
    }

    fn hedge(&mut self, bounds: Bounds) -> HedgePlan {
        let count = 1 + self.below(5);
        HedgePlan {
            delay: self.micros(1_000),
            attempts: (0..count).map(|_| self.script(bounds, false)).collect(),
            dropped: self.one_in(5).then(|| self.pause()),
        }
    }

    fn shutdown(&mut self, bounds: Bounds) -> ShutdownPlan {
        // The shutdown drops everything that does not end.
        let bounds = Bounds {
            ended: true,
            dropped: true,
            ..bounds
        };
        ShutdownPlan {
            workers: self.below(3),
            driven: self.micros(2_000),
            background: self.one_in(2),
            what: match self.below(3) {
                0 => Victim::FanOut(FanOutPlan {
                    local: false,
                    dropped: None,
                    ..self.fan_out(bounds, 30)
                }),
                _ => Victim::Group(GroupPlan {
                    limit: self.limit(),
                    grace: self.grace(),
                    tasks: self.tasks(bounds, 12),
                    ending: Ending::WaitAll,
                    ..GroupPlan::default()
                }),
            },
        }
    }

    fn ordinary(&mut self) -> OrdinaryPlan {
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

    fn start_call(&mut self) -> CallPlan {
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

    fn outcome_order(&mut self) -> OutcomeOrder {
        [OutcomeOrder::Completion, OutcomeOrder::Items][self.below(2)]
    }
}
