//! Random mixes of tasks on two workers, some thousand rounds each. A round that hangs fails after
//! a timeout.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;

use errgroup::{Context, Spawner, fetch_all};
use futures::FutureExt;
use futures::future::{Either, select};

use crate::group_support::*;

const ROUNDS: usize = 2_000;

/// What a random task does, drawn before it runs.
#[derive(Clone, Copy)]
struct Task {
    yields: usize,
    children: usize,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Ok,
    Fail,
    Panic,
    WaitForTheContext,
    Abandon,
}

fn task(random: &mut Random, troubles: bool) -> Task {
    Task {
        yields: random.below(4),
        children: random.below(3),
        end: match random.below(if troubles { 16 } else { 1 }) {
            12 => End::Fail,
            13 => End::Panic,
            14 => End::WaitForTheContext,
            15 => End::Abandon,
            _ => End::Ok,
        },
    }
}

type Boxed = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

fn run(task: Task, spawner: Spawner<String>, ctx: Context, probe: Probe, depth: usize) -> Boxed {
    Box::pin(probe.clone().wrap(async move {
        yields(task.yields).await;
        for child in 0..if depth > 0 { task.children } else { 0 } {
            let next = Task {
                yields: child,
                ..task
            };
            let next = run(next, spawner.clone(), ctx.clone(), probe.clone(), depth - 1);
            let admission = spawner.go(next);
            match (task.end, child) {
                (End::Abandon, 0) => _ = select(admission, Box::pin(yields(1))).await,
                (End::Abandon, _) => drop(admission),
                _ => _ = admission.await,
            }
        }
        match task.end {
            End::Ok | End::Abandon => Ok(()),
            End::Fail => Err("failed".to_owned()),
            End::Panic => resume_unwind(Box::new("panicked")),
            End::WaitForTheContext => Err(ctx.done().await.to_string()),
        }
    }))
}

/// What a future ends with, its panic too.
async fn outcome<F: Future>(future: F) -> std::thread::Result<F::Output> {
    AssertUnwindSafe(future).catch_unwind().await
}

/// Fails with a message, and the seed, where a round hangs.
fn rounds<F: Future<Output = ()>>(mut round: impl FnMut(&mut Random) -> F) {
    let mut random = Random::new();
    let runtime = two_workers();
    for number in 0..ROUNDS {
        let round = round(&mut random);
        let watched = async {
            let ended = tokio::time::timeout(PATIENCE, round).await;
            assert!(ended.is_ok(), "round {number} hangs");
        };
        runtime.block_on(watched);
    }
}

fn fill(g: &G, random: &mut Random, troubles: bool) -> Probe {
    let probe = Probe::default();
    g.set_limit(1 + random.below(4));
    for _ in 0..1 + random.below(10) {
        let task = task(random, troubles);
        let depth = random.below(4);
        g.go(run(task, g.spawner(), g.context(), probe.clone(), depth));
    }
    probe
}

#[test]
fn nested_tasks_all_end() {
    rounds(|random| {
        let mut random = random.fork();
        async move {
            let (g, _ctx) = group();
            let probe = fill(&g, &mut random, false);
            assert_eq!(g.wait().await, OK);
            probe.assert_all_dropped();
        }
    });
}

#[test]
fn failures_panics_and_dropped_admissions_leave_nothing() {
    rounds(|random| {
        let mut random = random.fork();
        async move {
            let (g, ctx) = group();
            let probe = fill(&g, &mut random, true);
            yields(random.below(100)).await;
            // A task that waits for the context needs another one that cancels it.
            g.cancel();
            let _ = outcome(g.wait()).await;
            assert!(ctx.is_done());
            probe.assert_all_dropped();
        }
    });
}

#[test]
fn cancels_aborts_drops_and_limits_at_random_leave_nothing() {
    rounds(|random| {
        let mut random = random.fork();
        async move {
            let (g, _ctx) = group();
            let probe = fill(&g, &mut random, true);
            let g = Arc::new(g);
            let meddler = tokio::spawn({
                let (g, mut random) = (g.clone(), random.fork());
                async move {
                    for _ in 0..random.below(6) {
                        g.set_limit(random.below(4));
                        yields(random.below(4)).await;
                    }
                    g.set_limit(1);
                    match random.below(3) {
                        0 => g.cancel(),
                        1 => g.abort(),
                        _ => {}
                    }
                }
            });
            yields(random.below(20)).await;
            let dropped = random.below(3) == 0;
            meddler.await.unwrap();
            let g = Arc::into_inner(g).unwrap();
            if dropped {
                drop(g);
                until(|| probe.dropped() == probe.made()).await;
                return;
            }
            g.cancel();
            let _ = outcome(g.wait()).await;
            probe.assert_all_dropped();
        }
    });
}

#[test]
fn a_wait_dropped_at_a_random_moment_leaves_nothing() {
    rounds(|random| {
        let mut random = random.fork();
        async move {
            let (g, ctx) = group();
            let probe = fill(&g, &mut random, false);
            let wait = Box::pin(g.wait());
            let moment = Box::pin(yields(random.below(20)));
            drop(select(wait, moment).await);
            assert!(ctx.is_done());
            until(|| probe.dropped() == probe.made()).await;
        }
    });
}

#[test]
fn fan_outs_that_fail_panic_or_are_dropped_leave_nothing_behind() {
    rounds(|random| {
        let mut random = random.fork();
        async move {
            let probe = Probe::default();
            let (limit, items) = (1 + random.below(5), random.below(30));
            let (fails, panics) = (random.below(60), random.below(60));
            let wraps = probe.clone();
            let all = fetch_all(&Context::background(), limit, 0..items, move |_, item| {
                wraps.wrap(async move {
                    yields(item % 3).await;
                    match item {
                        _ if item == panics => resume_unwind(Box::new("panicked")),
                        _ if item == fails => Err("failed".to_owned()),
                        _ => Ok(item),
                    }
                })
            });
            let all = Box::pin(outcome(all));
            let moment = Box::pin(yields(random.below(40)));
            match select(all, moment).await {
                Either::Left((all, _)) => {
                    let first = fails.min(panics);
                    match all {
                        Ok(Ok(all)) => assert!(first >= items && all.into_iter().eq(0..items)),
                        Ok(Err(error)) => assert!(fails < items && error == "failed"),
                        Err(payload) => {
                            assert_eq!(payload.downcast_ref(), Some(&"panicked"));
                            assert!(panics < items);
                        }
                    }
                    probe.assert_all_dropped();
                }
                Either::Right((_, all)) => {
                    drop(all);
                    until(|| probe.dropped() == probe.made()).await;
                }
            }
        }
    });
}

#[test]
fn spawners_that_race_with_the_end_of_wait_lose_nothing() {
    rounds(|random| {
        let turns = random.below(10);
        async move {
            let (g, _ctx) = group();
            let (spawner, probe) = (g.spawner(), Probe::default());
            let racer = tokio::spawn({
                let probe = probe.clone();
                async move {
                    for _ in 0..10 {
                        spawner.go(probe.wrap(async {
                            tokio::task::yield_now().await;
                            Ok(())
                        }));
                        tokio::task::yield_now().await;
                    }
                }
            });
            yields(turns).await;
            let _ = g.wait().await;
            racer.await.unwrap();
            probe.assert_all_dropped();
        }
    });
}
