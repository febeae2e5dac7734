//! tokio's cooperative budget: futures that are ready at once yield, too, so that a loop around
//! them can be stopped.
//!
//! The tests use one thread, where a loop that does not yield keeps everything else from running.
//! Each loop here ends by itself, far too late, so that a defect fails and does not hang.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use errgroup::{Context, Ready, Spawner};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::task::coop;

use crate::group_support::*;

/// More rounds than any budget has units.
const ROUNDS: usize = 20_000;

async fn ok() -> Result<(), String> {
    Ok(())
}

/// Asserts that a loop around `round` can be aborted and that a timeout around it works.
#[track_caller]
fn assert_yields<F>(round: impl Fn() -> F + Clone + Send + 'static)
where
    F: Future + Send + 'static,
{
    let looped = move || {
        let round = round.clone();
        async move {
            for _ in 0..ROUNDS {
                round().await;
            }
        }
    };
    current_thread().block_on(async {
        let aborted = tokio::spawn(looped());
        yields(2).await;
        aborted.abort();
        assert!(
            aborted.await.unwrap_err().is_cancelled(),
            "it did not yield"
        );

        let timed = tokio::spawn(tokio::time::timeout(Duration::from_secs(1), looped()));
        yields(2).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(timed.await.unwrap().is_err(), "the timeout had no effect");
    });
}

/// A spawner of a group that is cancelled, and one of a group that was dropped.
fn spawners() -> [Spawner<String>; 2] {
    let (ended, _ctx) = group();
    ended.cancel();
    let spawner = ended.spawner();
    // The group stays alive: its tasks are refused because its context is done.
    std::mem::forget(ended);
    [spawner, group().0.spawner()]
}

#[test]
fn a_loop_of_admissions_yields() {
    for spawner in spawners() {
        assert_yields(move || spawner.go(ok()));
    }
    let (g, _ctx) = group();
    let spawner = g.spawner();
    assert_yields(move || spawner.go(ok()));
}

#[test]
fn a_loop_of_handles_yields() {
    for spawner in spawners() {
        assert_yields(move || spawner.spawn(async { Ok(1) }));
    }
}

#[test]
fn a_loop_of_starts_yields() {
    for spawner in spawners() {
        assert_yields(move || spawner.start(|_, _: Ready<()>| ok()));
    }
}

#[test]
fn a_loop_of_waits_yields() {
    assert_yields(|| G::new().wait());
    assert_yields(|| group().0.wait_all());
}

#[test]
fn a_loop_of_scopes_yields() {
    assert_yields(|| G::scope(&Context::background(), async |_, _| OK));
    assert_yields(|| {
        G::scope(&Context::background(), async |_, _| {
            Err::<(), _>("no".to_owned())
        })
    });
}

#[tokio::test(start_paused = true)]
async fn a_grace_period_stops_a_loop_that_swallows_the_end() {
    let (g, _ctx) = group();
    g.set_grace(Duration::from_secs(1));
    let spawner = g.spawner();
    g.go(async move {
        for _ in 0..ROUNDS {
            spawner.go(ok()).await;
        }
        Ok(())
    });
    yields(2).await;
    g.cancel();
    let waits = tokio::spawn(async move { g.wait_all().await });
    yields(2).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    // Each round that was refused is a failure.
    let errors = waits.await.unwrap().unwrap_err();
    let rounds = errors.len() + errors.omitted();
    assert!(rounds < ROUNDS, "it was not stopped");
}

/// Uses up what is left of the task's budget.
fn spend(cx: &mut std::task::Context<'_>) {
    while let Poll::Ready(budget) = coop::poll_proceed(cx) {
        budget.made_progress();
    }
}

both_flavours![
    a_task_that_awaits_more_handles_than_its_budget_misses_none,
    a_task_without_budget_does_not_lend_for_something_else,
    an_admission_whose_poll_had_no_budget_lends_at_the_next,
];

async fn a_task_that_awaits_more_handles_than_its_budget_misses_none() {
    for unordered in [false, true] {
        let (g, gauge) = (limited(1), Gauge::default());
        let (spawner, inner) = (g.spawner(), gauge.clone());
        let sum = g.spawn(async move {
            let handles = (0..1_000).map(|number| {
                let gauge = inner.clone();
                spawner.spawn(async move {
                    let _alive = gauge.enter();
                    tokio::task::yield_now().await;
                    Ok(number)
                })
            });
            let values: Vec<Result<usize, _>> = match unordered {
                true => handles.collect::<FuturesUnordered<_>>().collect().await,
                false => futures::future::join_all(handles).await,
            };
            let _alive = inner.enter();
            Ok(values.into_iter().flatten().sum::<usize>())
        });
        assert_eq!(g.wait().await, OK);
        assert_eq!((sum.take(), gauge.most()), (Some(499_500), 1));
    }
}

async fn a_task_without_budget_does_not_lend_for_something_else() {
    let (g, log) = (limited(1), Log::new());
    let (spawner, logs) = (g.spawner(), log.clone());
    g.go(async move {
        let (ran, runs, behind) = (Count::default(), logs.clone(), logs.clone());
        let counted = ran.clone();
        let mut first = spawner.go(async move {
            runs.add("the first runs");
            counted.add();
            Ok(())
        });
        let mut second = spawner.go(async move {
            behind.add("the second runs");
            Ok(())
        });
        let mut is_spent = false;
        poll_fn(|cx| {
            if ran.get() == 1 && !std::mem::replace(&mut is_spent, true) {
                spend(cx);
            }
            assert!(Pin::new(&mut second).poll(cx).is_pending());
            Pin::new(&mut first).poll(cx)
        })
        .await;
        assert!(is_spent);
        logs.add("the task goes on");
        second.await;
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
    let expected = ["the first runs", "the task goes on", "the second runs"];
    assert_eq!(log.get(), expected);
}

async fn an_admission_whose_poll_had_no_budget_lends_at_the_next() {
    let g = limited(1);
    let spawner = g.spawner();
    g.go(async move {
        let mut admission = spawner.go(ok());
        let mut is_spent = false;
        let admitted = poll_fn(|cx| {
            if !std::mem::replace(&mut is_spent, true) {
                spend(cx);
            }
            Pin::new(&mut admission).poll(cx)
        });
        assert!(admitted.await.is_started());
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
}
