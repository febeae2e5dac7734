//! Permits that are reserved, kept for a while, and used in all ways that there are.

use std::future::Future;
use std::pin::Pin;

use errgroup::{ContextError, Permit, TaskHandle};

use crate::body::{Body, Valued};
use crate::exact;
use crate::plan::{Awaits, Pause, Stop, TaskPlan, Way};
use crate::random::Random;
use crate::record::{Fate, Told};
use crate::script::{Stage, block, block_for, outcome, pause};
use crate::starting::{Makes, Starter};
use crate::verdict::check_wait_all;
use crate::watch::{check, fail, step, tally};
use crate::world::{Fault, Id, Token, World};

/// What a permit is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PermitUse {
    Dropped,
    Go,
    GoWith,
    GoCancellable,
    Blocking,
    Spawn,
    SpawnWith,
    SpawnBlocking,
}

pub(crate) type Reservation =
    Pin<Box<dyn Future<Output = Result<Permit<Fault>, ContextError>> + Send>>;

pub(crate) fn reserve(on: &Starter<'_>) -> Reservation {
    match on {
        Starter::Group(g) => Box::pin(g.reserve()),
        Starter::Spawner(spawner) => Box::pin(spawner.reserve()),
        Starter::TaskBuilder(_) => unreachable!("a builder has no reservations"),
    }
}

/// The handle of a task that was started with a permit, and what to do with it.
type Handled = (Id, TaskHandle<Token>, (Option<(Pause, Stop)>, Awaits));

/// Keeps a permit for a while, and starts a task with it, or not.
pub(crate) async fn start(permit: Permit<Fault>, task: TaskPlan, stage: &Stage) -> Option<Handled> {
    tally().reserved.add(1);
    let Way::Reserve(keeps, used) = task.way else {
        unreachable!("it was reserved")
    };
    pause(keeps).await;
    if used == PermitUse::Dropped {
        drop(permit);
        return None;
    }
    let (script, stage) = (task.script, stage.clone());
    let mut guard = stage.world.make(script.trap);
    let id = guard.id();
    if script.acts.is_empty() {
        guard = guard.with_permit();
    }
    let makes = Makes::new(task.gives_back);
    let body = move |guard, script, stage| makes.body(guard, script, stage);
    let handle = match used {
        PermitUse::Dropped => None,
        PermitUse::Go => {
            permit.go(body(guard, script, stage));
            None
        }
        PermitUse::GoWith => {
            permit.go_with(move |ctx| body(guard, script, Stage { ctx, ..stage }));
            None
        }
        PermitUse::GoCancellable => {
            permit.go_cancellable(body(guard, script, stage));
            None
        }
        PermitUse::Blocking => {
            let guard = guard.for_the_pool();
            permit.go_blocking(move |ctx| block(&script, guard, &ctx));
            None
        }
        PermitUse::Spawn => Some(permit.spawn(Valued(body(guard, script, stage)))),
        PermitUse::SpawnWith => {
            Some(permit.spawn_with(move |ctx| Valued(body(guard, script, Stage { ctx, ..stage }))))
        }
        PermitUse::SpawnBlocking => {
            let guard = guard.for_the_pool();
            Some(permit.spawn_blocking(move |ctx| block_for(&script, guard, &ctx)))
        }
    };
    Some((id, handle?, (task.stops, task.awaits)))
}

/// Tasks that reserve permits of their own group, in a loop.
pub(crate) struct ReservesPlan {
    limit: usize,
    tasks: Vec<Vec<Round>>,
    /// A permit that the group's owner keeps over the end.
    leftover: Leftover,
}

#[derive(Clone, Copy)]
struct Round {
    keeps: Pause,
    used: RoundUse,
    time: Pause,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RoundUse {
    Dropped,
    Go,
    /// The handle is awaited.
    Spawn,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leftover {
    None,
    /// Used when the group was closed: its task still runs.
    AfterClose,
    /// Used when the group has ended: its task never runs.
    AfterWait,
}

impl Random {
    pub(crate) fn reserves(&mut self) -> ReservesPlan {
        let mut tasks = Vec::new();
        for _ in 0..1 + self.below(5) {
            let rounds = (0..1 + self.below(4)).map(|_| Round {
                keeps: self.pause(),
                used: [RoundUse::Dropped, RoundUse::Go, RoundUse::Spawn][self.below(3)],
                time: self.pause(),
            });
            tasks.push(rounds.collect());
        }
        ReservesPlan {
            limit: 1 + self.below(3),
            tasks,
            leftover: [Leftover::None, Leftover::AfterClose, Leftover::AfterWait][self.below(3)],
        }
    }
}

/// Never more than the limit run, tasks that reserve included, and none waits for ever.
pub(crate) async fn run(plan: ReservesPlan, single: bool) {
    let (g, stage) = exact::new_group(false, Some(plan.limit), single);
    let world = &stage.world;
    step("reserving a permit for later");
    let leftover = match plan.leftover {
        Leftover::None => None,
        _ => g.reserve().await.ok(),
    };
    // The permit that is kept counts, and so would block the others.
    g.set_limit(plan.limit + usize::from(leftover.is_some()));
    let mut starters = Vec::new();
    for rounds in plan.tasks {
        let guard = world.make(false);
        starters.push(guard.id());
        let inner = reserves(rounds, stage.clone());
        g.go(Body::new(guard, Box::pin(inner)));
    }
    check(
        g.running() <= plan.limit + usize::from(leftover.is_some()),
        format_args!("{} permits are in use, of {}", g.running(), plan.limit),
    );
    step("waiting for tasks that reserve permits");
    let after_wait = match (leftover, plan.leftover) {
        (Some(permit), Leftover::AfterClose) => {
            // Before that, tasks could not start others any more.
            until_ended(world, &starters).await;
            g.close();
            permit.go(Body::new(world.make(false), Box::pin(async { Ok(()) })));
            None
        }
        (leftover, _) => leftover,
    };
    let ended = outcome(g.wait_all()).await;
    check_wait_all(ended, world);
    let records = world.records();
    check(
        records.iter().all(|record| record.fate == Fate::Ok),
        format_args!("a task has not run that had a permit: {records:?}"),
    );
    if let Some(permit) = after_wait {
        let guard = world.make(false);
        world.tell(guard.id(), Told::Caller);
        // It is dropped here: to be polled after the wait is a failure.
        permit.go(Body::new(guard, Box::pin(async { Ok(()) })));
        world.returned("the last permit");
    }
}

/// Waits until these bodies have ended.
async fn until_ended(world: &World, ids: &[Id]) {
    while ids.iter().any(|id| world.fate(*id) == Fate::Made) {
        pause(Pause::Sleep(std::time::Duration::from_micros(100))).await;
    }
}

async fn reserves(rounds: Vec<Round>, stage: Stage) -> Result<(), ()> {
    let (spawner, world) = (stage.spawner.clone(), stage.world.clone());
    let Some(spawner) = spawner else {
        return Err(());
    };
    for round in rounds {
        // With the permit of its own, or with the reserved one, it runs.
        let running = Running::enter(&world);
        pause(round.keeps).await;
        drop(running);
        let Ok(permit) = spawner.reserve().await else {
            fail(format_args!("a group that is live has no permit"));
        };
        tally().reserved.add(1);
        let running = Running::enter(&world);
        pause(round.keeps).await;
        let started = (round.used != RoundUse::Dropped).then(|| {
            let guard = world.make(false).with_permit();
            let inner = async move {
                pause(round.time).await;
                Ok(())
            };
            Body::new(guard, Box::pin(inner))
        });
        let handle = match (round.used, started) {
            (RoundUse::Spawn, Some(body)) => Some(permit.spawn(Valued(body))),
            (_, Some(body)) => {
                permit.go(body);
                None
            }
            (_, None) => {
                drop(permit);
                None
            }
        };
        // From the end of this poll on, it waits for a permit.
        drop(running);
        tokio::task::yield_now().await;
        if let Some(handle) = handle {
            let value = handle.await;
            check(value.is_ok(), format_args!("a task with a permit failed"));
        }
    }
    Ok(())
}

/// Counts among the bodies that run.
struct Running<'a>(&'a World);

impl Running<'_> {
    fn enter(world: &World) -> Running<'_> {
        world.enter();
        Running(world)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}
