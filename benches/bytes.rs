//! What groups and contexts cost in memory: a line for each figure, its name and the bytes.
//!
//! ```sh
//! cargo bench --bench bytes
//! ```
//!
//! It is a program of its own because the allocator that counts is not free, and `peers`, which shows these figures, has
//! calls to time that cost little more than an allocation. Allocations are counted for one thread, so everything runs on a
//! current-thread runtime.

use std::future::{Future, pending};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use errgroup::{Context, Group};
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

/// Of all of them: what a group in its stride has more after a hundred thousand tasks than before.
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

/// Of all of them, which come in bursts: the queues stay as wide as the widest burst so far.
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

/// Has so many tasks wait at once, and then end.
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

/// Of all of them: what they leave at their parent.
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
