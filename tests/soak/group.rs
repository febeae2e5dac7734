//! Groups and scopes: how they are filled, disturbed and ended.

use std::sync::Arc;
use std::thread;

use errgroup::{Context, Group, TaskHandle};

use crate::ends;
use crate::handles::check_value;
use crate::plan::{End, Ending, GroupPlan, Meddle, Script, TaskPlan};
use crate::policy::{self, check_cause};
use crate::record::Fate;
use crate::script::{Payload, Stage, outcome, pause, unless_dropped};
use crate::starting::{Makes, Starter, start};
use crate::verdict::{check_wait, check_wait_all};
use crate::watch::{check, fail, step, tally};
use crate::world::{DropMark, Fault, Id, Token, World};

impl GroupPlan {
    /// Tells its world what may happen.
    pub(crate) fn note_in(&self, world: &World) {
        world.limited(self.most());
        if self.may_abort() {
            world.may_abort();
        }
        if self.aborts() {
            world.may_lose_cleanup();
        }
    }
}

pub(crate) fn new_group(
    plan: &GroupPlan,
    ctx: &Context,
    world: &Arc<World>,
    single: bool,
) -> (Group<Fault>, Stage) {
    tally().groups.add(1);
    let g = match plan.zero {
        true => Group::new(),
        false => Group::with_context(ctx).0,
    };
    g.set_limit(plan.limit);
    g.set_grace(plan.grace);
    plan.note_in(world);
    if plan.cause_with {
        policy::set_cause_with(&g, world);
    }
    let stage = Stage {
        ctx: g.context(),
        spawner: Some(g.spawner()),
        world: world.clone(),
        single,
    };
    (g, stage)
}

async fn fill(
    g: &Group<Fault>,
    tasks: Vec<TaskPlan>,
    stage: &Stage,
    local: bool,
) -> Vec<(TaskHandle<Token>, Id)> {
    let mut handles = Vec::new();
    for task in tasks {
        let on = match &stage.spawner {
            Some(spawner) if task.by_spawner => Starter::Spawner(spawner),
            _ => Starter::Group(g),
        };
        let started = start(on, task, stage, local);
        handles.extend(started.resolve(stage).await);
    }
    handles
}

/// A group inside a task.
pub(crate) async fn run(plan: GroupPlan, ctx: &Context, single: bool) -> Option<Payload> {
    let world = World::new(single);
    // Declared first, dropped last.
    let _mark = DropMark(world.clone());
    let (g, stage) = new_group(&plan, ctx, &world, single);
    let handles = Box::pin(fill(&g, plan.tasks, &stage, false)).await;
    pause(plan.before_the_end).await;
    end(g, plan.ending, handles, &world).await
}

/// A group in the scenario itself, with local tasks, and a task that disturbs it.
pub(crate) async fn run_here(plan: GroupPlan, ctx: &Context, single: bool) -> Option<Payload> {
    let world = World::new(single);
    let (g, stage) = new_group(&plan, ctx, &world, single);
    let g = Arc::new(g);
    let meddler = meddle(&g, plan.meddling, &stage);
    step("starting the group's tasks");
    let handles = fill(&g, plan.tasks, &stage, true).await;
    pause(plan.before_the_end).await;
    step("waiting for the meddler");
    if let Some(meddler) = meddler {
        while !meddler.is_finished() {
            tokio::task::yield_now().await;
        }
        meddler.join().unwrap();
    }
    let Some(g) = Arc::into_inner(g) else {
        fail(format_args!("another owner still holds the group"));
    };
    if let Some(awaits) = plan.idle {
        ends::idle(&g, awaits, &world).await;
    }
    let (ctx, zero) = (g.context(), plan.zero);
    let panic = end(g, plan.ending, handles, &world).await;
    check_cause(&ctx, zero, &world.records());
    panic
}

fn meddle(
    g: &Arc<Group<Fault>>,
    meddling: Vec<Meddle>,
    stage: &Stage,
) -> Option<thread::JoinHandle<()>> {
    if meddling.is_empty() {
        return None;
    }
    tally().meddlers.add(1);
    let (g, stage) = (g.clone(), stage.clone());
    let runtime = tokio::runtime::Handle::current();
    Some(thread::spawn(move || {
        let _entered = runtime.enter();
        for meddle in meddling {
            match meddle {
                Meddle::Limit(limit) => g.set_limit(limit),
                Meddle::Grace(grace) => g.set_grace(grace),
                Meddle::Sleep(time) => thread::sleep(time),
                Meddle::Cancel => g.cancel_with("cancelled by the meddler"),
                Meddle::Abort => g.abort(),
                Meddle::Close => g.close(),
                Meddle::Go => {
                    tally().tasks.add(1);
                    let guard = stage.world.make(false).with_permit();
                    g.go(Makes::new(false).body(guard, Script::default(), stage.clone()));
                }
            }
        }
    }))
}

async fn end(
    g: Group<Fault>,
    ending: Ending,
    handles: Vec<(TaskHandle<Token>, Id)>,
    world: &Arc<World>,
) -> Option<Payload> {
    let panic = match ending {
        Ending::Wait => check_wait(outcome(g.wait()).await, world, "wait"),
        Ending::WaitAll => check_wait_all(outcome(g.wait_all()).await, world),
        Ending::Aborted => {
            g.abort();
            check_wait_all(outcome(g.wait_all()).await, world)
        }
        Ending::CloseAndWait(callers, dropped) => {
            ends::close_and_wait(&g, callers, dropped, world).await
        }
        Ending::Drain(budget) => {
            let report = g.drain(budget).await;
            // A closure that still runs has the value of its handle.
            drop(handles);
            ends::check_drained(&report.phases()[0], world, None).await;
            return None;
        }
        Ending::WaitDropped(when) => match unless_dropped(g.wait(), Some(when)).await {
            Some(ended) => check_wait(ended, world, "wait"),
            None => {
                drop(handles);
                world.dropped().await;
                return None;
            }
        },
        Ending::Dropped => {
            drop(g);
            drop(handles);
            world.dropped().await;
            return None;
        }
    };
    for (handle, id) in &handles {
        check(
            handle.is_finished(),
            format_args!("the group has ended, and its task {id} has not"),
        );
        check_value(handle.take().as_ref(), *id, world);
    }
    drop(handles);
    world.holds(0, "a wait");
    panic
}

/// A scope in the scenario itself.
pub(crate) async fn run_scope(plan: GroupPlan, ctx: &Context, single: bool) -> Option<Payload> {
    tally().groups.add(1);
    let world = World::new(single);
    plan.note_in(&world);
    let dropped = match plan.ending {
        Ending::WaitDropped(when) => Some(when),
        _ => None,
    };
    step("running the scope");
    let all = plan.all;
    let body = {
        let world = world.clone();
        async move |g: &Group<Fault>, ctx| {
            let guard = world.make(false);
            g.set_limit(plan.limit);
            g.set_grace(plan.grace);
            let stage = Stage {
                ctx,
                spawner: Some(g.spawner()),
                world: world.clone(),
                single,
            };
            let handles = fill(g, plan.tasks, &stage, true).await;
            pause(plan.before_the_end).await;
            drop(handles);
            match plan.body {
                End::Fail => {
                    guard.end(Fate::Failed);
                    Err(Fault::Own(guard.id()))
                }
                End::Panic => guard.panic(),
                _ => {
                    guard.end(Fate::Ok);
                    Ok(())
                }
            }
        }
    };
    let panic = if all {
        let ended = unless_dropped(Group::scope_all(ctx, body), dropped).await;
        ended.map(|ended| check_wait_all(ended, &world))
    } else {
        let ended = unless_dropped(Group::scope(ctx, body), dropped).await;
        ended.map(|ended| check_wait(ended, &world, "a scope"))
    };
    match panic {
        Some(panic) => {
            world.holds(0, "a scope");
            panic
        }
        None => {
            world.dropped().await;
            None
        }
    }
}
