//! Ordinary programs: jobs that compute, tasks that swallow their cancellation, calls of `start`
//! that lose a race, and a pipeline that gets bursts. Nothing in them is injected but failures.

use std::collections::BTreeSet;
use std::future::Future;
use std::hint::spin_loop;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use errgroup::{Context, Group, fan_out, fan_out_stream};
use futures::future::{Either, join_all, select};
use futures::{Stream, StreamExt, poll, stream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;

use crate::body::{Body, Valued};
use crate::ordinary_plan::{
    BurstPlan, CallPlan, ComputePlan, Form, Leaves, OrdinaryPlan, OutcomeOrder, PollOrder,
    StartEnd, StartsPlan, Stop, SwallowEnd, SwallowPlan, Trigger,
};
use crate::plan::Pause;
use crate::record::{Fate, Told};
use crate::script::{Payload, outcome, pause, unless_dropped};
use crate::verdict::check_wait_all;
use crate::watch::{check, fail, step, tally};
use crate::world::{Fault, Guard, Id, Token, World};

pub(crate) async fn run(plan: OrdinaryPlan, ctx: &Context, single: bool) -> Option<Payload> {
    let world = World::new(single);
    match plan {
        OrdinaryPlan::Compute(plan) => compute(plan, ctx, single, &world).await,
        OrdinaryPlan::Swallow(plan) => swallow(plan, ctx, &world).await,
        OrdinaryPlan::Starts(plan) => starts(plan, ctx, &world).await,
        OrdinaryPlan::Bursts(plan) => {
            bursts(plan, ctx, &world).await;
            None
        }
    }
}

fn new_group(ctx: &Context) -> Group<Fault> {
    tally().groups.add(1);
    Group::with_context(ctx).0
}

/// The most jobs that one poll of a worker may end: one that it resumes, and two more until it
/// finds that the first one it has timed took too long.
const MOST_IN_ONE_POLL: usize = 3;

/// Jobs that compute beside a task that only yields. On one thread, that task gets its turns.
async fn compute(
    plan: ComputePlan,
    ctx: &Context,
    single: bool,
    world: &Arc<World>,
) -> Option<Payload> {
    tally().computing.add(1);
    let ended = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let heartbeat = tokio::spawn(beat(ended.clone(), over.clone()));
    // So that the first turn comes before the first job.
    yield_now().await;
    let ComputePlan {
        jobs,
        job,
        yields_each,
        ..
    } = plan;
    let body = move |guard: Guard| {
        let (ended, yields) = (ended.clone(), guard.id() % yields_each == 0);
        let inner = async move {
            if yields {
                yield_now().await;
            }
            spin(job);
            ended.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        Body::new(guard, Box::pin(inner))
    };
    step("computing beside a heartbeat");
    let panic = match plan.form {
        Form::Group => {
            let g = new_group(ctx);
            g.set_limit(plan.limit);
            tally().tasks.add(jobs);
            for _ in 0..jobs {
                g.go(body(world.make(false)));
            }
            check_wait_all(outcome(g.wait_all()).await, world)
        }
        Form::FanOut => {
            tally().fan_outs.add(1);
            let items = (0..jobs).map({
                let world = world.clone();
                move |_| {
                    tally().items.add(1);
                    world.make(false)
                }
            });
            let f = move |_, guard| Valued(body(guard));
            let ended = fan_out(ctx, items, f).limit(plan.limit).for_each().await;
            world.returned("a fan-out");
            check(
                ended.is_ok() || ctx.is_done(),
                format_args!("a fan-out of jobs that succeed gave {ended:?}"),
            );
            None
        }
    };
    over.store(true, Ordering::SeqCst);
    step("waiting for the heartbeat");
    let most = heartbeat.await.unwrap();
    let allowed = 4 + MOST_IN_ONE_POLL * plan.limit;
    check(
        !single || most <= allowed,
        format_args!(
            "{most} of {jobs} jobs of {job:?} ended between two turns of the heartbeat, where at \
             most {allowed} may, with a limit of {}",
            plan.limit
        ),
    );
    world.holds(0, "a computing program");
    panic
}

/// Yields until it is over, and returns the most jobs that ended between two turns.
async fn beat(ended: Arc<AtomicUsize>, over: Arc<AtomicBool>) -> usize {
    let (mut most, mut last) = (0, ended.load(Ordering::SeqCst));
    while !over.load(Ordering::SeqCst) {
        yield_now().await;
        let now = ended.load(Ordering::SeqCst);
        most = most.max(now - last);
        last = now;
    }
    most
}

fn spin(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        spin_loop();
    }
}

/// Tasks that loop around calls which fail at once when the context is done, and go on all the
/// same. If a loop does not yield, then nothing stops it, and the watchdog reports the scenario.
async fn swallow(plan: SwallowPlan, ctx: &Context, world: &Arc<World>) -> Option<Payload> {
    tally().swallowing.add(1);
    let g = new_group(ctx);
    g.set_limit(plan.limit);
    if let SwallowEnd::Grace(grace) = plan.end {
        g.set_grace(grace);
    }
    if plan.trigger == Trigger::Failure {
        tally().tasks.add(1);
        // It goes first, so that it starts under every limit.
        let inner = async move {
            pause(plan.before).await;
            Err(())
        };
        g.go(Body::new(world.make(false), Box::pin(inner)));
    }
    let flag = Arc::new(AtomicBool::new(false));
    tally().tasks.add(plan.tasks);
    for number in 0..plan.tasks {
        let (guard, flag) = (world.make(false), flag.clone());
        let task = move |ctx| Body::new(guard, Box::pin(swallowing(ctx, flag, plan.nap, number)));
        match number % 3 {
            0 => g.go(task(g.context())),
            1 => g.go_with(task),
            _ => g.go_local(task(g.context())),
        };
    }
    pause(plan.before).await;
    if plan.trigger == Trigger::Cancel {
        g.cancel_with("cancelled by its program");
    }
    step("ending a group whose tasks swallow their cancellation");
    let ended = match plan.end {
        SwallowEnd::Grace(_) => outcome(g.wait_all()).await,
        SwallowEnd::Abort(when) => {
            pause(when).await;
            g.abort();
            outcome(g.wait_all()).await
        }
        SwallowEnd::Flag(when) => {
            // Until then, this task needs its turns.
            g.context().done().await;
            pause(when).await;
            flag.store(true, Ordering::SeqCst);
            outcome(g.wait_all()).await
        }
        SwallowEnd::WaitDropped(when) => match unless_dropped(g.wait_all(), Some(when)).await {
            Some(ended) => ended,
            None => {
                world.dropped().await;
                return None;
            }
        },
    };
    let panic = check_wait_all(ended, world);
    world.holds(0, "wait_all");
    panic
}

async fn swallowing(
    ctx: Context,
    flag: Arc<AtomicBool>,
    nap: Duration,
    number: usize,
) -> Result<(), ()> {
    while !flag.load(Ordering::SeqCst) {
        match number % 2 {
            0 => ctx.run(yield_now()).await.ok(),
            _ => ctx.run(tokio::time::sleep(nap)).await.ok(),
        };
        ctx.sleep(nap).await.ok();
    }
    Ok(())
}

type StartCall = Pin<Box<dyn Future<Output = Result<Token, Fault>> + Send>>;

/// Calls of `start` that race with something else. No failure is lost: the call returns it or
/// `wait_all` does, and never both.
async fn starts(plan: StartsPlan, ctx: &Context, world: &Arc<World>) -> Option<Payload> {
    tally().racing.add(1);
    let g = new_group(ctx);
    g.set_limit(plan.limit);
    step("racing calls of start");
    let races = plan.calls.into_iter().map(|call| race(call, &g, world));
    let cancel = async {
        if let Some(when) = plan.cancel {
            pause(when).await;
            g.cancel_with("cancelled by its program");
        }
    };
    let (left, ()) = futures::join!(join_all(races), cancel);
    let (mut polled, mut kept) = (Vec::new(), Vec::new());
    for (id, call, leaves) in left.into_iter().flatten() {
        match leaves {
            Leaves::Dropped => drop(call),
            Leaves::PolledBesideTheWait => polled.push(async move { (id, call.await) }),
            Leaves::PolledAfterTheWait => kept.push((id, call)),
        }
    }
    step("waiting beside calls of start");
    let (ended, answers) = futures::join!(outcome(g.wait_all()), join_all(polled));
    for (id, answer) in answers {
        // What was aborted may be in the answer of either.
        told(world, id, answer, Told::Perhaps);
    }
    let panic = check_wait_all(ended, world);
    step("polling calls of start after the wait");
    for (id, call) in kept {
        if let Err(Fault::Own(_)) = call.await {
            fail(format_args!(
                "a call of start gave the failure of task {id} after the wait"
            ));
        }
    }
    world.holds(0, "wait_all");
    panic
}

/// Hands back a call that has lost its race, unless it is dropped then.
async fn race(
    plan: CallPlan,
    g: &Group<Fault>,
    world: &Arc<World>,
) -> Option<(Id, StartCall, Leaves)> {
    tally().tasks.add(1);
    tally().races.add(1);
    let guard = world.make(false);
    let id = guard.id();
    let (signal, signalled) = oneshot::channel();
    let mut call: StartCall = Box::pin(g.start(move |_, ready| {
        let token = guard.token();
        let inner = async move {
            pause(Pause::Yields(plan.before)).await;
            if plan.end.is_ready() {
                ready.ok(token);
            }
            // Now, so that what stops the call is ready in the same turn as the call.
            let _ = signal.send(());
            pause(Pause::Yields(plan.after)).await;
            match plan.end {
                StartEnd::FailsBefore | StartEnd::FailsAfter => Err(()),
                StartEnd::Serves | StartEnd::Silent => Ok(()),
            }
        };
        Body::new(guard, Box::pin(inner))
    }));
    // A call that was never polled has started nothing.
    if let std::task::Poll::Ready(answer) = poll!(&mut call) {
        told(world, id, answer, Told::Caller);
        return None;
    }
    let stop = Box::pin(async {
        match plan.stop {
            Stop::Turns(turns) => pause(Pause::Yields(turns)).await,
            // An error: the task will never start.
            Stop::Signal => drop(signalled.await),
        }
    });
    let answer = match plan.order {
        PollOrder::CallFirst => match select(&mut call, stop).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        },
        PollOrder::StopFirst => match select(stop, &mut call).await {
            Either::Left(_) => None,
            Either::Right((answer, _)) => Some(answer),
        },
    };
    match answer {
        Some(answer) => {
            told(world, id, answer, Told::Caller);
            None
        }
        None => {
            tally().races_lost.add(1);
            // Where it is dropped, that is in this turn.
            (plan.leaves != Leaves::Dropped).then_some((id, call, plan.leaves))
        }
    }
}

/// Notes what a call returned. Its own failure is not the group's; any other error of a task that
/// failed means that the group has the failure.
fn told(world: &World, id: Id, answer: Result<Token, Fault>, aborted: Told) {
    match answer {
        Ok(value) => check(
            value.id == id,
            format_args!("start gave the value of another task"),
        ),
        Err(Fault::Own(other)) => {
            check(
                other == id,
                format_args!("start gave the error of another task"),
            );
            world.tell(id, Told::Caller);
        }
        Err(Fault::Context(_)) if world.fate(id) == Fate::Failed => {}
        Err(Fault::Context(_)) => world.tell(id, aborted),
    }
}

/// The most tasks that a stage without a limit has while it waits for items: the one that waits,
/// and 32 that stay for what it brings.
const MOST_IDLE: usize = 33;

type Outcomes = Pin<Box<dyn Stream<Item = Result<Token, Fault>> + Send>>;

/// Two chained fan-outs without a limit that get their items in bursts.
async fn bursts(plan: BurstPlan, ctx: &Context, world: &Arc<World>) {
    tally().pipelines.add(1);
    tally().fan_outs.add(2);
    let before = Handle::current().metrics().num_alive_tasks();
    let (send, mut receive) = mpsc::unbounded_channel::<Guard>();
    let items = stream::poll_fn(move |cx| receive.poll_recv(cx));
    let [first, second] = plan.pauses;
    macro_rules! ordered {
        ($order:expr, $fan_out:expr) => {
            match $order {
                OutcomeOrder::Completion => Box::pin($fan_out.stream()) as Outcomes,
                OutcomeOrder::Items => Box::pin($fan_out.ordered_stream()) as Outcomes,
            }
        };
    }
    let stage = fan_out_stream(ctx, items, move |_, guard| {
        let inner = async move {
            pause(first).await;
            Ok(())
        };
        Valued(Body::new(guard, Box::pin(inner)))
    });
    let stage = ordered!(plan.orders[0], stage);
    let stage = fan_out_stream(ctx, stage, move |_, item| async move {
        pause(second).await;
        item
    });
    let mut outcomes = ordered!(plan.orders[1], stage);
    for burst in plan.bursts {
        tally().items.add(2 * burst);
        step("sending a burst into a pipeline");
        let mut missing = BTreeSet::new();
        for _ in 0..burst {
            let guard = world.make(false);
            missing.insert(guard.id());
            check(
                send.send(guard).is_ok(),
                format_args!("a pipeline dropped its items"),
            );
        }
        step("waiting for the outcomes of a burst");
        while !missing.is_empty() {
            match outcomes.next().await {
                Some(Ok(value)) if missing.remove(&value.id) => {}
                Some(Ok(value)) => fail(format_args!("item {} came unexpectedly", value.id)),
                Some(Err(error)) => fail(format_args!("a pipeline gave {error:?}")),
                None => fail(format_args!("a pipeline ended without {missing:?}")),
            }
        }
        step("waiting until the workers of a burst have ended");
        until_few_tasks(before + 2 * MOST_IDLE + 2, burst).await;
    }
    drop(send);
    if plan.dropped {
        drop(outcomes);
        world.dropped().await;
        return;
    }
    step("waiting for the end of a pipeline");
    if outcomes.next().await.is_some() {
        fail(format_args!("a pipeline gave more than it got"));
    }
    drop(outcomes);
    world.returned("a pipeline");
    world.holds(0, "a pipeline");
}

/// Far more polls than it takes until surplus workers have exited. Half of them are sleeps.
const MOST_TURNS: usize = 20_000;

async fn until_few_tasks(most: usize, burst: usize) {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    for turn in 0..MOST_TURNS {
        if tasks() <= most {
            return;
        }
        match turn % 2 {
            0 => yield_now().await,
            _ => tokio::time::sleep(Duration::from_micros(200)).await,
        }
    }
    fail(format_args!(
        "{} tasks stay after a burst of {burst} items, where at most {most} may",
        tasks()
    ));
}
