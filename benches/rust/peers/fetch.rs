//! `fetch_all` next to `buffer_unordered`.

use std::io;
use std::time::{Duration, Instant};

use errgroup::{Context, fan_out, fetch_all};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::task::{JoinSet, yield_now};

use crate::spawn::many;
use crate::table::{Row, Table};
use crate::workload::{Spin, Workers, each};

const TRIVIAL: usize = 100_000;
const COMPUTED: usize = 2_000;
const LIMIT: usize = 64;
/// The numbers of items that request handlers fetch.
const FEW: [usize; 2] = [3, 8];
const LOCAL: usize = 10_000;

pub(crate) fn rows(table: &mut Table, workers: &Workers) -> io::Result<()> {
    table.pair(
        Row::new("fetch_all, trivial items", "buffer_unordered, one task")
            .at_most(1.50)
            .stretch(1.00),
        || workers.run(fetched(TRIVIAL, trivial)),
        || workers.run(buffered(TRIVIAL, trivial)),
    )?;
    table.pair(
        Row::new("fetch_all, trivial items", "buffer_unordered over spawn")
            .at_most(0.15)
            .stretch(0.05),
        || workers.run(fetched(TRIVIAL, trivial)),
        || workers.run(buffered_spawned(TRIVIAL)),
    )?;

    for items in FEW {
        table.pair(
            Row::new(
                format!("fetch_all, {items} items that yield once"),
                "tokio::spawn of each",
            )
            .at_most(1.50)
            .stretch(1.20),
            move || workers.run(many(move || fetched_few(items))),
            move || workers.run(many(move || spawned_few(items))),
        )?;
    }
    table.pair(
        Row::new(
            ".local(), 10,000 items that yield once",
            "buffer_unordered, one task",
        )
        .at_most(1.20)
        .stretch(0.80),
        || workers.run(local(LOCAL)),
        || workers.run(buffered_yielding(LOCAL)),
    )?;
    table.pair(
        Row::new(
            ".local(), 3 items that yield once",
            "buffer_unordered, one task",
        )
        .at_most(1.75)
        .stretch(1.25),
        || workers.run(many(|| local(3))),
        || workers.run(many(|| buffered_yielding(3))),
    )?;

    let spin = Spin::calibrated(Duration::from_micros(20));
    // The best that the machine allows at the moment: 0.50 if each of two workers has a core, 1.00
    // if not.
    let count = table.workers();
    table.pair(
        Row::new("control: 20 us each, by hand on all workers", "one task"),
        || workers.run(split(count, spin)),
        || workers.run(split(1, spin)),
    )?;
    let computed = move |item| Ok(spin.run(item));
    table.pair(
        Row::new("fetch_all, items of 20 us", "buffer_unordered, one task")
            .at_most(0.60)
            .stretch(0.52),
        || workers.run(fetched(COMPUTED, computed)),
        || workers.run(buffered(COMPUTED, computed)),
    )
}

async fn yielding(item: u64) -> Result<u64, String> {
    yield_now().await;
    Ok(item)
}

async fn fetched_few(items: usize) {
    let ctx = Context::background();
    let results = fetch_all(&ctx, items, 0..items as u64, |_, item| yielding(item));
    assert_eq!(results.await.map(|results| results.len()), Ok(items));
}

async fn spawned_few(items: usize) {
    let spawned: Vec<_> = (0..items as u64)
        .map(|item| tokio::spawn(yielding(item)))
        .collect();
    let mut results = Vec::with_capacity(items);
    for task in spawned {
        results.push(task.await.unwrap_or_else(|error| Err(error.to_string())));
    }
    assert!(results.iter().all(Result::is_ok));
}

async fn local(items: usize) -> f64 {
    let start = Instant::now();
    let ctx = Context::background();
    let results = fan_out(&ctx, 0..items as u64, |_, item| yielding(item));
    let results = results.limit(LIMIT).local().all().await;
    each_of(start, items, results)
}

async fn buffered_yielding(items: usize) -> f64 {
    let start = Instant::now();
    let results = stream::iter(0..items as u64)
        .map(yielding)
        .buffer_unordered(LIMIT)
        .try_collect::<Vec<_>>()
        .await;
    each_of(start, items, results)
}

/// Nanoseconds for each item. All of them must have arrived.
fn each_of(start: Instant, items: usize, results: Result<Vec<u64>, String>) -> f64 {
    let each = each(start, items);
    assert_eq!(results.map(|results| results.len()), Ok(items));
    each
}

fn trivial(item: u64) -> Result<u64, String> {
    Ok(item)
}

/// Results in the order of the items.
async fn fetched<B>(items: usize, body: B) -> f64
where
    B: Fn(u64) -> Result<u64, String> + Copy + Send + 'static,
{
    let start = Instant::now();
    let ctx = Context::background();
    let results = fetch_all(&ctx, LIMIT, 0..items as u64, move |_ctx, item| async move {
        body(item)
    });
    let results = results.await;
    each_of(start, items, results)
}

/// Results in the order of completion.
async fn buffered<B>(items: usize, body: B) -> f64
where
    B: Fn(u64) -> Result<u64, String> + Copy + Send + 'static,
{
    let start = Instant::now();
    let results = stream::iter(0..items as u64)
        .map(|item| async move { body(item) })
        .buffer_unordered(LIMIT)
        .try_collect::<Vec<_>>()
        .await;
    each_of(start, items, results)
}

/// The same computation by this many tasks, with a share for each.
async fn split(tasks: usize, spin: Spin) -> f64 {
    let start = Instant::now();
    let tasks: JoinSet<()> = (0..tasks)
        .map(|_| async move {
            for item in 0..COMPUTED / tasks {
                spin.run(item as u64);
            }
        })
        .collect();
    tasks.join_all().await;
    each(start, COMPUTED)
}

async fn buffered_spawned(items: usize) -> f64 {
    let start = Instant::now();
    let results = stream::iter(0..items as u64)
        .map(|item| tokio::spawn(async move { trivial(item) }))
        .buffer_unordered(LIMIT)
        .map(|joined| joined.unwrap_or_else(|error| Err(error.to_string())))
        .try_collect::<Vec<_>>()
        .await;
    each_of(start, items, results)
}
