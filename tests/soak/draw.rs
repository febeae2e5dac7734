//! How the plans of groups and fan-outs are drawn.

use std::time::Duration;

use crate::ordinary_plan::OrdinaryPlan;
use crate::plan::*;
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
            ending: [Ending::Wait, Ending::WaitAll, Ending::Dropped][self.below(3)],
            ..GroupPlan::default()
        }
    }

    pub(crate) fn tasks(&mut self, bounds: Bounds, most: usize) -> Vec<TaskPlan> {
        (0..self.below(most + 1))
            .map(|_| self.task(bounds))
            .collect()
    }

    pub(crate) fn task(&mut self, bounds: Bounds) -> TaskPlan {
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
