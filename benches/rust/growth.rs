//! How costs grow with the depth of a tree, the number of children, the tasks, and the limit.
//! Measured by criterion.
//!
//! ```sh
//! cargo bench -p benches --bench growth                   # all of it: some minutes
//! cargo bench -p benches --bench growth -- depth          # some of it
//! cargo bench -p benches --bench plots -- docs/cost       # then: a plot for each group
//! ```
//!
//! In a group of several tasks or items, the time is that of all of them.

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use errgroup::{Context, Group, fetch_all};
use futures::future::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::yield_now;

#[path = "peers/chain.rs"]
mod chain;

use chain::chain;

const DEPTHS: [usize; 4] = [1, 10, 100, 1_000];
const TENS: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
const LIMITS: [usize; 7] = [1, 4, 16, 64, 256, 1_024, 4_096];
const WORKERS: [usize; 2] = [1, 2];
const UNDER_A_LIMIT: usize = 10_000;

fn main() {
    let mut c = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for group in [depth, fan, waiting, tasks, limits, items] {
        group(&mut c);
    }
    c.final_summary();
}

/// A chain of contexts.
fn depth(c: &mut Criterion) {
    let mut group = c.benchmark_group("depth");
    for depth in DEPTHS {
        let (leaf, _guards) = chain(depth);
        group.bench_function(BenchmarkId::new("is_done", depth), |b| {
            b.iter(|| black_box(&leaf).is_done());
        });
        group.bench_function(BenchmarkId::new("is_done, waited on", depth), |b| {
            let leaf = waited_on(leaf.clone());
            b.iter(|| black_box(&leaf).is_done());
        });
        group.bench_function(BenchmarkId::new("with_cancel", depth), |b| {
            b.iter(|| leaf.with_cancel());
        });
        group.bench_function(BenchmarkId::new("cancel at the top", depth), |b| {
            b.iter_custom(|times| {
                sum(times, || {
                    let (leaf, guards) = chain(depth);
                    let leaf = waited_on(leaf);
                    let took = timed(|| guards[0].cancel());
                    assert!(leaf.is_done());
                    took
                })
            });
        });
    }
    group.finish();
}

/// One context with children. `cancel` notifies those that tasks wait on; the others read their
/// ancestors.
fn fan(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan");
    for children in TENS {
        group.bench_function(BenchmarkId::new("children that ask", children), |b| {
            b.iter_custom(|times| sum(times, || cancel_fan(children, |child| child)));
        });
        group.bench_function(BenchmarkId::new("children waited on", children), |b| {
            b.iter_custom(|times| sum(times, || cancel_fan(children, waited_on)));
        });
    }
    group.finish();
}

/// Tasks that await `done()`: from `cancel()` until all have ended.
fn waiting(c: &mut Criterion) {
    let mut group = c.benchmark_group("waiting");
    for workers in WORKERS {
        let runtime = runtime(workers);
        for tasks in TENS {
            group.bench_function(BenchmarkId::new(worker_s(workers), tasks), |b| {
                b.iter_custom(|times| sum(times, || on(&runtime, cancel_waiting(tasks))));
            });
        }
    }
    group.finish();
}

/// An unlimited group.
fn tasks(c: &mut Criterion) {
    let mut group = c.benchmark_group("tasks");
    for workers in WORKERS {
        let runtime = runtime(workers);
        for tasks in TENS {
            group.throughput(Throughput::Elements(tasks as u64));
            group.bench_function(BenchmarkId::new(worker_s(workers), tasks), |b| {
                b.iter_custom(|times| sum(times, || on(&runtime, through(None, tasks))));
            });
        }
    }
    group.finish();
}

/// Ten thousand tasks through a limited group.
fn limits(c: &mut Criterion) {
    let mut group = c.benchmark_group("limits");
    group.throughput(Throughput::Elements(UNDER_A_LIMIT as u64));
    for workers in WORKERS {
        let runtime = runtime(workers);
        for limit in LIMITS {
            group.bench_function(BenchmarkId::new(worker_s(workers), limit), |b| {
                b.iter_custom(|times| {
                    sum(times, || on(&runtime, through(Some(limit), UNDER_A_LIMIT)))
                });
            });
        }
    }
    group.finish();
}

/// Ten thousand items through `fetch_all`.
fn items(c: &mut Criterion) {
    let mut group = c.benchmark_group("items");
    group.throughput(Throughput::Elements(UNDER_A_LIMIT as u64));
    for workers in WORKERS {
        let runtime = runtime(workers);
        for limit in LIMITS {
            group.bench_function(BenchmarkId::new(worker_s(workers), limit), |b| {
                b.iter_custom(|times| sum(times, || on(&runtime, fetched(limit))));
            });
        }
    }
    group.finish();
}

/// The context after a task has waited on it: cancellations are propagated to it, and it does not
/// read its ancestors any more.
fn waited_on(ctx: Context) -> Context {
    let mut cx = std::task::Context::from_waker(Waker::noop());
    assert!(pin!(ctx.done()).poll_unpin(&mut cx).is_pending());
    ctx
}

fn cancel_fan(children: usize, prepare: impl Fn(Context) -> Context) -> Duration {
    let (parent, guard) = Context::background().with_cancel();
    let children: Vec<_> = (0..children)
        .map(|_| prepare(parent.with_value(())))
        .collect();
    let took = timed(|| guard.cancel());
    assert!(children.iter().all(Context::is_done));
    took
}

async fn cancel_waiting(tasks: usize) -> Duration {
    let (ctx, guard) = Context::background().with_cancel();
    let running = Arc::new((AtomicUsize::new(0), Notify::new()));
    for _ in 0..tasks {
        let (ctx, running) = (ctx.clone(), running.clone());
        tokio::spawn(async move {
            let mut done = pin!(ctx.done());
            assert!(futures::poll!(&mut done).is_pending());
            let (count, changed) = &*running;
            if count.fetch_add(1, Ordering::AcqRel) + 1 == tasks {
                changed.notify_one();
            }
            done.await;
            if count.fetch_sub(1, Ordering::AcqRel) == 1 {
                changed.notify_one();
            }
        });
    }
    running.1.notified().await;
    let start = Instant::now();
    guard.cancel();
    running.1.notified().await;
    start.elapsed()
}

/// Tasks that yield once.
async fn through(limit: Option<usize>, tasks: usize) -> Duration {
    let start = Instant::now();
    let (g, _ctx) = Group::<String>::with_context(Context::background());
    g.set_limit(limit);
    for _ in 0..tasks {
        g.go(async {
            yield_now().await;
            Ok(())
        });
    }
    assert_eq!(g.wait().await, Ok(()));
    start.elapsed()
}

/// Items that yield once.
async fn fetched(limit: usize) -> Duration {
    let start = Instant::now();
    let ctx = Context::background();
    let results = fetch_all(&ctx, limit, 0..UNDER_A_LIMIT, |_ctx, item| async move {
        yield_now().await;
        Ok::<_, String>(item)
    });
    assert_eq!(results.await.map(|items| items.len()), Ok(UNDER_A_LIMIT));
    start.elapsed()
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn sum(times: u64, mut once: impl FnMut() -> Duration) -> Duration {
    (0..times).map(|_| once()).sum()
}

fn worker_s(workers: usize) -> String {
    match workers {
        1 => "1 worker".to_owned(),
        _ => format!("{workers} workers"),
    }
}

fn runtime(workers: usize) -> Runtime {
    match Builder::new_multi_thread().worker_threads(workers).build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// Runs `work` as a task, so that only the workers take part.
fn on<F>(runtime: &Runtime, work: F) -> Duration
where
    F: Future<Output = Duration> + Send + 'static,
{
    match runtime.block_on(runtime.spawn(work)) {
        Ok(took) => took,
        Err(error) => panic!("a benchmark failed: {error}"),
    }
}
