//! How late a timer is while tasks of the same runtime compute.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use errgroup::{Context, Group, fetch_all};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::table::{Row, Table};
use crate::workload::{Spin, Workers};

const ITEMS: u64 = 3_000;
const LIMIT: usize = 64;
const BEAT: Duration = Duration::from_millis(10);
const BY_HAND: &str = "JoinSet + Semaphore";

pub(crate) fn rows(table: &mut Table, workers: &Workers) -> io::Result<()> {
    let spin = Spin::calibrated(Duration::from_millis(1));
    table.pair(
        Row::new("longest gap of a heartbeat, limited go, 1 ms each", BY_HAND).at_most(1.50),
        || workers.run(longest_gap(limited(spin))),
        || workers.run(longest_gap(by_hand(spin))),
    )?;
    table.pair(
        Row::new("longest gap of a heartbeat, fetch_all, 1 ms each", BY_HAND).at_most(1.50),
        || workers.run(longest_gap(fetched(spin))),
        || workers.run(longest_gap(by_hand(spin))),
    )
}

/// The longest time between two ticks of a 10 ms interval while `work` runs, in nanoseconds.
async fn longest_gap(work: impl Future<Output = ()> + Send) -> f64 {
    let stops = Arc::new(AtomicBool::new(false));
    let stopped = stops.clone();
    let heartbeat = tokio::spawn(async move {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.tick().await;
        let mut longest = Duration::ZERO;
        // Ends: `stops` is set when the work is done.
        while !stopped.load(Ordering::Relaxed) {
            let last = Instant::now();
            beats.tick().await;
            longest = longest.max(last.elapsed());
        }
        longest
    });
    work.await;
    stops.store(true, Ordering::Relaxed);
    match heartbeat.await {
        Ok(longest) => longest.as_nanos() as f64,
        Err(error) => panic!("the heartbeat failed: {error}"),
    }
}

async fn limited(spin: Spin) {
    let (g, _ctx) = Group::<String>::with_context(Context::background());
    g.set_limit(LIMIT);
    for item in 0..ITEMS {
        g.go(async move {
            spin.run(item);
            Ok(())
        });
    }
    assert_eq!(g.wait().await, Ok(()));
}

async fn fetched(spin: Spin) {
    let ctx = Context::background();
    let done = fetch_all(&ctx, LIMIT, 0..ITEMS, move |_ctx, item| async move {
        Ok::<_, String>(spin.run(item))
    });
    assert!(done.await.is_ok());
}

async fn by_hand(spin: Spin) {
    let (mut tasks, permits) = (JoinSet::new(), Arc::new(Semaphore::new(LIMIT)));
    for item in 0..ITEMS {
        let permits = permits.clone();
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            spin.run(item)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        assert!(ended.is_ok());
    }
}
