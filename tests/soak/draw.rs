//! How the plans of groups and fan-outs are drawn.

use std::time::Duration;

use crate::ordinary_plan::OrdinaryPlan;
use crate::plan::*;
use crate::policy::{POLICY_TIME, Policy};
use crate::random::Random;

/// What may be drawn: it depends on whether the context is certain to be done.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// The context is certain to be done at some time, so a body may wait for that.
    pub(crate) ended: bool,
    /// Bodies are dropped then, so that one need not end at all.
    pub(crate) dropped: bool,
    pub(crate) depth: usize,
    /// One in this many bodies fails, or panics.
    pub(crate) trouble: usize,
}

impl Plan {
    pub(crate) fn draw(seed: u64, number: u64) -> Plan {
        let random = &mut Random::of(seed, number);
        let mut deadline = random.one_in(4).then(|| random.micros(4_000));
        let mut cancel = random.one_in(4).then(|| random.micros(3_000));
        let kind = random.below(15);
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
            11 => Kind::Drain(random.drain(bounds)),
            12 | 13 => {
                // Nothing but the program itself decides what happens.
                (deadline, cancel) = (None, None);
                Kind::Exact(random.exact())
            }
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
    pub(crate) fn pause(&mut self) -> Pause {
        match self.below(8) {
            0..3 => Pause::None,
            3..6 => Pause::Yields(1 + self.below(4)),
            6 => Pause::Sleep(self.micros(1_500)),
            _ => Pause::Spins(self.below(2_000)),
        }
    }

    pub(crate) fn limit(&mut self) -> Option<usize> {
        [None, Some(1), Some(1), Some(2), Some(3), Some(8)][self.below(6)]
    }

    pub(crate) fn grace(&mut self) -> Option<Duration> {
        match self.below(3) {
            0 => None,
            1 => Some(Duration::ZERO),
            _ => Some(self.micros(2_000)),
        }
    }

    pub(crate) fn group(&mut self, bounds: Bounds) -> GroupPlan {
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
                    3 if self.one_in(8) => Meddle::Close,
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
            ending: match self.below(14) {
                0..3 => Ending::Wait,
                3..7 => Ending::WaitAll,
                7 => Ending::WaitDropped(self.pause()),
                8 => Ending::Dropped,
                9 => Ending::Aborted,
                10 | 11 => self.close_and_wait(),
                _ => Ending::Drain(self.micros(4_000)),
            },
            cause_with: self.one_in(2),
            idle: match self.below(4) {
                0 => Some(Awaits::ToTheEnd),
                1 => Some(Awaits::Abandons(self.pause())),
                _ => None,
            },
            ..GroupPlan::default()
        }
    }

    pub(crate) fn scope(&mut self, bounds: Bounds) -> GroupPlan {
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
            all: self.one_in(2),
            ..GroupPlan::default()
        }
    }

    /// One that a task has for itself.
    pub(crate) fn nested_group(&mut self, bounds: Bounds) -> GroupPlan {
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
            ending: match self.below(5) {
                0 => Ending::Wait,
                1 => Ending::WaitAll,
                2 => self.close_and_wait(),
                3 => Ending::Drain(self.micros(4_000)),
                _ => Ending::Dropped,
            },
            cause_with: self.one_in(2),
            ..GroupPlan::default()
        }
    }

    pub(crate) fn tasks(&mut self, bounds: Bounds, most: usize) -> Vec<TaskPlan> {
        (0..self.below(most + 1))
            .map(|_| self.task(bounds))
            .collect()
    }

    pub(crate) fn task(&mut self, bounds: Bounds) -> TaskPlan {
        let way = self.way();
        let policy = match way {
            Way::Reserve(..) => Policy::default(),
            _ => self.policy(),
        };
        let stops = (way.has_handle() || way == Way::SpawnBlocking) && self.one_in(3);
        let stops = stops.then(|| {
            let stop = [Stop::Cancel, Stop::CancelWith, Stop::Abort][self.below(3)];
            (self.pause(), stop)
        });
        // At once, so that nothing drops its starter before.
        let aborted = way.has_handle() && matches!(stops, Some((Pause::None, Stop::Abort)));
        let cancellable = way == Way::GoCancellable && bounds.ended;
        let in_time = policy.cleanup.is_some_and(|max| max < POLICY_TIME);
        let mut bounds = Bounds {
            // Its context is done when the others have finished.
            ended: bounds.ended || policy.background,
            // A closure cannot be stopped, nor can what its caller polls.
            dropped: (bounds.dropped || cancellable || aborted)
                && !way.blocks()
                && way != Way::Track,
            ..bounds
        };
        // A tracked future is polled by its caller, so there is no bound on its time.
        if policy.cleanup.is_some() && way != Way::Track {
            bounds.ended = in_time && way.has_context();
            bounds.dropped = (in_time || aborted) && !way.blocks();
        }
        TaskPlan {
            way,
            named: !matches!(way, Way::Reserve(..)) && self.one_in(3),
            by_spawner: self.one_in(3),
            policy,
            awaits: match self.below(4) {
                _ if policy.background && way != Way::Start => Awaits::Nothing,
                0 if !policy.background => Awaits::ToTheEnd,
                0 | 1 => Awaits::Abandons(self.pause()),
                // Without a poll it starts nothing.
                _ if matches!(way, Way::Start | Way::Reserve(..)) => Awaits::Abandons(self.pause()),
                _ => Awaits::Nothing,
            },
            stops,
            gives_back: self.one_in(6),
            script: self.script(bounds, true),
        }
    }

    pub(crate) fn script(&mut self, bounds: Bounds, in_group: bool) -> Script {
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

    pub(crate) fn fan_out(&mut self, bounds: Bounds, most: usize) -> FanOutPlan {
        let count = 1 + self.below(most);
        let mut items: Vec<Script> = (0..count).map(|_| self.script(bounds, false)).collect();
        let local = self.one_in(4);
        let blocking = !local && self.one_in(5);
        if blocking {
            // A call is not a future, and cannot be dropped.
            for item in &mut items {
                item.acts.clear();
                if item.end == End::Never || (item.end == End::UntilAsked && !bounds.ended) {
                    item.end = End::Ok;
                }
            }
        }
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
            end: match self.below(10) {
                9 => FanOutEnd::IndexedStream,
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
            stops: self.one_in(2),
            limits: match self.below(4) {
                0 => (0..1 + self.below(4)).map(|_| self.limit()).collect(),
                _ => Vec::new(),
            },
            blocking,
            items,
        }
    }

    pub(crate) fn hedge(&mut self, bounds: Bounds) -> HedgePlan {
        let count = 1 + self.below(5);
        HedgePlan {
            delay: self.micros(1_000),
            attempts: (0..count).map(|_| self.script(bounds, false)).collect(),
            dropped: self.one_in(5).then(|| self.pause()),
        }
    }

    pub(crate) fn shutdown(&mut self, bounds: Bounds) -> ShutdownPlan {
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
                    blocking: false,
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
}
