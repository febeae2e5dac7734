//! Groups and scopes: how they are filled, disturbed and ended, and the checks of their results.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use errgroup::{
    Admission, Context, Errors, Group, Spawner, TaskBuilder, TaskErrorKind, TaskHandle,
};
use futures::future::{Either, select};

use crate::plan::{Awaits, End, Ending, GroupPlan, Meddle, Pause, Script, TaskPlan, Way};
use crate::script::{Payload, Stage, block, outcome, pause, perform, unless_dropped};
use crate::watch::{boom, check, fail, step, tally};
use crate::world::{Body, DropMark, Fate, Fault, Guard, Id, Record, Token, Told, Valued, World};

/// The object on which tasks are started.
pub(crate) enum Starter<'a> {
    Group(&'a Group<Fault>),
    Spawner(&'a Spawner<Fault>),
    TaskBuilder(TaskBuilder<Fault>),
}

/// What starting a task gives.
pub(crate) struct Started {
    id: Id,
    awaits: Awaits,
    what: What,
}

enum What {
    Nothing,
    Admission(Admission),
    Handle(TaskHandle<Token>),
    Start(Pin<Box<dyn Future<Output = Result<Token, Fault>> + Send>>),
}

fn body(guard: Guard, script: Script, stage: Stage) -> Body {
    Body::new(guard, perform(script, stage))
}

/// Starts a task in its way; as a local one only where that can be.
pub(crate) fn start(on: Starter<'_>, task: TaskPlan, stage: &Stage, local: bool) -> Started {
    tally().tasks.add(1);
    let TaskPlan {
        way,
        named,
        awaits,
        script,
        ..
    } = task;
    let on = match on {
        Starter::Group(g) if named => Starter::TaskBuilder(g.named("named")),
        Starter::Spawner(spawner) if named => Starter::TaskBuilder(spawner.named("named")),
        on => on,
    };
    let guard = stage.world.make(script.trap);
    let (id, stage) = (guard.id(), stage.clone());
    macro_rules! start {
        ($on:expr) => {
            match way {
                Way::Local if local => {
                    tally().local.add(1);
                    What::Admission($on.go_local(body(guard, script, stage)))
                }
                Way::Go | Way::Local => What::Admission($on.go(body(guard, script, stage))),
                Way::GoWith => What::Admission(
                    $on.go_with(move |ctx| body(guard, script, Stage { ctx, ..stage })),
                ),
                Way::GoCancellable => {
                    What::Admission($on.go_cancellable(body(guard, script, stage)))
                }
                Way::TryGo => {
                    if let Err(refused) = $on.try_go(body(guard, script, stage)) {
                        refused.into_inner().handed_back();
                    }
                    What::Nothing
                }
                Way::Blocking => {
                    tally().blocking.add(1);
                    let guard = guard.for_the_pool();
                    What::Admission($on.go_blocking(move |ctx| block(&script, guard, &ctx)))
                }
                Way::Spawn => What::Handle($on.spawn(Valued(body(guard, script, stage)))),
                Way::Start => {
                    // Until the call has returned, it may be dropped, and with it the failure.
                    stage.world.tell(id, Told::Perhaps);
                    What::Start(Box::pin($on.start(move |_, ready| {
                        let token = guard.token();
                        let inner = perform(script, stage);
                        let inner = Box::pin(async move {
                            pause(Pause::Yields(id % 3)).await;
                            if id % 4 > 0 {
                                ready.ok(token);
                            }
                            inner.await
                        });
                        Body::new(guard, inner)
                    })))
                }
            }
        };
    }
    let what = match on {
        Starter::Group(g) => start!(g),
        Starter::Spawner(spawner) => start!(spawner),
        Starter::TaskBuilder(named) => start!(named),
    };
    Started { id, awaits, what }
}

impl Started {
    /// Awaits what is to be awaited. Hands back a handle that was not.
    pub(crate) async fn resolve(self, stage: &Stage) -> Option<(TaskHandle<Token>, Id)> {
        let Started { id, awaits, what } = self;
        match what {
            What::Nothing => None,
            What::Admission(admission) => {
                let _ = awaited(admission, awaits).await;
                None
            }
            What::Handle(mut handle) => {
                if let Some(value) = awaited(&mut handle, awaits).await {
                    check_value(value.as_ref().ok(), id, &stage.world);
                    return None;
                }
                Some((handle, id))
            }
            What::Start(call) => {
                match awaited(call, awaits).await {
                    None => {}
                    Some(Ok(value)) => {
                        check(value.id == id, format_args!("start gave another's value"));
                        stage.world.tell(id, Told::No);
                    }
                    Some(Err(error)) => {
                        if let Fault::Own(other) = error {
                            check(other == id, format_args!("start gave another's error"));
                        }
                        stage.world.tell(id, Told::Caller);
                    }
                }
                None
            }
        }
    }
}

async fn awaited<F: Future + Unpin>(future: F, awaits: Awaits) -> Option<F::Output> {
    match awaits {
        Awaits::Nothing => None,
        Awaits::ToTheEnd => Some(future.await),
        Awaits::Abandons(when) => match select(future, Box::pin(pause(when))).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        },
    }
}

fn check_value(value: Option<&Token>, id: Id, world: &World) {
    let fate = world.fate(id);
    check(
        value.is_some() == (fate == Fate::Ok) && value.is_none_or(|value| value.id == id),
        format_args!(
            "the handle of task {id} gave {:?}, but it is {fate:?}",
            value.map(|value| value.id)
        ),
    );
}

fn new_group(
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
    if plan.may_abort() {
        world.may_abort();
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
    end(g, plan.ending, handles, &world).await
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
                Meddle::Go => {
                    tally().tasks.add(1);
                    g.go(body(
                        stage.world.make(false),
                        Script::default(),
                        stage.clone(),
                    ));
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
    if plan.may_abort() {
        world.may_abort();
    }
    let dropped = match plan.ending {
        Ending::WaitDropped(when) => Some(when),
        _ => None,
    };
    step("running the scope");
    let scope = Group::scope(ctx, {
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
    });
    match unless_dropped(scope, dropped).await {
        Some(ended) => {
            let panic = check_wait(ended, &world, "a scope");
            world.holds(0, "a scope");
            panic
        }
        None => {
            world.dropped().await;
            None
        }
    }
}

/// Whether the group must have reported it.
fn is_the_groups(record: &Record, fate: Fate) -> bool {
    record.fate == fate && (record.told == Told::No || fate == Fate::Panicked)
}

/// The first error, or the first panic, of those that there were.
pub(crate) fn check_wait(
    ended: thread::Result<Result<(), Fault>>,
    world: &World,
    what: &str,
) -> Option<Payload> {
    step("checking what wait gave");
    world.returned(what);
    let records = world.records();
    let there_is = |fate| records.iter().any(|record| is_the_groups(record, fate));
    let holds = match &ended {
        Err(payload) => {
            let boom = boom(&**payload);
            world.owns(boom) && records[boom.id].fate == Fate::Panicked
        }
        Ok(_) if there_is(Fate::Panicked) => false,
        Ok(Err(Fault::Own(id))) => {
            records[*id].fate == Fate::Failed && records[*id].told != Told::Caller
        }
        Ok(Err(Fault::Context(_))) => records.iter().any(|record| record.fate == Fate::Unfinished),
        Ok(Ok(())) => !there_is(Fate::Failed) && !there_is(Fate::Unfinished),
    };
    check(
        holds,
        format_args!(
            "{what} gave {:?}, where the bodies ended so: {records:?}",
            ended.as_ref().ok()
        ),
    );
    ended.err()
}

/// Every failure once, every panic once, and as many aborted as there were.
pub(crate) fn check_wait_all(
    ended: thread::Result<Result<(), Errors<Fault>>>,
    world: &World,
) -> Option<Payload> {
    step("checking what wait_all gave");
    world.returned("wait_all");
    let records = world.records();
    let Ok(ended) = ended else {
        fail(format_args!("wait_all panicked"));
    };
    let (mut seen, mut aborted) = (vec![0; records.len()], 0);
    for error in ended.err().into_iter().flatten() {
        match error.into_kind() {
            TaskErrorKind::Failed(Fault::Own(id)) => {
                seen[id] += 1;
                let record = records[id];
                let failed = record.fate == Fate::Failed && record.told != Told::Caller;
                check(
                    failed,
                    format_args!("wait_all says that {id} failed: {record:?}"),
                );
            }
            TaskErrorKind::Panicked(panic) => {
                let boom = boom(&*panic.into_payload());
                seen[boom.id] += 1;
                let panicked = world.owns(boom) && records[boom.id].fate == Fate::Panicked;
                check(
                    panicked,
                    format_args!("wait_all says that {} panicked", boom.id),
                );
            }
            TaskErrorKind::Aborted(_) => aborted += 1,
            TaskErrorKind::Failed(Fault::Context(error)) => {
                fail(format_args!("wait_all lists a failure of no task: {error}"));
            }
        }
    }
    let mut unfinished = (0, 0);
    for (id, record) in records.iter().enumerate() {
        let must = is_the_groups(record, Fate::Failed) || is_the_groups(record, Fate::Panicked);
        let seen = seen[id];
        check(
            seen <= 1 && (seen == 1 || !must),
            format_args!("wait_all has body {id} {seen} times: {record:?}"),
        );
        if record.fate == Fate::Unfinished && record.told != Told::Caller {
            unfinished.0 += usize::from(record.told == Told::No);
            unfinished.1 += 1;
        }
    }
    check(
        (unfinished.0..=unfinished.1).contains(&aborted),
        format_args!(
            "wait_all says that {aborted} were aborted, where it was {unfinished:?}: {records:?}"
        ),
    );
    None
}
