//! The limit: at most `limit` tasks run at once, tasks start first in, first out, and the limit may
//! change while they run.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use errgroup::Spawner;

use crate::group_support::*;

both_flavours![
    tasks_start_first_in_first_out,
    at_most_limit_tasks_run_at_once,
    none_is_no_limit,
    raising_the_limit_starts_queued_ones_at_once,
    removing_the_limit_starts_all_that_is_queued,
    lowering_the_limit_stops_no_task,
    a_limit_of_zero_pauses,
    the_limit_may_be_lowered_and_raised_by_a_task,
    awaiting_the_admission_waits_until_the_task_has_started,
    awaiting_the_admission_is_backpressure,
    not_awaiting_the_admission_is_fine,
    dropping_the_admission_changes_nothing_for_the_task,
    an_admission_may_be_awaited_after_its_task_has_ended,
    many_tasks_may_wait_for_one_permit,
    the_counts_come_back_to_zero,
    ready_tasks_do_not_starve_the_runtime,
    set_limit_from_many_threads_at_once_is_safe,
];

async fn tasks_start_first_in_first_out() {
    let g = limited(1);
    let order = Log::new();
    for task in 0..100 {
        let order = order.clone();
        g.go(async move {
            order.add(task);
            yields(task % 3).await;
            Ok(())
        });
    }
    assert_eq!(g.wait().await, OK);
    assert!(order.get().into_iter().eq(0..100));
}

async fn at_most_limit_tasks_run_at_once() {
    for limit in 1..6 {
        let g = limited(limit);
        let gauge = Gauge::default();
        for task in 0..50 {
            let gauge = gauge.clone();
            g.go(async move {
                let _alive = gauge.enter();
                yields(task % 4).await;
                Ok(())
            });
        }
        assert_eq!(g.wait().await, OK);
        assert!(gauge.most() <= limit);
    }
}

async fn none_is_no_limit() {
    let (g, _ctx) = group();
    assert_eq!(g.limit(), None);
    let gate = Gate::new();
    for _ in 0..1_000 {
        let gate = gate.clone();
        assert!(
            g.go(async move {
                gate.pass().await;
                Ok(())
            })
            .await
            .is_started()
        );
    }
    assert_eq!((g.running(), g.queued()), (1_000, 0));
    gate.open();
    assert_eq!(g.wait().await, OK);
}

/// A group of tasks that have all started or queued, and wait for the gate.
fn at_the_gate(g: &G, tasks: usize) -> (Gate, Gauge) {
    let (gate, gauge) = (Gate::new(), Gauge::default());
    for _ in 0..tasks {
        let (gate, gauge) = (gate.clone(), gauge.clone());
        g.go(async move {
            let _alive = gauge.enter();
            gate.pass().await;
            Ok(())
        });
    }
    (gate, gauge)
}

async fn raising_the_limit_starts_queued_ones_at_once() {
    let g = limited(1);
    let (gate, gauge) = at_the_gate(&g, 5);
    assert_eq!((g.running(), g.queued()), (1, 4));
    g.set_limit(3);
    assert_eq!((g.running(), g.queued()), (3, 2));
    assert_eq!(g.limit(), Some(3));
    until(|| gauge.now() == 3).await;
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(gauge.most(), 3);
}

async fn removing_the_limit_starts_all_that_is_queued() {
    let g = limited(1);
    let (gate, gauge) = at_the_gate(&g, 100);
    g.set_limit(None);
    assert_eq!((g.running(), g.queued()), (100, 0));
    until(|| gauge.now() == 100).await;
    gate.open();
    assert_eq!(g.wait().await, OK);
}

async fn lowering_the_limit_stops_no_task() {
    let g = limited(4);
    let (gate, gauge) = at_the_gate(&g, 6);
    until(|| gauge.now() == 4).await;
    g.set_limit(2);
    assert_eq!((g.running(), g.queued()), (4, 2));
    for left in [3, 2] {
        gate.let_one_through();
        until(|| g.running() == left).await;
        assert_eq!(g.queued(), 2, "one started above the limit");
    }
    gate.let_one_through();
    until(|| g.queued() == 1).await;
    assert_eq!(g.running(), 2);
    gate.open();
    assert_eq!(g.wait().await, OK);
}

async fn a_limit_of_zero_pauses() {
    let g = limited(0);
    let (gate, gauge) = at_the_gate(&g, 3);
    gate.open();
    yields(100).await;
    assert_eq!((g.running(), g.queued(), gauge.most()), (0, 3, 0));
    g.set_limit(1);
    assert_eq!(g.wait().await, OK);
    assert_eq!(gauge.most(), 1);
}

async fn the_limit_may_be_lowered_and_raised_by_a_task() {
    let g = Arc::new(limited(1));
    let ended = Count::default();
    for task in 0..100 {
        let (g, ended) = (Arc::downgrade(&g), ended.clone());
        let limited = g.clone();
        g.upgrade().unwrap().go(async move {
            limited.upgrade().unwrap().set_limit(1 + task % 5);
            ended.add();
            Ok(())
        });
    }
    until(|| ended.get() == 100 && g.running() == 0).await;
    assert_eq!(g.queued(), 0);
}

async fn awaiting_the_admission_waits_until_the_task_has_started() {
    let g = limited(1);
    let (gate, _gauge) = at_the_gate(&g, 1);
    let (second, _) = (Gate::new(), ());
    let held = second.clone();
    let mut admission = g.go(async move {
        held.pass().await;
        Ok(())
    });
    assert!(futures::poll!(&mut admission).is_pending());
    gate.open();
    assert!(admission.await.is_started());
    assert_eq!(
        (g.running(), g.queued()),
        (1, 0),
        "it has ended, not started"
    );
    second.open();
    assert_eq!(g.wait().await, OK);
}

async fn awaiting_the_admission_is_backpressure() {
    let g = limited(3);
    let made = Gauge::default();
    for task in 0..200 {
        let alive = made.enter();
        g.go(async move {
            let _alive = alive;
            yields(task % 5).await;
            Ok(())
        })
        .await;
        assert_eq!(g.queued(), 0);
    }
    assert_eq!(g.wait().await, OK);
    assert!(made.most() <= 4, "three run and one waits");
}

async fn not_awaiting_the_admission_is_fine() {
    let g = limited(2);
    let ended = Count::default();
    for _ in 0..100 {
        let ended = ended.clone();
        g.go(async move {
            ended.add();
            Ok(())
        });
    }
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), 100);
}

async fn dropping_the_admission_changes_nothing_for_the_task() {
    let g = limited(1);
    let (gate, _gauge) = at_the_gate(&g, 1);
    let ended = Count::default();
    for polled in [false, true] {
        let ended = ended.clone();
        let mut admission = g.go(async move {
            ended.add();
            Ok(())
        });
        if polled {
            assert!(futures::poll!(&mut admission).is_pending());
        }
    }
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), 2);
}

async fn an_admission_may_be_awaited_after_its_task_has_ended() {
    let g = limited(1);
    let admissions: Vec<_> = (0..10).map(|_| g.go(async { Ok(()) })).collect();
    assert_eq!(g.wait().await, OK);
    for admission in admissions {
        assert!(admission.await.is_started());
    }
}

async fn many_tasks_may_wait_for_one_permit() {
    let g = limited(1);
    let (gate, _gauge) = at_the_gate(&g, 1);
    let admissions: Vec<_> = (0..100).map(|_| g.go(async { Ok(()) })).collect();
    let mut all = Box::pin(futures::future::join_all(admissions));
    assert!(futures::poll!(&mut all).is_pending());
    gate.open();
    assert!(all.await.iter().all(|admitted| admitted.is_started()));
    assert_eq!(g.wait().await, OK);
}

async fn the_counts_come_back_to_zero() {
    let g = limited(2);
    let (gate, _gauge) = at_the_gate(&g, 9);
    gate.open();
    until(|| g.running() == 0).await;
    assert_eq!((g.running(), g.queued()), (0, 0));
    assert_eq!(g.wait().await, OK);
}

async fn ready_tasks_do_not_starve_the_runtime() {
    const MOST: usize = 3_000_000;
    let g = limited(1);
    let (started, other) = (Count::default(), Count::default());
    for _ in 0..1_000 {
        g.go(starts_one_more(
            g.spawner(),
            MOST,
            started.clone(),
            other.clone(),
        ));
    }
    let spawned = other.clone();
    tokio::spawn(async move {
        tokio::task::yield_now().await;
        spawned.add();
    });
    assert_eq!(g.wait().await, OK);
    assert!(started.get() < MOST);
    assert_eq!(other.get(), 1);
}

/// Starts another task like itself until the other task has run: a fixed number of tasks may all
/// end before a task on another thread has run.
fn starts_one_more(
    spawner: Spawner<String>,
    most: usize,
    started: Count,
    other: Count,
) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
    Box::pin(async move {
        started.add();
        if other.get() == 0 && started.get() < most {
            spawner.go(starts_one_more(spawner.clone(), most, started, other));
        }
        Ok(())
    })
}

async fn set_limit_from_many_threads_at_once_is_safe() {
    let g = Arc::new(limited(0));
    let (ended, tasks) = (Count::default(), 500);
    let mut sides = Vec::new();
    for side in 0..4 {
        let (g, ended) = (g.clone(), ended.clone());
        sides.push(tokio::spawn(async move {
            for round in 0..tasks / 4 {
                g.set_limit((side + round) % 4);
                let ended = ended.clone();
                g.go(async move {
                    tokio::task::yield_now().await;
                    ended.add();
                    Ok(())
                });
                tokio::task::yield_now().await;
            }
        }));
    }
    for side in sides {
        side.await.unwrap();
    }
    g.set_limit(1);
    let g = Arc::into_inner(g).unwrap();
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), tasks);
}

/// Random tasks under a limit that goes up and down. Never more run at once than the highest limit
/// since the last moment at which fewer than the present limit ran.
fn a_random_schedule(g: &G, random: &mut Random) -> (Gauge, usize) {
    let gauge = Gauge::default();
    let mut highest = 0;
    for _ in 0..1 + random.below(4) {
        let limit = 1 + random.below(4);
        highest = highest.max(limit);
        g.set_limit(limit);
        for _ in 0..random.below(12) {
            let (gauge, times) = (gauge.clone(), random.below(4));
            g.go(async move {
                let _alive = gauge.enter();
                yields(times).await;
                Ok(())
            });
        }
    }
    (gauge, highest)
}

#[test]
fn never_more_than_the_limit_in_thousands_of_random_schedules() {
    let mut random = Random::new();
    for (runtime, rounds) in [(current_thread(), 3_000), (two_workers(), 1_000)] {
        runtime.block_on(in_time(async {
            for _ in 0..rounds {
                let g = G::new();
                let (gauge, highest) = a_random_schedule(&g, &mut random);
                assert_eq!(g.wait().await, OK);
                assert!(gauge.most() <= highest, "{} of {highest}", gauge.most());
                assert_eq!(gauge.now(), 0);
            }
        }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_blocks_its_thread_delays_no_start() {
    let delayed = Arc::new(AtomicUsize::new(0));
    in_time(async {
        for _ in 0..100 {
            let (g, _ctx) = group();
            let (sender, receiver) = mpsc::channel();
            let (receiver, counts) = (Mutex::new(receiver), delayed.clone());
            g.go(async move {
                let started = receiver.lock().unwrap().recv_timeout(PATIENCE / 20);
                counts.fetch_add(usize::from(started.is_err()), Ordering::Relaxed);
                Ok(())
            });
            g.go(async move {
                let _ = sender.send(());
                Ok(())
            });
            assert_eq!(g.wait().await, OK);
        }
    })
    .await;
    let delayed = delayed.load(Ordering::Relaxed);
    assert!(delayed <= MOST_LATE, "{delayed} of 100 rounds");
}
