//! Fan-outs and hedges: all terminal operations, on the runtime, on the caller's task and on the
//! blocking pool, from iterators and streams.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use errgroup::fan_out::Stop;
use errgroup::{Context, FanOut, LimitHandle, Outcomes, Progress};
use futures::{Stream, StreamExt};

use crate::body::{Body, Valued};
use crate::outcomes::{Got, StreamEnd, verdict};
use crate::plan::{FanOutEnd, FanOutPlan, HedgePlan, Pause, Script};
use crate::script::{Payload, Stage, block_for, outcome, pause, perform, unless_dropped};
use crate::shutdown;
use crate::watch::{check, step, tally};
use crate::world::{DropMark, Fault, Guard, Token, World};

type Made = Box<dyn FnMut(Context, (Guard, Script)) -> Valued + Send>;

type Ended = Pin<Box<dyn Future<Output = Got> + Send>>;

/// How the end is wanted.
#[derive(Clone, Copy)]
struct Wanted {
    end: FanOutEnd,
    local: bool,
    takes: usize,
    stops: bool,
    consumer: Pause,
}

macro_rules! end {
    ($fan_out:expr, $wanted:expr) => {{
        let (fan_out, wanted) = ($fan_out, $wanted);
        let ended: Ended = match wanted.end {
            FanOutEnd::All => {
                let all = fan_out.all();
                Box::pin(async { Got::All(all.await) })
            }
            FanOutEnd::ForEach => {
                let all = fan_out.for_each();
                Box::pin(async { Got::ForEach(all.await) })
            }
            FanOutEnd::Settle => {
                let all = fan_out.settle();
                Box::pin(async { Got::Settled(all.await) })
            }
            FanOutEnd::TryStream => Box::pin(consume(fan_out.try_stream(), wanted)),
            FanOutEnd::Stream => Box::pin(consume(fan_out.stream(), wanted)),
            FanOutEnd::OrderedStream => Box::pin(consume(fan_out.ordered_stream(), wanted)),
            FanOutEnd::IndexedStream => Box::pin(consume(fan_out.indexed_stream(), wanted)),
            FanOutEnd::FirstOk => {
                let first = fan_out.first_ok();
                Box::pin(async { Got::First(first.await) })
            }
            FanOutEnd::Quorum(k) => {
                let quorum = fan_out.quorum(k);
                Box::pin(async { Got::Quorum(quorum.await) })
            }
        };
        ended
    }};
}

fn begin<S, P>(fan_out: FanOut<S, Made, P>, wanted: Wanted) -> Ended
where
    S: Stream<Item = (Guard, Script)> + Send + 'static,
    P: FnMut(Progress) + Send + 'static,
{
    match wanted.local {
        true => end!(fan_out.local(), wanted),
        false => end!(fan_out, wanted),
    }
}

/// What a stream yields.
trait Outcome {
    fn result(self) -> Result<Token, Fault>;
}

impl Outcome for Result<Token, Fault> {
    fn result(self) -> Result<Token, Fault> {
        self
    }
}

/// With its position, which is the number of its body.
impl Outcome for (usize, Result<Token, Fault>) {
    fn result(self) -> Result<Token, Fault> {
        let id = match &self.1 {
            Ok(value) => value.id,
            Err(Fault::Own(id)) => *id,
            Err(Fault::Context(_)) => self.0,
        };
        check(
            id == self.0,
            format_args!("an outcome of item {id} came as that of {}", self.0),
        );
        self.1
    }
}

async fn consume<S>(mut stream: Outcomes<S>, wanted: Wanted) -> Got
where
    S: Stop<Item: Outcome>,
{
    let (mut outcomes, mut end) = (Vec::new(), StreamEnd::Left);
    while outcomes.len() < wanted.takes {
        let Some(next) = stream.next().await else {
            end = StreamEnd::Whole;
            break;
        };
        outcomes.push(next.result());
        pause(wanted.consumer).await;
    }
    if wanted.stops {
        tally().stopped.add(1);
        stream.stop().await;
        if end == StreamEnd::Left {
            end = StreamEnd::Stopped;
        }
    }
    Got::Streamed { outcomes, end }
}

/// The future of an item, or of an attempt.
fn item(guard: Guard, script: Script, ctx: Context, world: &Arc<World>, single: bool) -> Valued {
    let stage = Stage {
        ctx,
        spawner: None,
        world: world.clone(),
        single,
    };
    Valued(Body::new(guard, perform(script, stage)))
}

/// One that is about to run.
pub(crate) struct Prepared {
    pub(crate) world: Arc<World>,
    count: usize,
    end: FanOutEnd,
    pub(crate) call: Ended,
}

pub(crate) fn prepare(plan: FanOutPlan, ctx: &Context, single: bool) -> Prepared {
    tally().fan_outs.add(1);
    let world = World::new(single);
    let wanted = Wanted {
        end: plan.end,
        local: plan.local,
        takes: plan.takes,
        stops: plan.stops,
        consumer: plan.consumer,
    };
    let count = plan.items.len();
    let most = plan.limits.iter().copied().chain([plan.limit]);
    world.limited(most.reduce(|one, other| Some(one?.max(other?))).flatten());
    let f_panics = plan.f_panics;
    let pulled = world.clone();
    let items = plan.items.into_iter().map(move |script| {
        tally().items.add(1);
        (pulled.make(script.trap).with_permit(), script)
    });
    // Set when the fan-out has it.
    let steers: Steers = Arc::default();
    let limits = plan.limits;
    macro_rules! options {
        ($fan_out:expr) => {{
            let mut fan_out = $fan_out;
            if let Some(limit) = plan.limit {
                fan_out = fan_out.limit(limit);
            }
            if let Some(grace) = plan.grace {
                fan_out = fan_out.grace(grace);
            }
            if plan.named {
                fan_out = fan_out.named("named");
            }
            if !limits.is_empty() {
                let handle;
                (fan_out, handle) = fan_out.limit_handle();
                let _ = steers.set((handle, limits));
            }
            fan_out
        }};
    }
    if plan.blocking {
        let call = call_blocking(f_panics, &steers);
        let fan_out = options!(errgroup::fan_out_blocking(ctx, items, call));
        return Prepared {
            world,
            count,
            end: wanted.end,
            call: end!(fan_out, wanted),
        };
    }
    let f: Made = {
        let (world, steers) = (world.clone(), steers.clone());
        Box::new(move |ctx, (guard, script)| {
            if f_panics == Some(guard.id()) {
                guard.panic();
            }
            steer(&steers, guard.id());
            item(guard, script, ctx, &world, single)
        })
    };
    let call = if plan.from_stream {
        let items = futures::stream::iter(items).then(async |item| {
            if item.0.id() % 3 == 1 {
                tokio::task::yield_now().await;
            }
            item
        });
        let mut last = 0;
        let fan_out = options!(errgroup::fan_out_stream(ctx, Box::pin(items), f));
        let fan_out = fan_out.on_progress(move |progress: Progress| {
            let ended = progress.done + progress.failed;
            check(
                ended <= progress.started && last <= ended + progress.started,
                format_args!("progress goes back, or does not add up: {progress:?}"),
            );
            last = ended + progress.started;
        });
        begin(fan_out, wanted)
    } else {
        begin(options!(errgroup::fan_out(ctx, items, f)), wanted)
    };
    Prepared {
        world,
        count,
        end: wanted.end,
        call,
    }
}

type Steers = Arc<OnceLock<(LimitHandle, Vec<Option<usize>>)>>;

/// Changes the limit, if there is a handle. One time in four it is 0 for a while, so that no item
/// starts until another task raises it again.
fn steer(steers: &Steers, number: usize) {
    let Some((handle, limits)) = steers.get() else {
        return;
    };
    tally().steered.add(1);
    let limit = limits[number % limits.len()];
    if number % 4 != 3 {
        handle.set_limit(limit);
        return;
    }
    handle.set_limit(0);
    let steers = steers.clone();
    tokio::spawn(async move {
        tokio::task::yield_now().await;
        if let Some((handle, _)) = steers.get() {
            handle.set_limit(limit);
        }
    });
}

/// The function of a fan-out whose items run on the blocking pool.
fn call_blocking(
    f_panics: Option<usize>,
    steers: &Steers,
) -> impl Fn(Context, (Guard, Script)) -> Result<Token, Fault> + Send + Sync + 'static {
    let steers = steers.clone();
    move |ctx, (guard, script)| {
        tally().blocking_items.add(1);
        if f_panics == Some(guard.id()) {
            guard.panic();
        }
        steer(&steers, guard.id());
        block_for(&script, guard, &ctx)
    }
}

pub(crate) async fn run(plan: FanOutPlan, ctx: &Context, single: bool) -> Option<Payload> {
    let dropped = plan.dropped;
    let prepared = prepare(plan, ctx, single);
    let (count, end) = (prepared.count, prepared.end);
    let world = prepared.world;
    // Declared first, dropped last.
    let _mark = DropMark(world.clone());
    let Some(ended) = unless_dropped(prepared.call, dropped).await else {
        world.dropped().await;
        return None;
    };
    if let Ok(Got::Streamed {
        end: StreamEnd::Left,
        ..
    }) = ended
    {
        drop(ended);
        world.dropped().await;
        return None;
    }
    verdict(ended, &world, end, count, is_clean(ctx))
}

impl Prepared {
    /// Runs it to its end, and checks only that it ends.
    pub(crate) async fn into_its_end(self) {
        let ended = outcome(self.call).await;
        match ended {
            Ok(Got::Streamed {
                end: StreamEnd::Left,
                ..
            }) => {
                drop(ended);
                self.world.dropped().await;
            }
            ended => drop(verdict(ended, &self.world, self.end, self.count, false)),
        }
    }
}

fn is_clean(ctx: &Context) -> bool {
    !ctx.is_done() && !shutdown::expected()
}

pub(crate) async fn run_hedge(plan: HedgePlan, ctx: &Context, single: bool) -> Option<Payload> {
    tally().hedges.add(1);
    let world = World::new(single);
    let count = plan.attempts.len();
    let mut attempts = plan.attempts.into_iter();
    step("hedging");
    let hedge = errgroup::hedge(ctx, plan.delay, count, {
        let world = world.clone();
        move |ctx, attempt| {
            let script = attempts.next().unwrap_or_default();
            let guard = world.make(script.trap);
            check(
                guard.id() == attempt,
                format_args!("an attempt was left out"),
            );
            item(guard, script, ctx, &world, single)
        }
    });
    let Some(ended) = unless_dropped(hedge, plan.dropped).await else {
        world.dropped().await;
        return None;
    };
    let ended = ended.map(Got::First);
    verdict(ended, &world, FanOutEnd::FirstOk, count, is_clean(ctx))
}
