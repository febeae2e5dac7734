//! What groups cost in memory. Counted for one thread, so everything runs on a current-thread runtime.

use std::future::{Future, pending};
use std::sync::Arc;

use allocation_counter::measure;
use errgroup::{Context, Group, fetch_all};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::yield_now;

type G = Group<String>;

const MANY: usize = 100_000;
const BURST: usize = 10_000;

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// The bytes that are there after `future` and were not there before.
fn bytes_kept<F: Future>(runtime: &Runtime, future: F) -> i64 {
    measure(|| drop(runtime.block_on(future))).bytes_current
}

/// Sends so many tasks through a living group, each of which yields once.
async fn through(g: &G, tasks: usize) {
    for _ in 0..tasks {
        g.go(async {
            yield_now().await;
            Ok(())
        })
        .await;
    }
    until_idle(g).await;
}

fn alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn until_idle(g: &G) {
    while g.running() > 0
        || tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
            > 0
    {
        yield_now().await;
    }
}

/// Has so many tasks wait at once, and then end.
async fn burst(g: &G, tasks: usize) {
    let gate = Arc::new(Semaphore::new(0));
    for _ in 0..tasks {
        let gate = gate.clone();
        g.go(async move {
            gate.acquire().await.unwrap().forget();
            Ok(())
        });
    }
    while alive() < tasks {
        yield_now().await;
    }
    gate.add_permits(tasks);
    until_idle(g).await;
}

/// The buffers of the queues stay as wide as they once were, the group's and tokio's: two words or so for each task.
const BUFFERS: i64 = 64;

#[test]
fn tasks_that_went_through_a_limited_group_keep_nothing() {
    let (runtime, g) = (runtime(), G::new());
    g.set_limit(64);
    runtime.block_on(through(&g, 1_000));
    let kept = bytes_kept(&runtime, through(&g, 10 * MANY));
    assert!(kept < 4096, "{kept} bytes are kept of a million tasks");
}

#[test]
fn bursts_through_an_unlimited_group_keep_nothing_of_those_before() {
    let (runtime, g) = (runtime(), G::new());
    let bursts = || async {
        for _ in 0..100 {
            burst(&g, 100).await;
        }
    };
    runtime.block_on(bursts());
    assert_eq!(bytes_kept(&runtime, bursts()), 0);
}

#[test]
fn an_idle_group_keeps_nothing_of_a_burst() {
    let (runtime, g) = (runtime(), G::new());
    runtime.block_on(burst(&g, 10));
    let kept = bytes_kept(&runtime, burst(&g, BURST));
    let each = kept / BURST as i64;
    assert!(each < BUFFERS, "{each} bytes of each task");
}

#[test]
fn a_queue_that_was_cut_keeps_nothing() {
    let runtime = runtime();
    let cut = |tasks| async move {
        let (g, _ctx) = G::with_context(Context::background());
        g.set_limit(0);
        for _ in 0..tasks {
            g.go(async { Ok(()) });
        }
        g.cancel();
        g.wait().await.unwrap_err()
    };
    runtime.block_on(cut(10));
    assert_eq!(bytes_kept(&runtime, cut(BURST)), 0);
}

#[test]
fn a_task_that_awaits_many_admissions_keeps_nothing_of_them() {
    let (runtime, g) = (runtime(), G::new());
    g.set_limit(1);
    let rounds = Arc::new(Semaphore::new(0));
    let (spawner, starts) = (g.spawner(), rounds.clone());
    {
        let _inside = runtime.enter();
        g.go(async move {
            loop {
                starts.acquire().await.unwrap().forget();
                spawner.go(async { Ok(()) }).await;
            }
        });
    }
    let lends = |times| {
        let rounds = &rounds;
        async move {
            rounds.add_permits(times);
            while rounds.available_permits() > 0 {
                yield_now().await;
            }
            for _ in 0..10 {
                yield_now().await;
            }
        }
    };
    runtime.block_on(lends(10));
    assert_eq!(bytes_kept(&runtime, lends(MANY)), 0);
}

#[test]
fn a_running_task_that_waits_costs_at_most_256_bytes_over_a_bare_spawn() {
    let bare = bytes_kept(&runtime(), async {
        for _ in 0..BURST {
            tokio::spawn(pending::<Result<(), String>>());
        }
        yield_now().await;
    });
    let (runtime, g) = (runtime(), G::new());
    let grouped = bytes_kept(&runtime, async {
        for _ in 0..BURST {
            g.go(pending());
            yield_now().await;
        }
    });
    let over = (grouped - bare) / BURST as i64;
    assert!(over <= 256, "{over} bytes over a bare spawn");
}

#[test]
fn a_queued_task_costs_its_future_and_its_place_in_the_queue() {
    let (runtime, g) = (runtime(), G::new());
    g.set_limit(0);
    let queued = bytes_kept(&runtime, async {
        for _ in 0..BURST {
            g.go(pending());
        }
    });
    let each = queued / BURST as i64;
    assert!(each <= 256, "{each} bytes each");
}

#[test]
fn a_fan_out_that_has_ended_keeps_nothing() {
    let runtime = runtime();
    let all = |items: usize| async move {
        let all = fetch_all(&Context::background(), 64, 0..items, |_, _| async {
            yield_now().await;
            Ok::<_, String>(())
        });
        assert_eq!(all.await.unwrap().len(), items);
    };
    runtime.block_on(all(100));
    assert_eq!(bytes_kept(&runtime, all(MANY)), 0);
}
