//! A long-lived group keeps only the tasks that run now.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::Context;
use tokio::runtime::Handle;

use crate::group_support::*;

both_flavours![
    a_million_tasks_through_one_group_leave_no_task_behind,
    an_idle_group_holds_no_task,
    many_tasks_share_few_workers,
];

fn alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn a_million_tasks_through_one_group_leave_no_task_behind() {
    let g = limited(64);
    let ended = Count::default();
    for task in 0..1_000_000 {
        let ended = ended.clone();
        g.go(async move {
            ended.add();
            Ok(())
        })
        .await;
        if task % 100_000 == 0 {
            // On each of two threads, one worker may be just leaving.
            assert!(alive() <= 64 + 4, "{} tasks are alive", alive());
        }
    }
    until(|| g.running() == 0 && alive() == 0).await;
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), 1_000_000);
}

async fn an_idle_group_holds_no_task() {
    let (g, _ctx) = group();
    for _ in 0..10 {
        let gate = Gate::new();
        for _ in 0..100 {
            let gate = gate.clone();
            g.go(async move {
                gate.pass().await;
                Ok(())
            });
        }
        assert_eq!(g.running(), 100);
        gate.open();
        until(|| g.running() == 0 && alive() == 0).await;
    }
    assert_eq!(g.wait().await, OK);
}

#[tokio::test(start_paused = true)]
async fn when_wait_returns_the_watcher_has_ended() {
    let gate = Gate::new();
    let gated = gate.clone();
    let (g, _ctx) = G::with_context(Context::background());
    g.set_grace(Duration::from_secs(1));
    g.go(async move {
        gated.pass().await;
        Ok(())
    });
    g.cancel();
    yields(3).await;
    assert_eq!(alive(), 2);
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(alive(), 0);
}

async fn many_tasks_share_few_workers() {
    let g = limited(4);
    for task in 0..10_000 {
        g.go(async move {
            yields(task % 3).await;
            Ok(())
        });
    }
    while g.running() + g.queued() > 0 {
        // On each of two threads, one worker may be just leaving.
        assert!(alive() <= 4 + 4, "{} workers for 4 tasks", alive());
        tokio::task::yield_now().await;
    }
    assert_eq!(g.wait().await, OK);
}

#[tokio::test]
async fn a_loop_that_awaits_each_admission_needs_few_workers() {
    let g = limited(16);
    // With a grace period no task gets a worker of its own.
    g.set_grace(Duration::from_secs(60));
    let workers = Arc::new(Mutex::new(HashSet::new()));
    for _ in 0..1_000 {
        let workers = workers.clone();
        g.go(async move {
            workers.lock().unwrap().insert(tokio::task::id());
            tokio::task::yield_now().await;
            Ok(())
        })
        .await;
    }
    assert_eq!(g.wait().await, OK);
    let workers = workers.lock().unwrap().len();
    assert!(workers <= 200, "{workers} workers for 1,000 tasks");
}

#[tokio::test]
async fn a_worker_that_looks_again_leaves_if_nothing_comes() {
    let g = limited(2);
    let gate = Gate::new();
    for _ in 0..2 {
        let gate = gate.clone();
        g.go(async move {
            gate.pass().await;
            Ok(())
        });
    }
    let last = g.go(async { Ok(()) });
    yields(3).await;
    let waits = tokio::spawn(last);
    yields(3).await;
    gate.open();
    assert!(waits.await.unwrap().is_started());
    until(|| g.running() == 0 && alive() == 0).await;
    assert_eq!(g.wait().await, OK);
}
