//! Programs with one possible outcome: each option of a task, and each way to stop one, has the
//! effect that its documentation says, and no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use errgroup::{Context, Group};

use crate::body::Body;
use crate::ends;
use crate::handles::{self, StopsPlan};
use crate::permits::{self, ReservesPlan};
use crate::plan::{Ending, Pause};
use crate::policy::{Culprit, POLICY_TIME, Policy, set_cause_with};
use crate::random::Random;
use crate::record::{Fate, Record};
use crate::script::{Stage, outcome, pause};
use crate::verdict::{check_wait, check_wait_all};
use crate::watch::{check, step, tally};
use crate::world::{Fault, World};

pub(crate) enum ExactPlan {
    Services(ServicesPlan),
    Guardian(GuardianPlan),
    Cleanup(CleanupPlan),
    Stops(StopsPlan),
    Reserves(ReservesPlan),
}

/// Workers, and background tasks that serve them.
pub(crate) struct ServicesPlan {
    zero: bool,
    limit: Option<usize>,
    /// What each worker waits for, and whether it fails, which is not fatal.
    workers: Vec<(Pause, bool)>,
    /// How each background task ends when its context is done.
    services: Vec<Result<(), ()>>,
    idles: bool,
    ending: Ending,
}

/// Tasks beside an essential one.
pub(crate) struct GuardianPlan {
    zero: bool,
    limit: Option<usize>,
    siblings: usize,
    time: Pause,
    fails: bool,
    cause_with: bool,
}

/// Tasks that clean up after a cancellation.
pub(crate) struct CleanupPlan {
    tasks: usize,
    limit: Option<usize>,
    /// Some clean-ups do not end by themselves.
    max: Duration,
    grace: bool,
}

impl Random {
    pub(crate) fn exact(&mut self) -> ExactPlan {
        match self.below(5) {
            0 => ExactPlan::Services(ServicesPlan {
                zero: self.one_in(3),
                limit: self.limit(),
                workers: (0..1 + self.below(8))
                    .map(|_| (self.pause(), self.one_in(3)))
                    .collect(),
                services: (0..self.below(4))
                    .map(|_| [Ok(()), Err(())][self.below(2)])
                    .collect(),
                idles: self.one_in(2),
                ending: [Ending::Wait, Ending::WaitAll, Ending::CloseAndWait(2, None)]
                    [self.below(3)],
            }),
            1 => ExactPlan::Guardian(GuardianPlan {
                zero: self.one_in(2),
                limit: self.limit(),
                siblings: self.below(8),
                time: self.pause(),
                fails: self.one_in(2),
                cause_with: self.one_in(2),
            }),
            2 => ExactPlan::Cleanup(CleanupPlan {
                tasks: 1 + self.below(6),
                limit: self.limit(),
                max: self.micros(2_000),
                grace: self.one_in(2),
            }),
            3 => ExactPlan::Stops(self.stops()),
            _ => ExactPlan::Reserves(self.reserves()),
        }
    }
}

impl ExactPlan {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            ExactPlan::Services(_) => "workers and background tasks",
            ExactPlan::Guardian(_) => "tasks beside an essential one",
            ExactPlan::Cleanup(_) => "tasks that clean up",
            ExactPlan::Stops(_) => "tasks stopped through their handles",
            ExactPlan::Reserves(_) => "tasks that reserve permits",
        }
    }
}

pub(crate) async fn run(plan: ExactPlan, single: bool) {
    tally().exact.add(1);
    match plan {
        ExactPlan::Services(plan) => services(plan, single).await,
        ExactPlan::Guardian(plan) => guardian(plan, single).await,
        ExactPlan::Cleanup(plan) => cleanup(plan, single).await,
        ExactPlan::Stops(plan) => handles::run(plan, single).await,
        ExactPlan::Reserves(plan) => permits::run(plan, single).await,
    }
}

/// A group of its own, which nothing from outside ends.
pub(crate) fn new_group(zero: bool, limit: Option<usize>, single: bool) -> (Group<Fault>, Stage) {
    tally().groups.add(1);
    let world = World::new(single);
    let g = match zero {
        true => Group::new(),
        false => Group::with_context(Context::background()).0,
    };
    g.set_limit(limit);
    world.limited(limit);
    let stage = Stage {
        ctx: g.context(),
        spawner: Some(g.spawner()),
        world,
        single,
    };
    (g, stage)
}

fn cause_of(ctx: &Context) -> String {
    ctx.cause()
        .map_or_else(String::new, |cause| cause.to_string())
}

/// A failure that is not fatal ends no context. Background tasks go on until all workers have
/// ended, see why they are stopped, and what they return then is no failure.
async fn services(plan: ServicesPlan, single: bool) {
    let (g, stage) = new_group(plan.zero, plan.limit, single);
    let world = stage.world.clone();
    let workers = Arc::new(AtomicUsize::new(plan.workers.len()));
    let mut services = Vec::new();
    for ends in plan.services {
        let guard = world.make(false);
        services.push(guard.id());
        let policy = Policy {
            background: true,
            ..Policy::default()
        };
        world.mark(guard.id(), policy.marks());
        let (ctx, workers) = (stage.ctx.clone(), workers.clone());
        let inner = async move {
            ctx.done().await;
            let (cause, left) = (cause_of(&ctx), workers.load(Ordering::SeqCst));
            check(
                left == 0 && cause == "all tasks have finished",
                format_args!("a background task was stopped by {cause:?}, with {left} workers"),
            );
            ends
        };
        policy.apply(g.task()).go(Body::new(guard, Box::pin(inner)));
    }
    let has_services = !services.is_empty();
    let mut failing = 0;
    for (time, fails) in plan.workers {
        failing += usize::from(fails);
        let guard = world.make(false).with_permit();
        let policy = Policy {
            non_fatal: fails && !plan.zero,
            ..Policy::default()
        };
        let workers = workers.clone();
        let inner = async move {
            pause(time).await;
            workers.fetch_sub(1, Ordering::SeqCst);
            if fails { Err(()) } else { Ok(()) }
        };
        policy.apply(g.task()).go(Body::new(guard, Box::pin(inner)));
    }
    if plan.idles {
        step("waiting until the workers have ended");
        g.idle().await;
        let fates: Vec<Fate> = services.iter().map(|id| world.fate(*id)).collect();
        check(
            workers.load(Ordering::SeqCst) == 0
                && !stage.ctx.is_done()
                && fates.iter().all(|fate| *fate == Fate::Made),
            format_args!("idle has waited for too much, or too little: {fates:?}"),
        );
    }
    let reported = match plan.ending {
        Ending::WaitAll => {
            let ended = outcome(g.wait_all()).await;
            let reported = match &ended {
                Ok(Err(errors)) => errors.len(),
                _ => 0,
            };
            check_wait_all(ended, &world);
            reported
        }
        Ending::CloseAndWait(callers, _) => {
            ends::close_and_wait(&g, callers, None, &world).await;
            failing
        }
        _ => {
            check_wait(outcome(g.wait()).await, &world, "wait");
            failing
        }
    };
    let cause = cause_of(&stage.ctx);
    check(
        reported == failing && (!has_services || cause == "all tasks have finished"),
        format_args!("{reported} failures of {failing} reported, and {cause:?} is the cause"),
    );
}

/// The end of an essential task is the end of the context, before a queued task gets its permit.
async fn guardian(plan: GuardianPlan, single: bool) {
    let (g, stage) = new_group(plan.zero, plan.limit, single);
    let world = stage.world.clone();
    if plan.cause_with {
        set_cause_with(&g, &world);
    }
    let GuardianPlan { time, fails, .. } = plan;
    let guard = world.make(false).with_permit();
    let id = guard.id();
    let policy = Policy {
        essential: true,
        ..Policy::default()
    };
    world.mark(id, policy.marks());
    let inner = async move {
        pause(time).await;
        if fails { Err(()) } else { Ok(()) }
    };
    policy
        .apply(g.named("guardian"))
        .go(Body::new(guard, Box::pin(inner)));
    let number = world.number();
    for _ in 0..plan.siblings {
        let guard = world.make(false).with_permit();
        let ctx = stage.ctx.clone();
        let inner = async move {
            ctx.done().await;
            let cause = ctx.cause();
            let culprit = cause
                .as_ref()
                .and_then(|cause| cause.downcast_ref::<Culprit>());
            let text = cause_of(&ctx);
            let holds = match (fails, plan.cause_with) {
                (false, _) => text == "essential task guardian has ended",
                (true, false) => text == format!("body {id} failed"),
                (true, true) => {
                    culprit.is_some_and(|it| (it.id, it.world) == (id, number))
                        && ctx.caused_by::<Culprit>()
                }
            };
            check(holds, format_args!("an essential task has ended: {text:?}"));
            Ok(())
        };
        g.go(Body::new(guard, Box::pin(inner)));
    }
    step("waiting for the end of an essential task");
    check_wait_all(outcome(g.wait_all()).await, &world);
    let records = world.records();
    let started = records
        .iter()
        .filter(|it| it.fate == Fate::Ok || it.fate == Fate::Failed);
    let (started, limit) = (started.count(), plan.limit.unwrap_or(usize::MAX));
    check(
        started <= limit,
        format_args!("{started} tasks have started at a limit of {limit}: {records:?}"),
    );
}

/// Clean-up tasks run after the cancellation for as long as they may, whatever the grace period,
/// and are given a context that is live.
async fn cleanup(plan: CleanupPlan, single: bool) {
    let (g, stage) = new_group(false, plan.limit, single);
    let world = stage.world.clone();
    if plan.grace {
        g.set_grace(Duration::ZERO);
        world.may_abort();
    }
    let ends = Arc::new(AtomicUsize::new(0));
    for number in 0..plan.tasks {
        let (stage, ends, max) = (stage.clone(), ends.clone(), plan.max);
        let guard = world.make(false);
        let after = CleansUp {
            stage,
            number,
            max,
            ends,
        };
        let inner = async move {
            let after = after;
            if number == 0 {
                return Err(());
            }
            after.stage.ctx.done().await;
            Ok(())
        };
        g.go(Body::new(guard, Box::pin(inner)));
    }
    step("waiting for clean-up tasks");
    check_wait_all(outcome(g.wait_all()).await, &world);
    let (ended, records) = (ends.load(Ordering::SeqCst), world.records());
    let cleaned = |record: &&Record| record.marks.cleanup && record.fate == Fate::Ok;
    let ok = records.iter().filter(cleaned).count();
    check(
        ok == ended && ended == plan.tasks.div_ceil(2) && records.len() == 2 * plan.tasks,
        format_args!("{ended} clean-up tasks have ended: {records:?}"),
    );
}

/// Starts a clean-up task when it is dropped. Every second one does not end by itself.
struct CleansUp {
    stage: Stage,
    number: usize,
    max: Duration,
    ends: Arc<AtomicUsize>,
}

impl Drop for CleansUp {
    fn drop(&mut self) {
        let CleansUp {
            stage,
            number,
            max,
            ends,
        } = self;
        let (stage, number, ends) = (stage.clone(), *number, ends.clone());
        let guard = stage.world.make(false);
        let ends_itself = number % 2 == 0;
        let policy = Policy {
            cleanup: Some(if ends_itself { POLICY_TIME } else { *max }),
            ..Policy::default()
        };
        stage.world.mark(guard.id(), policy.marks());
        let Some(spawner) = &stage.spawner else {
            return;
        };
        policy.apply(spawner.task()).go_with(move |ctx| {
            let inner = async move {
                if !ends_itself {
                    std::future::pending::<()>().await;
                }
                pause(Pause::Yields(number)).await;
                let shielded = stage.ctx.shield(POLICY_TIME);
                check(
                    !ctx.is_done() && !shielded.is_done() && shielded.remaining().is_some(),
                    format_args!("a clean-up task has a context that is done"),
                );
                ends.fetch_add(1, Ordering::SeqCst);
                Ok(())
            };
            Body::new(guard, Box::pin(inner))
        });
    }
}
