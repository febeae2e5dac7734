//! Tasks that are started and waited for: `go`, without a limit and with one.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use errgroup::{Context, Group};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};

use crate::table::{Row, Table};
use crate::workload::{Done, Workers, at_once, each, yields_once};

pub(crate) const TASKS: usize = 100_000;
pub(crate) const LIMIT: usize = 64;
/// The peer of the limited rows.
const BOUNDED_BY_HAND: &str = "JoinSet + Semaphore";
/// The numbers of tasks that request handlers start.
const FEW: [usize; 3] = [1, 3, 8];
const GROUPS: usize = 10_000;

pub(crate) fn rows(table: &mut Table, workers: &Workers) -> io::Result<()> {
    let limits = Limits {
        limited: (0.50, 0.35),
        awaited: (0.70, 0.40),
    };
    body(table, workers, "ends at once", limits, at_once)?;
    let limits = Limits {
        limited: (0.75, 0.50),
        awaited: (0.90, 0.70),
    };
    body(table, workers, "yields once", limits, yields_once)?;
    for tasks in FEW {
        table.pair(
            Row::new(
                format!("a group of {tasks} and its wait, yield once"),
                "JoinSet",
            )
            .at_most(1.50)
            .stretch(1.20),
            move || workers.run(many(move || unlimited_of(tasks, yields_once))),
            move || workers.run(many(move || join_set_of(tasks, yields_once))),
        )?;
    }
    Ok(())
}

/// The limit and the stretch of each row with a limited group.
#[derive(Clone, Copy)]
struct Limits {
    limited: (f64, f64),
    awaited: (f64, f64),
}

fn body<B, F>(
    table: &mut Table,
    workers: &Workers,
    name: &str,
    limits: Limits,
    body: B,
) -> io::Result<()>
where
    B: Fn() -> F + Copy + Send + 'static,
    F: Future<Output = Done> + Send + 'static,
{
    table.pair(
        Row::new(format!("go, {name}"), "JoinSet")
            .at_most(1.00)
            .stretch(0.70),
        || workers.run(unlimited(body)),
        || workers.run(join_set(body)),
    )?;
    table.pair(
        Row::new(format!("limited go, {name}"), BOUNDED_BY_HAND)
            .at_most(limits.limited.0)
            .stretch(limits.limited.1),
        || workers.run(limited(body)),
        || workers.run(acquire_inside(body)),
    )?;
    table.pair(
        Row::new(
            format!("limited go, running alone, {name}"),
            BOUNDED_BY_HAND,
        ),
        || workers.run(brought_before(body)),
        || workers.run(acquire_inside(body)),
    )?;
    table.pair(
        Row::new(
            format!("floor: a queue and a lock, {name}"),
            BOUNDED_BY_HAND,
        ),
        || workers.run(queue_and_lock(body)),
        || workers.run(acquire_inside(body)),
    )?;
    table.pair(
        Row::new(format!("limited go(..).await, {name}"), BOUNDED_BY_HAND)
            .at_most(limits.awaited.0)
            .stretch(limits.awaited.1),
        || workers.run(limited_awaited(body)),
        || workers.run(acquire_before(body)),
    )
}

fn group() -> (Group<String>, Context) {
    Group::with_context(Context::background())
}

/// One small group after another, as in request handlers. The time is for each group.
pub(crate) async fn many<F: Future>(group: impl Fn() -> F) -> f64 {
    let start = Instant::now();
    for _ in 0..GROUPS {
        group().await;
    }
    each(start, GROUPS)
}

pub(crate) async fn unlimited<F>(body: impl Fn() -> F) -> f64
where
    F: Future<Output = Done> + Send + 'static,
{
    let start = Instant::now();
    unlimited_of(TASKS, body).await;
    each(start, TASKS)
}

async fn unlimited_of<F>(tasks: usize, body: impl Fn() -> F)
where
    F: Future<Output = Done> + Send + 'static,
{
    let (g, _ctx) = group();
    for _ in 0..tasks {
        g.go(body());
    }
    assert_eq!(g.wait().await, Ok(()));
}

pub(crate) async fn limited<F>(body: impl Fn() -> F) -> f64
where
    F: Future<Output = Done> + Send + 'static,
{
    let start = Instant::now();
    let (g, _ctx) = group();
    g.set_limit(LIMIT);
    for _ in 0..TASKS {
        g.go(body());
    }
    assert_eq!(g.wait().await, Ok(()));
    each(start, TASKS)
}

/// The part of `limited` in which tasks run, while no more are started.
async fn brought_before<F>(body: impl Fn() -> F) -> f64
where
    F: Future<Output = Done> + Send + 'static,
{
    let (g, _ctx) = group();
    g.set_limit(0);
    for _ in 0..TASKS {
        g.go(body());
    }
    let start = Instant::now();
    g.set_limit(LIMIT);
    assert_eq!(g.wait().await, Ok(()));
    each(start, TASKS)
}

pub(crate) async fn limited_awaited<F>(body: impl Fn() -> F) -> f64
where
    F: Future<Output = Done> + Send + 'static,
{
    let start = Instant::now();
    let (g, _ctx) = group();
    g.set_limit(LIMIT);
    for _ in 0..TASKS {
        g.go(body()).await;
    }
    assert_eq!(g.wait().await, Ok(()));
    each(start, TASKS)
}

async fn join_set<F>(body: impl Fn() -> F) -> f64
where
    F: Future<Output = Done> + Send + 'static,
{
    let start = Instant::now();
    join_set_of(TASKS, body).await;
    each(start, TASKS)
}

async fn join_set_of<F>(count: usize, body: impl Fn() -> F)
where
    F: Future<Output = Done> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        tasks.spawn(body());
    }
    join_all(tasks).await;
}

/// All are spawned at once, and each acquires its permit.
async fn acquire_inside<F>(body: impl Fn() -> F) -> f64
where
    F: Future<Output = Done> + Send + 'static,
{
    let start = Instant::now();
    let (mut tasks, permits) = (JoinSet::new(), Arc::new(Semaphore::new(LIMIT)));
    for _ in 0..TASKS {
        let (permits, body) = (permits.clone(), body());
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            body.await
        });
    }
    join_all(tasks).await;
    each(start, TASKS)
}

/// Each is spawned when a permit has been acquired.
async fn acquire_before<F>(body: impl Fn() -> F) -> f64
where
    F: Future<Output = Done> + Send + 'static,
{
    let start = Instant::now();
    let (mut tasks, permits) = (JoinSet::new(), Arc::new(Semaphore::new(LIMIT)));
    for _ in 0..TASKS {
        let (permit, body) = (permits.clone().acquire_owned().await, body());
        tasks.spawn(async move {
            let _permit = permit;
            body.await
        });
    }
    join_all(tasks).await;
    each(start, TASKS)
}

/// The minimum of a bounded group of futures of any type: no errors, no panics, no context, and a
/// start that cannot be awaited.
async fn queue_and_lock<F>(body: impl Fn() -> F) -> f64
where
    F: Future<Output = Done> + Send + 'static,
{
    let start = Instant::now();
    let queue = Arc::new(Queue::default());
    let mut places = JoinSet::new();
    for _ in 0..LIMIT {
        let queue = queue.clone();
        places.spawn(async move {
            loop {
                // Read first, because the last one might be queued in between.
                let is_whole = queue.is_whole.load(Ordering::Acquire);
                let next = queue.futures.lock().unwrap().pop_front();
                match next {
                    Some(future) => future.await?,
                    None if is_whole => return Ok(()),
                    None => yield_now().await,
                }
            }
        });
    }
    for _ in 0..TASKS {
        let future = Box::pin(body());
        queue.futures.lock().unwrap().push_back(future);
    }
    queue.is_whole.store(true, Ordering::Release);
    join_all(places).await;
    each(start, TASKS)
}

#[derive(Default)]
struct Queue {
    futures: Mutex<VecDeque<Pin<Box<dyn Future<Output = Done> + Send>>>>,
    is_whole: AtomicBool,
}

async fn join_all(mut tasks: JoinSet<Done>) {
    while let Some(ended) = tasks.join_next().await {
        assert!(matches!(ended, Ok(Ok(()))));
    }
}
