//! Fan-outs and hedges: all terminal operations, on the runtime and on the caller's task, from
//! iterators and streams, and the checks of their results.

use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use errgroup::{Context, Errors, FanOut, Progress, TaskErrorKind};
use futures::{Stream, StreamExt};

use crate::plan::{FanOutEnd, FanOutPlan, HedgePlan, Pause, Script};
use crate::script::{Payload, Stage, outcome, pause, perform, unless_dropped};
use crate::shutdown;
use crate::watch::{boom, check, fail, step, tally};
use crate::world::{Body, DropMark, Fate, Fault, Guard, Token, Valued, World};

type Made = Box<dyn FnMut(Context, (Guard, Script)) -> Valued + Send>;

/// What an end gave.
pub(crate) enum Got {
    All(Result<Vec<Token>, Fault>),
    ForEach(Result<(), Fault>),
    Settled(Vec<Result<Token, Fault>>),
    /// `whole`: the consumer saw its end.
    Streamed {
        outcomes: Vec<Result<Token, Fault>>,
        whole: bool,
    },
    First(Result<Token, Errors<Fault>>),
    Quorum(Result<Vec<Token>, Errors<Fault>>),
}

type Ended = Pin<Box<dyn Future<Output = Got> + Send>>;

/// How the end is wanted.
#[derive(Clone, Copy)]
struct Wanted {
    end: FanOutEnd,
    local: bool,
    takes: usize,
    consumer: Pause,
}

fn begin<S, P>(fan_out: FanOut<S, Made, P>, wanted: Wanted) -> Ended
where
    S: Stream<Item = (Guard, Script)> + Send + 'static,
    P: FnMut(Progress) + Send + 'static,
{
    macro_rules! end {
        ($fan_out:expr) => {
            match wanted.end {
                FanOutEnd::All => {
                    let all = $fan_out.all();
                    Box::pin(async { Got::All(all.await) })
                }
                FanOutEnd::ForEach => {
                    let all = $fan_out.for_each();
                    Box::pin(async { Got::ForEach(all.await) })
                }
                FanOutEnd::Settle => {
                    let all = $fan_out.settle();
                    Box::pin(async { Got::Settled(all.await) })
                }
                FanOutEnd::TryStream => Box::pin(consume($fan_out.try_stream(), wanted)),
                FanOutEnd::Stream => Box::pin(consume($fan_out.stream(), wanted)),
                FanOutEnd::OrderedStream => Box::pin(consume($fan_out.ordered_stream(), wanted)),
                FanOutEnd::FirstOk => {
                    let first = $fan_out.first_ok();
                    Box::pin(async { Got::First(first.await) })
                }
                FanOutEnd::Quorum(k) => {
                    let quorum = $fan_out.quorum(k);
                    Box::pin(async { Got::Quorum(quorum.await) })
                }
            }
        };
    }
    match wanted.local {
        true => end!(fan_out.local()),
        false => end!(fan_out),
    }
}

async fn consume<S>(mut stream: S, wanted: Wanted) -> Got
where
    S: Stream<Item = Result<Token, Fault>> + Unpin,
{
    let mut outcomes = Vec::new();
    while outcomes.len() < wanted.takes {
        let Some(next) = stream.next().await else {
            return Got::Streamed {
                outcomes,
                whole: true,
            };
        };
        outcomes.push(next);
        pause(wanted.consumer).await;
    }
    Got::Streamed {
        outcomes,
        whole: false,
    }
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
        consumer: plan.consumer,
    };
    let count = plan.items.len();
    let f: Made = {
        let (world, f_panics) = (world.clone(), plan.f_panics);
        Box::new(move |ctx, (guard, script)| {
            if f_panics == Some(guard.id()) {
                guard.panic();
            }
            item(guard, script, ctx, &world, single)
        })
    };
    let pulled = world.clone();
    let items = plan.items.into_iter().map(move |script| {
        tally().items.add(1);
        (pulled.make(script.trap), script)
    });
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
            fan_out
        }};
    }
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
    if let Ok(Got::Streamed { whole: false, .. }) = ended {
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
            Ok(Got::Streamed { whole: false, .. }) => {
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

/// `clean`: nothing but the items decided the result, so it is certain.
fn verdict(
    ended: thread::Result<Got>,
    world: &World,
    end: FanOutEnd,
    count: usize,
    clean: bool,
) -> Option<Payload> {
    step("checking what a fan-out gave");
    world.returned("a fan-out");
    let records = world.records();
    let of = |fate| {
        records
            .iter()
            .filter(move |record| record.fate == fate)
            .count()
    };
    let (succeeded, failed, panicked) = (of(Fate::Ok), of(Fate::Failed), of(Fate::Panicked));
    let wrong = |what: &str| -> ! {
        fail(format_args!("{end:?} of {count} items {what}: {records:?}"));
    };
    let got = match ended {
        Ok(got) => got,
        Err(payload) => {
            let boom = boom(&*payload);
            if !world.owns(boom) || records[boom.id].fate != Fate::Panicked {
                wrong("gave a panic of no item");
            }
            world.holds(0, "a panic");
            return Some(payload);
        }
    };
    if panicked > 0 {
        wrong("hides a panic");
    }
    let (values, errors) = flatten(got, count, clean, succeeded, failed, &|what| wrong(what));
    world.holds(values.len(), "a fan-out");
    let mut seen = vec![0; records.len()];
    for value in &values {
        seen[value.id] += 1;
        if records[value.id].fate != Fate::Ok {
            wrong("gave the value of one that has none");
        }
    }
    for error in errors {
        if let Fault::Own(id) = error {
            seen[id] += 1;
            if records[id].fate != Fate::Failed {
                wrong("gave the error of one that has none");
            }
        }
    }
    if seen.iter().any(|times| *times > 1) {
        wrong("gave an outcome twice");
    }
    let ordered = matches!(
        end,
        FanOutEnd::All | FanOutEnd::Settle | FanOutEnd::OrderedStream
    );
    if ordered && !values.is_sorted_by_key(|value| value.id) {
        wrong("is out of order");
    }
    None
}

/// The values and the errors, if there are as many as there should be.
fn flatten(
    got: Got,
    count: usize,
    clean: bool,
    succeeded: usize,
    failed: usize,
    wrong: &dyn Fn(&str),
) -> (Vec<Token>, Vec<Fault>) {
    let expect = |holds: bool, what: &str| {
        if clean && !holds {
            wrong(what);
        }
    };
    match got {
        Got::All(Ok(values)) => {
            // Also where the context ended, just after the last.
            if values.len() != count {
                wrong("was Ok, and a value is missing");
            }
            (values, Vec::new())
        }
        Got::All(Err(error)) => {
            expect(failed > 0, "failed without a failure");
            (Vec::new(), vec![error])
        }
        Got::ForEach(Ok(())) => {
            if succeeded != count {
                wrong("was Ok without all");
            }
            (Vec::new(), Vec::new())
        }
        Got::ForEach(Err(error)) => {
            expect(failed > 0, "failed without a failure");
            (Vec::new(), vec![error])
        }
        Got::Settled(outcomes) => {
            expect(succeeded + failed == count, "has not run all");
            expect(outcomes.len() == count, "has not settled all");
            split(outcomes)
        }
        Got::Streamed { outcomes, .. } => {
            let (values, errors) = split(outcomes);
            if succeeded + failed == count && values.len() + errors.len() < count.min(succeeded) {
                wrong("lost an outcome");
            }
            (values, errors)
        }
        Got::First(Ok(value)) => (vec![value], Vec::new()),
        Got::First(Err(errors)) => {
            expect(succeeded == 0 && failed == count, "failed too early");
            (Vec::new(), own(errors))
        }
        Got::Quorum(Ok(values)) => (values, Vec::new()),
        Got::Quorum(Err(errors)) => (Vec::new(), own(errors)),
    }
}

fn split(outcomes: Vec<Result<Token, Fault>>) -> (Vec<Token>, Vec<Fault>) {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    (values, errors)
}

fn own(errors: Errors<Fault>) -> Vec<Fault> {
    let kinds = errors.into_iter().map(errgroup::TaskError::into_kind);
    let failed = kinds.filter_map(|kind| match kind {
        TaskErrorKind::Failed(error) => Some(error),
        _ => None,
    });
    failed.collect()
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
