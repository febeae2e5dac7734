//! The memory that groups cost. It is counted for one thread, so everything runs on a
//! current-thread runtime.
//!
//! The budgets are those without feature `inspect`, with which each task has an entry in a table.

#![cfg(not(feature = "inspect"))]

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use errgroup::{Context, Group, fetch_all};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, poll};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, yield_now};

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

/// Runs this many tasks in a group that stays alive. Each yields once.
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

/// Makes this many tasks wait at once, and then end.
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

/// The queues of the group and of tokio keep their largest capacity: about two words for each task.
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
fn bursts_through_an_unlimited_group_keep_nothing() {
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

/// Queues this many local tasks, one after another, and drops each before it starts.
async fn local_tasks_that_go(g: &G, tasks: usize) {
    for _ in 0..tasks {
        let set = LocalSet::new();
        let inside = set.enter();
        let admission = g.go_local(pending());
        drop(inside);
        drop(set);
        assert!(!admission.await.is_started());
    }
}

#[test]
fn local_tasks_dropped_while_queued_keep_nothing() {
    for limit in [0, 1] {
        let (runtime, g) = (runtime(), G::new());
        g.set_limit(limit);
        let _inside = runtime.enter();
        g.go(pending());
        runtime.block_on(local_tasks_that_go(&g, 2_000));
        let kept = bytes_kept(&runtime, local_tasks_that_go(&g, MANY));
        // Each has failed, and failures are counted once there are many.
        assert!(
            kept < 4096,
            "limit {limit}: {kept} bytes of {MANY} local tasks"
        );
    }
}

/// The bytes that a queue with a few tasks that wait may keep of the others.
const SHORT_QUEUE: i64 = 32 * 1024;

/// Queues this many reservations. Each is dropped when the next one is queued, so it is in the
/// middle of the queue.
async fn reservations_that_go(g: &G, reservations: usize) {
    let mut last = Box::pin(g.reserve());
    assert!(poll!(&mut last).is_pending());
    for _ in 0..reservations {
        let mut next = Box::pin(g.reserve());
        assert!(poll!(&mut next).is_pending());
        last = next;
    }
    assert_eq!(g.queued(), 2);
    drop(last);
}

/// The same of tasks that their handle stops.
async fn tasks_that_are_stopped(g: &G, tasks: usize) {
    let mut last = g.spawn(pending::<Result<(), String>>());
    for _ in 0..tasks {
        let next = g.spawn(pending());
        last.abort();
        last = next;
        yield_now().await;
    }
    assert_eq!(g.queued(), 2);
    last.abort();
    yield_now().await;
}

/// The same of local tasks, whose `LocalSet` is dropped.
async fn local_tasks_in_the_middle(g: &G, tasks: usize) {
    let queue_one = || {
        let set = LocalSet::new();
        let inside = set.enter();
        drop(g.go_local(pending()));
        drop(inside);
        set
    };
    let mut last = queue_one();
    for _ in 0..tasks {
        last = queue_one();
    }
    assert_eq!(g.queued(), 2);
    drop(last);
}

/// Measures how many bytes there are at most while many leave the middle of a queue whose first
/// task stays.
fn assert_queue_stays_short(what: &str, many: impl AsyncFn(&G, usize)) {
    let (runtime, g) = (runtime(), G::new());
    g.set_limit(0);
    let _inside = runtime.enter();
    g.go(pending());
    // The local tasks have failed, and failures are counted once there are many.
    runtime.block_on(many(&g, 2_000));
    let most = measure(|| runtime.block_on(many(&g, BURST))).bytes_max as i64;
    assert!(most < SHORT_QUEUE, "{most} bytes at most for {what}");
    assert_eq!(g.queued(), 1, "{what}");
}

#[test]
fn what_leaves_the_middle_of_a_queue_keeps_nothing() {
    assert_queue_stays_short("reservations", reservations_that_go);
    assert_queue_stays_short("tasks", tasks_that_are_stopped);
    assert_queue_stays_short("local tasks", local_tasks_in_the_middle);
}

/// A queue that was long keeps no memory for that when a few of its tasks still wait.
#[test]
fn a_queue_that_has_become_short_keeps_little() {
    type Nth = fn(usize) -> usize;
    let orders: [(&str, Nth); 3] = [
        ("first to last", |at| at),
        ("last to first", |at| BURST - 1 - at),
        // 7 has no factor in common with the number of tasks.
        ("here and there", |at| at * 7 % BURST),
    ];
    for (order, nth) in orders {
        let (runtime, g) = (runtime(), G::new());
        g.set_limit(0);
        let _inside = runtime.enter();
        g.go(pending());
        let kept = bytes_kept(&runtime, async {
            let mut waits: Vec<_> = (0..BURST).map(|_| Some(Box::pin(g.reserve()))).collect();
            for wait in waits.iter_mut().flatten() {
                assert!(poll!(wait).is_pending());
            }
            for at in 0..BURST {
                waits[nth(at)] = None;
            }
        });
        assert!(kept < 8 * SHORT_QUEUE, "{order}: {kept} bytes");
        assert_eq!(g.queued(), 1);
    }
}

/// Lets a task that takes a permit of `rounds` for each of its rounds run this many, and waits
/// until it has finished the last one.
async fn run_rounds(rounds: &Semaphore, times: usize) {
    rounds.add_permits(times);
    while rounds.available_permits() > 0 {
        yield_now().await;
    }
    for _ in 0..10 {
        yield_now().await;
    }
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
    runtime.block_on(run_rounds(&rounds, 10));
    assert_eq!(bytes_kept(&runtime, run_rounds(&rounds, MANY)), 0);
}

/// A task polls the handle of a task that never ends through a new list each time,
/// and drops the list. It lends its permit for the polls that end pending.
#[test]
fn asks_through_a_new_list_each_time_keep_nothing() {
    let (runtime, g) = (runtime(), G::new());
    g.set_limit(2);
    let rounds = Arc::new(Semaphore::new(0));
    let (spawner, starts) = (g.spawner(), rounds.clone());
    {
        let _inside = runtime.enter();
        g.go(async move {
            let never = spawner.spawn(pending::<Result<(), String>>());
            let mut handle = std::pin::pin!(never);
            loop {
                starts.acquire().await.unwrap().forget();
                let mut list: FuturesUnordered<_> = [handle.as_mut()].into_iter().collect();
                assert!(poll!(list.next()).is_pending());
                yield_now().await;
            }
        });
    }
    runtime.block_on(run_rounds(&rounds, 10));
    assert_eq!(bytes_kept(&runtime, run_rounds(&rounds, 50_000)), 0);
}

#[test]
fn a_waiting_task_costs_at_most_256_bytes_over_a_bare_spawn() {
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
fn a_queued_task_costs_its_future_and_its_queue_entry() {
    let (runtime, g) = (runtime(), G::new());
    g.set_limit(0);
    let queued = bytes_kept(&runtime, async {
        for _ in 0..BURST {
            g.go(pending());
        }
    });
    let each = queued / BURST as i64;
    assert!(each <= 296, "{each} bytes each");
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

/// The number of allocations of one call of `each`, including the start and the end of its task,
/// after one-time allocations.
fn allocations<R>(each: impl AsyncFn(&G) -> R) -> u64 {
    const CALLS: u64 = 1_000;
    let runtime = Builder::new_current_thread()
        .enable_time()
        // A closure that finds no thread idle starts none, which would count.
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_secs(3600))
        .build()
        .unwrap();
    let (local, g) = (LocalSet::new(), G::new());
    g.set_limit(4);
    let calls = |calls| {
        let run = || {
            local.block_on(&runtime, async {
                for _ in 0..calls {
                    drop(each(&g).await);
                    until_idle(&g).await;
                }
            });
        };
        measure(run).count_total
    };
    calls(CALLS);
    // The difference of two runs, so that the allocations of `block_on` do not count. It is
    // rounded, so that a buffer that grows does not count.
    let (few, many) = (calls(CALLS), calls(2 * CALLS));
    (many - few + CALLS / 2) / CALLS
}

/// Fails, and lists every budget that is exceeded.
#[track_caller]
fn check(calls: &[(&str, u64, u64)]) {
    let over: Vec<_> = calls
        .iter()
        .filter(|(_, made, budget)| made > budget)
        .map(|(call, made, budget)| format!("{call}: {made} allocations, budget {budget}"))
        .collect();
    assert!(over.is_empty(), "{over:#?}");
}

/// What `each` allocates in each call, at most.
macro_rules! budgets {
    ($($each:expr => $budget:expr),+ $(,)?) => {
        check(&[$((stringify!($each), allocations($each), $budget)),+])
    };
}

async fn ok() -> Result<(), String> {
    Ok(())
}

#[test]
fn a_task_is_two_allocations_over_a_bare_spawn() {
    let bare = allocations(async |_| tokio::spawn(ok()).await);
    budgets! {
        async |g| g.go(ok()) => bare + 2,
        async |g| g.go(ok()).await => bare + 2,
        async |g| g.go_with(|_| ok()) => bare + 2,
        async |g| g.go_cancellable(ok()) => bare + 2,
        async |g| g.try_go(ok()).unwrap() => bare + 2,
        // One more for the job on its way into the pool, which may drop it.
        async |g| g.go_blocking(|_| Ok(())) => bare + 3,
        async |g| g.go_local(ok()) => bare + 1,
    }
}

#[test]
fn a_task_that_yields_allocates_no_more() {
    let yields = || async {
        yield_now().await;
        Ok(())
    };
    budgets! {
        async |g| g.go(yields()) => 3,
        async |g| g.go_cancellable(yields()) => 3,
        async |g| g.go_local(yields()) => 2,
    }
}

#[test]
fn a_name_is_allocated_only_by_its_maker() {
    budgets! {
        async |g| drop(g.named("task")) => 0,
        async |g| g.named("task").go(ok()) => 3,
        async |g| g.named(String::from("task")).go(ok()) => 4,
    }
}

#[test]
fn a_spawner_costs_nothing_and_starts_as_the_group_does() {
    budgets! {
        async |g| g.spawner() => 0,
        async |g| g.spawner().clone().go(ok()) => 3,
        async |g| g.spawner().named("task").go(ok()) => 3,
    }
}

#[test]
fn a_handle_is_two_more_and_awaiting_it_one() {
    budgets! {
        async |g| drop(g.spawn(async { Ok(7) })) => 5,
        async |g| g.spawn(async { Ok(7) }).await.unwrap() => 6,
    }
}

#[test]
fn a_start_is_eight_allocations_from_call_to_end() {
    let starts = async |g: &G| {
        let ready = g.start(|_, ready| async {
            ready.ok(7);
            Ok(())
        });
        ready.await.unwrap()
    };
    budgets! {
        starts => 8,
        async |g| drop(g.start(|_, ready| async { ready.ok(7); Ok(()) })) => 0,
    }
}

#[test]
fn waiting_for_a_permit_is_no_allocation_and_awaiting_it_two() {
    budgets! {
        async |g| {
            g.set_limit(0);
            drop(g.go(ok()));
            g.set_limit(4);
        } => 3,
        async |g| {
            g.set_limit(0);
            let mut admission = g.go(ok());
            assert!(futures::poll!(&mut admission).is_pending());
            g.set_limit(4);
            assert!(admission.await.is_started());
        } => 5,
        async |g| {
            g.set_limit(0);
            g.try_go(ok()).unwrap_err();
            g.set_limit(4);
        } => 0,
    }
}

#[test]
fn getters_and_setters_of_a_group_allocate_nothing() {
    budgets! {
        async |g| (g.limit(), g.running(), g.queued(), g.context()) => 0,
        async |g| g.set_limit(4) => 0,
        async |g| (g.set_grace(Duration::from_secs(1)), g.set_grace(None)) => 0,
    }
}

#[test]
fn a_group_is_four_allocations_and_its_end_at_most_two() {
    budgets! {
        async |_| G::new() => 4,
        async |_| G::with_context(Context::background()) => 4,
        async |_| G::new().cancel() => 4,
        async |_| G::new().abort() => 4,
        async |_| G::new().wait().await.unwrap() => 6,
        async |_| G::new().wait_all().await.unwrap() => 6,
        async |_| G::with_context(Context::background()).0.wait().await.unwrap() => 6,
        async |_| G::scope(&Context::background(), async |_, _| Ok(())).await.unwrap() => 6,
    }
}

#[test]
fn a_failure_is_one_allocation_more_than_a_success() {
    let group = async |result: Result<(), String>| {
        let g = G::new();
        g.go(async { result });
        g
    };
    budgets! {
        async |_| group(Ok(())).await.wait().await.unwrap() => 11,
        async |_| group(Err(String::new())).await.wait().await.unwrap_err() => 12,
        async |_| group(Err(String::new())).await.wait_all().await.unwrap_err() => 12,
    }
}
