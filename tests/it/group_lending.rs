//! No deadlock at the limit: a task that awaits an admission lends its permit, and resumes when it
//! has a permit again.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use errgroup::Spawner;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::group_support::*;

both_flavours![
    tasks_that_await_nested_admissions_finish,
    the_limit_holds_throughout,
    a_task_that_awaits_the_admission_of_a_sibling_lends,
    a_lender_resumes_only_with_a_permit,
    lenders_are_served_before_queued_tasks,
    the_oldest_claim_is_served_first,
    the_claim_is_registered_when_the_admission_is_decided,
    two_admissions_in_one_join,
    many_admissions_in_futures_unordered,
    while_lent_no_branch_of_the_task_is_polled,
    a_task_that_gives_up_while_lent_resumes_with_the_next_permit,
    giving_up_while_claiming_resumes_with_the_next_permit,
    a_task_that_left_its_admission_to_another_keeps_its_permit,
    what_tokio_spawn_starts_lends_nothing,
    the_task_of_another_group_lends_nothing,
    a_lender_resumes_when_the_context_is_cancelled,
    a_lender_that_fails_while_lent_fails_with_the_next_permit,
    a_lender_that_ends_while_claiming_leaves_no_claim,
    a_lender_that_is_aborted_is_counted_once,
    a_lowered_limit_holds_lenders_back,
    many_claims_are_withdrawn_by_an_abort_without_a_search,
];

type Boxed = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

fn visit(spawner: Spawner<String>, depth: usize, visited: Count, gauge: Gauge) -> Boxed {
    Box::pin(async move {
        visited.add();
        for _ in 0..if depth > 0 { 2 } else { 0 } {
            let child = visit(spawner.clone(), depth - 1, visited.clone(), gauge.clone());
            assert!(spawner.go(child).await.is_started());
            let _alive = gauge.enter();
            tokio::task::yield_now().await;
        }
        Ok(())
    })
}

async fn tasks_that_await_nested_admissions_finish() {
    let (g, visited) = (limited(1), Count::default());
    g.go(visit(g.spawner(), 8, visited.clone(), Gauge::default()));
    assert_eq!(g.wait().await, OK);
    assert_eq!(visited.get(), 511);
}

async fn the_limit_holds_throughout() {
    for limit in 1..5 {
        let (g, visited, gauge) = (limited(limit), Count::default(), Gauge::default());
        g.go(visit(g.spawner(), 7, visited.clone(), gauge.clone()));
        assert_eq!(g.wait().await, OK);
        assert_eq!(visited.get(), 255);
        assert!(gauge.most() <= limit, "{} at limit {limit}", gauge.most());
    }
}

/// A task that starts these siblings in order, and then awaits the admission of the last.
fn starts_and_awaits<const N: usize>(g: &G, log: &Log, siblings: [Boxed; N]) -> Boxed {
    let (spawner, log) = (g.spawner(), log.clone());
    Box::pin(async move {
        let started = siblings.map(|sibling| spawner.go(sibling));
        let last = started.into_iter().next_back().unwrap();
        log.add("lends");
        last.await;
        log.add("goes on");
        Ok(())
    })
}

fn logs(log: &Log, entry: &'static str) -> Boxed {
    let log = log.clone();
    Box::pin(async move {
        log.add(entry);
        Ok(())
    })
}

/// Logs when it starts and when it ends, and passes the gate in between.
fn logs_around(log: &Log, gate: &Gate, starts: &'static str, ends: &'static str) -> Boxed {
    let (log, gate) = (log.clone(), gate.clone());
    Box::pin(async move {
        log.add(starts);
        gate.pass().await;
        log.add(ends);
        Ok(())
    })
}

async fn a_task_that_awaits_the_admission_of_a_sibling_lends() {
    let (g, log, gate) = (limited(1), Log::new(), Gate::new());
    let sibling = logs_around(&log, &gate, "sibling starts", "sibling ends");
    g.go(starts_and_awaits(&g, &log, [sibling]));
    until(|| log.len() == 2).await;
    assert_eq!(log.get(), ["lends", "sibling starts"]);
    assert_eq!((g.running(), g.queued()), (1, 0));
    gate.open();
    assert_eq!(g.wait().await, OK);
}

async fn a_lender_resumes_only_with_a_permit() {
    let (g, log, gate) = (limited(1), Log::new(), Gate::new());
    let sibling = logs_around(&log, &gate, "sibling starts", "sibling ends");
    g.go(starts_and_awaits(&g, &log, [sibling]));
    until(|| log.len() == 2).await;
    yields(100).await;
    assert_eq!(log.len(), 2, "it went on without a permit");
    gate.open();
    assert_eq!(g.wait().await, OK);
    let all = ["lends", "sibling starts", "sibling ends", "goes on"];
    assert_eq!(log.get(), all);
}

async fn lenders_are_served_before_queued_tasks() {
    let (g, log) = (limited(1), Log::new());
    let sibling = logs(&log, "sibling");
    g.go(starts_and_awaits(&g, &log, [sibling]));
    until(|| log.len() > 0).await;
    for _ in 0..3 {
        g.go(logs(&log, "queued"));
    }
    assert_eq!(g.wait().await, OK);
    let log = log.get();
    let at = |entry| log.iter().position(|&logged| logged == entry).unwrap();
    assert!(at("sibling") < at("goes on"));

    let (g, log, gate) = (limited(1), Log::new(), Gate::new());
    let sibling = logs_around(&log, &gate, "sibling starts", "sibling ends");
    g.go(starts_and_awaits(&g, &log, [sibling]));
    until(|| log.len() == 2).await;
    for _ in 0..3 {
        g.go(logs(&log, "queued"));
    }
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get()[2..4], ["sibling ends", "goes on"]);
}

async fn the_oldest_claim_is_served_first() {
    let (g, log) = (limited(2), Log::new());
    let [blocked, turn] = std::array::from_fn(|_| Gate::new());
    let siblings = [
        logs_around(&log, &blocked, "blocks one", "-"),
        logs_around(&log, &blocked, "blocks two", "-"),
        logs(&log, "never starts"),
    ];
    let (spawner, older) = (g.spawner(), log.clone());
    let begin = Gate::new();
    let both_have_permits = begin.clone();
    g.go(async move {
        both_have_permits.pass().await;
        let [.., never] = siblings.map(|sibling| spawner.go(sibling));
        never.await;
        older.add("older");
        Ok(())
    });
    let (spawner, younger, own_turn) = (g.spawner(), log.clone(), turn.clone());
    g.go(async move {
        own_turn.pass().await;
        spawner.go(async { unreachable!() }).await;
        younger.add("younger");
        Ok(())
    });
    begin.open();
    until(|| log.len() == 1).await;
    turn.open();
    until(|| log.len() == 2).await;
    assert_eq!((g.running(), g.queued()), (2, 2));
    g.cancel();
    blocked.let_one_through();
    until(|| log.get().contains(&"younger")).await;
    assert_eq!(log.get()[2..], ["-", "older", "younger"]);
    blocked.open();
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
}

async fn the_claim_is_registered_when_the_admission_is_decided() {
    for _ in 0..100 {
        let (g, log) = (limited(1), Log::new());
        // One worker runs all three in a row. When the awaited task ends, its starter has not been
        // polled yet.
        let (first, awaited) = (logs(&log, "first"), logs(&log, "awaited"));
        let starter = starts_and_awaits(&g, &log, [first, awaited]);
        let (spawner, queued) = (g.spawner(), logs(&log, "queued"));
        g.go(async move {
            let queue = async move {
                spawner.go(queued);
                OK
            };
            futures::future::try_join(starter, queue).await?;
            Ok(())
        });
        assert_eq!(g.wait().await, OK);
        let in_order = ["lends", "first", "awaited", "goes on", "queued"];
        assert_eq!(log.get(), in_order);
    }
}

async fn two_admissions_in_one_join() {
    let (g, log) = (limited(1), Log::new());
    let (spawner, one, two) = (g.spawner(), logs(&log, "one"), logs(&log, "two"));
    g.go(async move {
        let (one, two) = futures::join!(spawner.go(one), spawner.go(two));
        assert!(one.is_started() && two.is_started());
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get(), ["one", "two"]);
}

async fn many_admissions_in_futures_unordered() {
    for limit in 1..4 {
        let (g, ran) = (limited(limit), Count::default());
        for _ in 0..3 {
            let (spawner, ran) = (g.spawner(), ran.clone());
            g.go(async move {
                let start = |task: usize| {
                    let ran = ran.clone();
                    spawner.go(async move {
                        yields(task % 3).await;
                        ran.add();
                        Ok(())
                    })
                };
                let mut admissions: FuturesUnordered<_> = (0..50).map(start).collect();
                while let Some(admitted) = admissions.next().await {
                    assert!(admitted.is_started());
                }
                Ok(())
            });
        }
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 150);
    }
}

async fn while_lent_no_branch_of_the_task_is_polled() {
    let (g, log, gate, other) = (limited(1), Log::new(), Gate::new(), Gate::new());
    let sibling = logs_around(&log, &gate, "sibling starts", "sibling ends");
    let starter = starts_and_awaits(&g, &log, [sibling]);
    let branch = logs_around(&log, &other, "branch starts", "branch ends");
    g.go(async move {
        futures::future::try_join(starter, branch).await?;
        Ok(())
    });
    until(|| log.len() == 3).await;
    other.open();
    yields(100).await;
    assert_eq!((log.len(), g.running()), (3, 1));
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get()[3..], ["sibling ends", "goes on", "branch ends"]);
}

/// A task that starts two, gated, and awaits the admission of the second until `give_up` opens.
fn gives_up(g: &G, siblings: [Boxed; 2], give_up: &Gate, goes_on: &Gate, log: &Log) {
    let (spawner, log) = (g.spawner(), log.clone());
    let (give_up, goes_on) = (give_up.clone(), goes_on.clone());
    g.go(async move {
        let [_, second] = siblings.map(|sibling| spawner.go(sibling));
        tokio::select! {
            biased;
            _ = give_up.pass() => log.add("gave up"),
            _ = second => log.add("admitted"),
        }
        goes_on.pass().await;
        Ok(())
    });
}

async fn a_task_that_gives_up_while_lent_resumes_with_the_next_permit() {
    let (g, log) = (limited(1), Log::new());
    let [one, two, give_up, goes_on] = std::array::from_fn(|_| Gate::new());
    let siblings = [
        logs_around(&log, &one, "one starts", "one ends"),
        logs_around(&log, &two, "two starts", "two ends"),
    ];
    gives_up(&g, siblings, &give_up, &goes_on, &log);
    until(|| log.len() == 1).await;
    assert_eq!((g.running(), g.queued()), (1, 1));

    give_up.open();
    yields(50).await;
    assert_eq!(
        (log.len(), g.running()),
        (1, 1),
        "it went on without a permit"
    );

    one.open();
    until(|| log.len() == 3).await;
    assert_eq!(log.get(), ["one starts", "one ends", "gave up"]);
    yields(50).await;
    assert_eq!((g.running(), g.queued()), (1, 1));

    goes_on.open();
    two.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get()[3..], ["two starts", "two ends"]);
}

async fn giving_up_while_claiming_resumes_with_the_next_permit() {
    let (g, log) = (limited(1), Log::new());
    let [one, two, give_up, goes_on] = std::array::from_fn(|_| Gate::new());
    let siblings = [
        logs_around(&log, &one, "one starts", "one ends"),
        logs_around(&log, &two, "two starts", "two ends"),
    ];
    gives_up(&g, siblings, &give_up, &goes_on, &log);
    until(|| log.len() == 1).await;
    g.go(logs(&log, "queued"));
    one.open();
    until(|| log.get().contains(&"two starts")).await;
    give_up.open();
    yields(50).await;
    assert_eq!((log.len(), g.running()), (3, 1));

    two.open();
    until(|| log.get().contains(&"gave up")).await;
    yields(50).await;
    assert!(!log.get().contains(&"queued"), "its claim came later");

    goes_on.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get().last(), Some(&"queued"));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_an_admission_is_seen_with_the_next_permit() {
    let (g, log, gate) = (limited(1), Log::new(), Gate::new());
    let spawner = g.spawner();
    let first = logs_around(&log, &gate, "first starts", "first ends");
    let inner = log.clone();
    g.go(async move {
        spawner.go(first);
        let second = spawner.go(async { Ok(()) });
        let late = tokio::time::timeout(Duration::from_secs(1), second).await;
        assert!(late.is_err());
        inner.add("timed out");
        Ok(())
    });
    until(|| log.len() == 1).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    yields(50).await;
    assert_eq!((log.len(), g.running()), (1, 1));
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get(), ["first starts", "first ends", "timed out"]);
}

async fn a_task_that_left_its_admission_to_another_keeps_its_permit() {
    let (g, gate, blocked) = (limited(1), Gate::new(), Gate::new());
    let (spawner, gated, held) = (g.spawner(), gate.clone(), blocked.clone());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    g.go(async move {
        spawner.go(async move {
            held.pass().await;
            Ok(())
        });
        let mut admission = spawner.go(async { Ok(()) });
        assert!(futures::poll!(&mut admission).is_pending());
        sender.send(admission).unwrap();
        gated.pass().await;
        Ok(())
    });
    let mut admission = receiver.await.unwrap();
    assert!(futures::poll!(&mut admission).is_pending());
    yields(50).await;
    assert_eq!((g.running(), g.queued()), (1, 2));
    gate.open();
    until(|| g.queued() == 1).await;
    assert_eq!(g.running(), 1);
    blocked.open();
    assert!(admission.await.is_started());
    assert_eq!(g.wait().await, OK);
}

#[tokio::test(start_paused = true)]
async fn an_admission_polled_once_does_not_keep_its_task_from_lending() {
    let g = limited(1);
    let spawner = g.spawner();
    g.go(async move {
        let mut kept = spawner.go(async { Ok(()) });
        assert!(futures::poll!(&mut kept).is_pending());
        assert!(spawner.go(async { Ok(()) }).await.is_started());
        assert!(kept.await.is_started());
        assert!(spawner.go(async { Ok(()) }).await.is_started());
        Ok(())
    });
    assert_eq!(in_time(g.wait()).await, OK);
}

async fn what_tokio_spawn_starts_lends_nothing() {
    let (g, gate) = (limited(1), Gate::new());
    let (spawner, gated) = (g.spawner(), gate.clone());
    g.go(async move {
        let admission = spawner.go(async { Ok(()) });
        let elsewhere = tokio::spawn(admission);
        gated.pass().await;
        drop(elsewhere);
        Ok(())
    });
    until(|| g.queued() == 1).await;
    yields(100).await;
    assert_eq!((g.running(), g.queued()), (1, 1));
    gate.open();
    assert_eq!(g.wait().await, OK);
}

async fn the_task_of_another_group_lends_nothing() {
    let (g, other, gate) = (limited(1), limited(1), Gate::new());
    let gated = gate.clone();
    g.go(async move {
        gated.pass().await;
        Ok(())
    });
    let admission = g.go(async { Ok(()) });
    other.go(async move {
        assert!(admission.await.is_started());
        Ok(())
    });
    other.go(async { Ok(()) });
    yields(100).await;
    assert_eq!((other.running(), other.queued()), (1, 1));
    gate.open();
    assert_eq!(other.wait().await, OK);
    assert_eq!(g.wait().await, OK);
}

async fn a_lender_resumes_when_the_context_is_cancelled() {
    let (g, gate) = (limited(1), Gate::new());
    let (spawner, gated) = (g.spawner(), gate.clone());
    let inside = Count::default();
    let entered = inside.clone();
    g.go(async move {
        spawner.go(async move {
            entered.add();
            gated.pass().await;
            Ok(())
        });
        let never = spawner.go(async { Ok(()) });
        assert!(!never.await.is_started());
        Ok(())
    });
    until(|| inside.get() == 1 && g.queued() == 1).await;
    g.cancel();
    assert_eq!(g.queued(), 0);
    gate.open();
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
}

/// A task that awaits the admission of the second sibling, and fails when `fail` opens.
fn fails_while_it_awaits(g: &G, siblings: [Boxed; 2], fail: &Gate) -> Probe {
    let (spawner, fail, probe) = (g.spawner(), fail.clone(), Probe::default());
    g.go(probe.wrap(async move {
        let [_, second] = siblings.map(|sibling| spawner.go(sibling));
        let fails = async move {
            fail.pass().await;
            Err::<(), _>("failed".to_owned())
        };
        let admitted = async move { Ok(second.await) };
        futures::future::try_join(fails, admitted).await?;
        Ok(())
    }));
    probe
}

async fn a_lender_that_fails_while_lent_fails_with_the_next_permit() {
    let (g, log) = (G::new(), Log::new());
    g.set_limit(1);
    let [one, two, fail] = std::array::from_fn(|_| Gate::new());
    let siblings = [
        logs_around(&log, &one, "one starts", "one ends"),
        logs_around(&log, &two, "two starts", "two ends"),
    ];
    let lender = fails_while_it_awaits(&g, siblings, &fail);
    until(|| log.len() == 1).await;
    fail.open();
    yields(100).await;
    assert_eq!((lender.dropped(), g.running(), g.queued()), (0, 1, 1));
    one.open();
    until(|| log.len() == 3).await;
    assert_eq!(log.get(), ["one starts", "one ends", "two starts"]);
    assert_eq!((lender.dropped(), g.running(), g.queued()), (1, 1, 0));
    two.open();
    assert_eq!(g.wait().await.unwrap_err(), "failed");
}

async fn a_lender_that_ends_while_claiming_leaves_no_claim() {
    let (g, log) = (G::new(), Log::new());
    g.set_limit(1);
    let [one, two, fail] = std::array::from_fn(|_| Gate::new());
    let siblings = [
        logs_around(&log, &one, "one starts", "one ends"),
        logs_around(&log, &two, "two starts", "two ends"),
    ];
    let lender = fails_while_it_awaits(&g, siblings, &fail);
    until(|| log.len() == 1).await;
    one.open();
    until(|| log.get().contains(&"two starts")).await;
    g.go(logs(&log, "queued"));
    fail.open();
    yields(100).await;
    assert_eq!((lender.dropped(), g.running(), g.queued()), (0, 1, 1));
    two.open();
    until(|| lender.dropped() == 1 && g.running() == 0).await;
    assert_eq!(log.get().last(), Some(&"queued"));
    assert_eq!(g.try_go(async { Ok(()) }).map_err(drop), Ok(()));
    assert_eq!(g.wait().await.unwrap_err(), "failed");
}

async fn a_lender_that_is_aborted_is_counted_once() {
    let (g, log, gate) = (limited(1), Log::new(), Gate::new());
    let sibling = logs_around(&log, &gate, "sibling starts", "sibling ends");
    g.go(starts_and_awaits(&g, &log, [sibling]));
    until(|| log.len() == 2).await;
    g.abort();
    until(|| g.running() == 0).await;
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
    assert_eq!(log.len(), 2);
}

async fn a_lowered_limit_holds_lenders_back() {
    let (g, log, gate) = (limited(2), Log::new(), Gate::new());
    let blocks = |starts, ends| logs_around(&log, &gate, starts, ends);
    let (other, sibling) = (blocks("other", "-"), blocks("sibling", "-"));
    g.go(other);
    g.go(starts_and_awaits(&g, &log, [sibling]));
    until(|| log.len() == 3).await;
    g.set_limit(1);
    gate.let_one_through();
    until(|| g.running() == 1).await;
    yields(100).await;
    assert!(!log.get().contains(&"goes on"));
    gate.let_one_through();
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get().last(), Some(&"goes on"));
}

/// A search for each would be 5,000,000,000 steps.
async fn many_claims_are_withdrawn_by_an_abort_without_a_search() {
    const MANY: usize = 100_000;
    // Paused until all are queued, so that the tasks that they start are queued behind them.
    let (g, waiting) = (limited(0), Count::default());
    for _ in 0..MANY {
        let (spawner, waits) = (g.spawner(), waiting.clone());
        g.go(async move {
            let admission = spawner.go(std::future::pending());
            waits.add();
            admission.await;
            std::future::pending().await
        });
    }
    g.set_limit(1);
    // Each lends its permit, which a task that never ends takes at last.
    until(|| waiting.get() == MANY && g.queued() == MANY - 1).await;
    // None of the others starts, so all lenders claim a permit.
    g.cancel();
    yields(10).await;
    g.abort();
    assert!(g.wait().await.is_err());
}
