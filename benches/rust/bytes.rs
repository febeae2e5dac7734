//! The memory of groups and contexts: one line for each figure, with its name and the bytes.
//!
//! ```sh
//! cargo bench -p benches --bench bytes
//! ```
//!
//! It is a program of its own because counting allocations takes time, and `peers`, which shows
//! these figures, measures calls that cost little more than an allocation. Allocations are counted
//! for one thread, so everything runs on a current-thread runtime.

use std::future::{Future, pending};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use errgroup::{Context, Group, fan_out};
use futures::FutureExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::yield_now;

type G = Group<String>;

const WAITING: usize = 10_000;
const FINISHED: usize = 100_000;
const BURST: usize = 100;
const CHILDREN: usize = 100_000;

fn main() -> io::Result<()> {
    let figures = [
        ("waiting in a bare spawn", waiting_bare()),
        ("waiting in a group", waiting_in_group()),
        ("finished in a limited group", finished_in_limited()),
        ("finished in an unlimited group", finished_in_unlimited()),
        ("dropped children", dropped_children()),
        ("an idle context", idle_context()),
        ("a context that a task awaits", awaited_context()),
        ("waiting for a permit in a group", queued()),
        ("in flight in a fan-out", in_flight()),
        ("in flight in a local fan-out", in_flight_local()),
    ];
    let mut out = io::stdout();
    for (name, bytes) in figures {
        writeln!(out, "{name}: {bytes}")?;
    }
    Ok(())
}

/// Of each task.
fn waiting_bare() -> f64 {
    let bytes = bytes_kept(&runtime(), async {
        for _ in 0..WAITING {
            tokio::spawn(pending::<Result<(), String>>());
            yield_now().await;
        }
    });
    bytes as f64 / WAITING as f64
}

/// Of each task.
fn waiting_in_group() -> f64 {
    let (runtime, g) = (runtime(), G::new());
    let bytes = bytes_kept(&runtime, async {
        for _ in 0..WAITING {
            g.go(pending());
            yield_now().await;
        }
    });
    bytes as f64 / WAITING as f64
}

/// Of all of them: what a group that has warmed up has more after 100,000 tasks than before.
fn finished_in_limited() -> f64 {
    let (runtime, g) = (runtime(), G::new());
    g.set_limit(64);
    let through = || async {
        for _ in 0..FINISHED {
            g.go(async {
                yield_now().await;
                Ok(())
            })
            .await;
        }
        until_idle().await;
    };
    runtime.block_on(through());
    bytes_kept(&runtime, through()) as f64
}

/// Of all of them, which come in bursts: the queues stay as large as for the largest burst so far.
fn finished_in_unlimited() -> f64 {
    let (runtime, g) = (runtime(), G::new());
    let bursts = || async {
        for _ in 0..FINISHED / BURST {
            burst(&g).await;
        }
    };
    runtime.block_on(bursts());
    bytes_kept(&runtime, bursts()) as f64
}

/// Has this many tasks wait at once, and then end.
async fn burst(g: &G) {
    let gate = Arc::new(Semaphore::new(0));
    for _ in 0..BURST {
        let gate = gate.clone();
        g.go(async move {
            if let Ok(permit) = gate.acquire().await {
                permit.forget();
            }
            Ok(())
        });
    }
    while Handle::current().metrics().num_alive_tasks() < BURST {
        yield_now().await;
    }
    gate.add_permits(BURST);
    until_idle().await;
}

async fn until_idle() {
    while Handle::current().metrics().num_alive_tasks() > 0 {
        yield_now().await;
    }
}

/// Of all of them: what they leave in their parent.
fn dropped_children() -> f64 {
    let (parent, _guard) = Context::background().with_cancel();
    let kept = measure(|| {
        for _ in 0..CHILDREN {
            drop(parent.with_cancel());
            drop(parent.with_timeout(Duration::from_secs(3600)));
            drop(parent.with_value("child").with_value("grandchild"));
        }
    });
    kept.bytes_current as f64
}

/// Of each: a child that no task waits on.
fn idle_context() -> f64 {
    let (parent, _guard) = Context::background().with_cancel();
    let mut kept = Vec::with_capacity(WAITING);
    let bytes = measure(|| kept.extend((0..WAITING).map(|_| parent.with_cancel())));
    bytes.bytes_current as f64 / WAITING as f64
}

/// Of each: a child that a task waits on, so it is linked to its parent. The task is not counted.
fn awaited_context() -> f64 {
    let (parent, _guard) = Context::background().with_cancel();
    let mut kept = Vec::with_capacity(WAITING);
    let bytes = measure(|| {
        kept.extend((0..WAITING).map(|_| {
            let (child, guard) = parent.with_cancel();
            let mut done = child.done_owned();
            assert!((&mut done).now_or_never().is_none());
            (done, guard)
        }));
    });
    bytes.bytes_current as f64 / WAITING as f64
}

/// Of each task.
fn queued() -> f64 {
    let (runtime, g) = (runtime(), G::new());
    g.set_limit(1);
    runtime.block_on(async { drop(g.go(pending())) });
    let bytes = bytes_kept(&runtime, async {
        for _ in 0..WAITING {
            g.go(pending());
        }
    });
    bytes as f64 / WAITING as f64
}

/// Of each item, on the runtime's workers.
fn in_flight() -> f64 {
    let ctx = Context::background();
    let items = fan_out(&ctx, 0..WAITING, |_, _| pending::<Result<(), String>>());
    held(items.limit(WAITING).for_each())
}

/// Of each item, on the caller's own task.
fn in_flight_local() -> f64 {
    let ctx = Context::background();
    let items = fan_out(&ctx, 0..WAITING, |_, _| pending::<Result<(), String>>());
    held(items.limit(WAITING).local().for_each())
}

/// The memory of a fan-out for each of its items when all are in flight.
fn held(all: impl Future) -> f64 {
    let runtime = runtime();
    let mut all = Box::pin(all);
    let bytes = bytes_kept(&runtime, async {
        for _ in 0..2 * WAITING {
            assert!(all.as_mut().now_or_never().is_none());
            yield_now().await;
        }
    });
    bytes as f64 / WAITING as f64
}

fn runtime() -> Runtime {
    match Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// The bytes that are there after `future` and were not there before.
fn bytes_kept<F: Future>(runtime: &Runtime, future: F) -> i64 {
    measure(|| drop(runtime.block_on(future))).bytes_current
}
