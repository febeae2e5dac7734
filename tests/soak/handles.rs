//! Handles of tasks: awaited, stopped, and checked.

use errgroup::{Context, ContextError, TaskHandle};

use crate::body::{Body, Valued};
use crate::exact;
use crate::plan::{Awaits, Pause, Stop, Way};
use crate::random::Random;
use crate::record::{Fate, Record, Told};
use crate::script::{Stage, outcome, pause};
use crate::starting::awaited;
use crate::verdict::check_wait_all;
use crate::watch::{check, fail, step, tally};
use crate::world::{Fault, Id, Token, World};

/// Stops the task of a handle, and awaits the handle, if it is to. Hands it back if it was not
/// awaited to the end.
pub(crate) async fn settle(
    mut handle: TaskHandle<Token>,
    id: Id,
    stops: Option<(Pause, Stop)>,
    awaits: Awaits,
    stage: &Stage,
) -> Option<(TaskHandle<Token>, Id)> {
    if let Some((when, how)) = stops {
        pause(when).await;
        stop(&handle, id, how, stage);
    }
    let Some(value) = awaited(&mut handle, awaits).await else {
        return Some((handle, id));
    };
    let how = stops.map(|(_, how)| how);
    if let (Some(how), Err(error)) = (how, &value) {
        check_reason(error, how, id, &stage.world);
    }
    check_value(value.as_ref().ok(), id, &stage.world);
    None
}

fn stop(handle: &TaskHandle<Token>, id: Id, how: Stop, stage: &Stage) {
    tally().stops.add(1);
    let world = &stage.world;
    if !handle.is_finished() {
        // On one thread, what has not ended now ends because of this, or at least after it.
        let record = world.record(id);
        let certain = stage.single && record.fate == Fate::Made && !record.waits_for_thread;
        let told = if certain { Told::Caller } else { Told::Perhaps };
        world.tell(id, told);
    }
    match how {
        Stop::Cancel => handle.cancel(),
        Stop::CancelWith => handle.cancel_with("stopped by its handle"),
        Stop::Abort => handle.abort(),
    }
}

/// The error of a handle that has stopped its task says so.
fn check_reason(error: &ContextError, how: Stop, id: Id, world: &World) {
    let record = world.record(id);
    if record.told != Told::Caller || record.fate == Fate::Panicked {
        return;
    }
    let cause = error.cause().map(|cause| cause.to_string());
    let expected = match how {
        Stop::Cancel => None,
        Stop::CancelWith => Some("stopped by its handle"),
        Stop::Abort => Some("the task was aborted through its handle"),
    };
    check(
        error.is_cancelled() && cause.as_deref() == expected,
        format_args!("the handle of task {id} gave {error}, with the cause {cause:?}: {record:?}"),
    );
}

/// What a handle gives is what its task has returned. A task that was stopped may have lost that.
pub(crate) fn check_value(value: Option<&Token>, id: Id, world: &World) {
    let record = world.record(id);
    let is_right = match value {
        Some(value) => value.id == id && record.fate == Fate::Ok,
        None => record.fate != Fate::Ok || record.told != Told::No,
    };
    check(
        is_right,
        format_args!(
            "the handle of task {id} gave {:?}, but it is {record:?}",
            value.map(|value| value.id)
        ),
    );
}

/// Tasks that end only when their handles stop them, and workers beside them.
pub(crate) struct StopsPlan {
    limit: Option<usize>,
    victims: Vec<(Way, Pause, Stop)>,
    workers: Vec<Pause>,
}

impl Random {
    pub(crate) fn stops(&mut self) -> StopsPlan {
        StopsPlan {
            limit: self.limit(),
            victims: (0..1 + self.below(6))
                .map(|_| {
                    let way = [Way::Spawn, Way::SpawnWith, Way::SpawnBlocking][self.below(3)];
                    let stop = [Stop::Cancel, Stop::CancelWith, Stop::Abort][self.below(3)];
                    (way, self.pause(), stop)
                })
                .collect(),
            workers: (0..self.below(6)).map(|_| self.pause()).collect(),
        }
    }
}

/// A task that is stopped stops no other task, and is no failure.
pub(crate) async fn run(plan: StopsPlan, single: bool) {
    let (g, stage) = exact::new_group(false, plan.limit, single);
    let world = &stage.world;
    let mut victims = Vec::new();
    for (way, when, how) in plan.victims {
        let guard = world.make(false).with_permit();
        let id = guard.id();
        // Nothing else ends it, so it has not failed when its handle stops it.
        world.tell(id, Told::Caller);
        let waits = move |ctx: Context| {
            let inner = async move {
                ctx.done().await;
                check_own_cause(&ctx, how);
                Err(())
            };
            Box::pin(inner)
        };
        let handle = match way {
            Way::SpawnWith => g.spawn_with(move |ctx| Valued(Body::new(guard, waits(ctx)))),
            Way::SpawnBlocking => {
                let mut guard = guard.for_the_pool();
                g.spawn_blocking(move |ctx| {
                    guard.polled_on_the_pool();
                    while !ctx.is_done() {
                        std::thread::sleep(std::time::Duration::from_micros(50));
                    }
                    check_own_cause(&ctx, how);
                    guard.end(Fate::Failed);
                    Err(Fault::Own(guard.id()))
                })
            }
            _ => g.spawn(Valued(Body::new(guard, waits(Context::background())))),
        };
        victims.push((handle, id, when, how));
    }
    for time in plan.workers {
        let guard = world.make(false).with_permit();
        let inner = async move {
            pause(time).await;
            Ok(())
        };
        g.go(Body::new(guard, Box::pin(inner)));
    }
    step("stopping tasks through their handles");
    for (mut handle, id, when, how) in victims {
        pause(when).await;
        tally().stops.add(1);
        match how {
            Stop::Cancel => handle.cancel(),
            Stop::CancelWith => handle.cancel_with("stopped by its handle"),
            Stop::Abort => handle.abort(),
        }
        match (&mut handle).await {
            Ok(_) => fail(format_args!("task {id} was stopped, and has a value")),
            Err(error) => check_reason(&error, how, id, world),
        }
        check(
            handle.is_finished() && !stage.ctx.is_done(),
            format_args!("task {id} was stopped, and the group is, too"),
        );
    }
    let ended = outcome(g.wait_all()).await;
    let failed = matches!(ended, Ok(Err(_)));
    check_wait_all(ended, world);
    let records = world.records();
    let unfinished = |record: &Record| record.fate == Fate::Unfinished && record.told == Told::No;
    check(
        !failed && !records.iter().any(unfinished),
        format_args!("a stop through a handle has hit another task: {records:?}"),
    );
}

/// The context of the task's own has the cause of the stop.
fn check_own_cause(ctx: &Context, how: Stop) {
    let cause = ctx.cause().map(|cause| cause.to_string());
    let expected = match how {
        Stop::Cancel => "context cancelled",
        Stop::CancelWith => "stopped by its handle",
        Stop::Abort => "the task was aborted through its handle",
    };
    check(
        cause.as_deref() == Some(expected),
        format_args!("a task was stopped by {how:?}, and the cause is {cause:?}"),
    );
}
