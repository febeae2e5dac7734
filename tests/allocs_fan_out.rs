//! The memory that fan-outs cost. It is counted for one thread, so everything runs on a
//! current-thread runtime.
//!
//! Ten million items in a release build, a million in a debug build: `cargo test --release --test
//! allocs_fan_out`.
//!
//! The budgets are those without feature `inspect`, with which each task has an entry in a table.

#![cfg(not(feature = "inspect"))]

use std::future::{Future, ready};
use std::pin::pin;
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use errgroup::{Context, fan_out, fan_out_stream, fetch_all, hedge};
use futures::channel::mpsc;
use futures::{StreamExt, poll};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::yield_now;

const MANY: usize = if cfg!(debug_assertions) {
    1_000_000
} else {
    10_000_000
};
const FEW: usize = MANY / 100;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn measured<F: Future>(future: F) -> AllocationInfo {
    let runtime = runtime();
    // What the runtime itself keeps from its first use on.
    runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });
    measure(|| drop(runtime.block_on(future)))
}

/// A hundred times the items take no more memory at any moment, and leave nothing.
fn assert_flat<F: Future>(run: impl Fn(usize) -> F) {
    // What the thread keeps from its first use on.
    measured(run(FEW));
    let (few, many) = (measured(run(FEW)), measured(run(MANY)));
    assert_eq!(many.bytes_current, 0);
    assert!(
        many.bytes_max <= few.bytes_max + 1024,
        "{} bytes at most, and {} for few",
        many.bytes_max,
        few.bytes_max
    );
}

async fn trivial(_: Context, item: usize) -> Result<usize, String> {
    Ok(item)
}

#[test]
fn for_each_of_100_times_the_items_takes_no_more_memory() {
    assert_flat(|items| async move {
        let each = fan_out(&Context::background(), 0..items, trivial).limit(64);
        each.for_each().await.unwrap();
    });
}

#[test]
fn a_stream_of_100_times_the_items_takes_no_more_memory() {
    assert_flat(|items| async move {
        let mut stream = fan_out(&Context::background(), 0..items, trivial)
            .limit(64)
            .stream();
        let mut came = 0;
        while let Some(item) = stream.next().await {
            item.unwrap();
            came += 1;
        }
        assert_eq!(came, items);
    });
}

/// The futures of the items, their wakers and the list of both are freed when no item is in flight.
#[test]
fn a_local_stream_keeps_nothing_of_a_burst() {
    let (ctx, gate, runtime) = (Context::background(), Semaphore::new(0), runtime());
    let (sender, items) = mpsc::unbounded();
    let gate = &gate;
    let wait = |_, item: usize| async move {
        gate.acquire().await.unwrap().forget();
        Ok::<_, String>(item)
    };
    let stream = fan_out_stream(&ctx, items, wait).local().stream();
    let mut stream = pin!(stream);
    let mut burst = |count| {
        for item in 0..count {
            sender.unbounded_send(item).unwrap();
        }
        runtime.block_on(async {
            assert!(poll!(stream.next()).is_pending());
            gate.add_permits(count);
            for _ in 0..count {
                stream.next().await.unwrap().unwrap();
            }
            assert!(poll!(stream.next()).is_pending());
        });
    };
    burst(64);
    let kept = measure(|| burst(10_000)).bytes_current;
    // How many outcomes wait at once depends on the time that the polls take, and their queue keeps
    // a little. The burst itself is more than a megabyte.
    assert!(kept < 32_768, "{kept} bytes");
}

#[test]
fn three_stages_of_100_times_the_items_take_no_more_memory() {
    assert_flat(|items| async move {
        let (ctx, items) = (Context::background(), items / 10);
        let first = fan_out(&ctx, 0..items, trivial).limit(16).ordered_stream();
        let second = fan_out_stream(&ctx, first, |_, item| async { item });
        let second = second.limit(8).try_stream();
        let third = fan_out_stream(&ctx, second, |_, item| async { item });
        third.limit(4).for_each().await.unwrap();
    });
}

async fn yields(_: Context, item: usize) -> Result<usize, String> {
    yield_now().await;
    Ok(item)
}

/// For no item, and for a thousand.
type Made = (u64, u64);
/// For no item, and for each of many.
type Budget = (u64, u64);

fn allocations<F: Future>(run: impl Fn(usize) -> F) -> Made {
    let made = |items| measured(run(items)).count_total;
    // What the thread keeps from its first use on.
    made(1_000);
    (made(0), made(1_000))
}

/// What workers, buffers and lists that grow may take besides, however many items there are.
const ONCE: u64 = 160;

/// Fails, and lists every budget that is exceeded.
#[track_caller]
fn check(calls: &[(&str, Made, Budget)]) {
    let over: Vec<_> = calls
        .iter()
        .filter(|(_, made, budget)| {
            made.0 > budget.0 || made.1 > budget.0 + 1_000 * budget.1 + ONCE
        })
        .map(|(call, made, budget)| format!("{call}: {made:?} for 0 and 1,000; {budget:?}"))
        .collect();
    assert!(over.is_empty(), "{over:#?}");
}

macro_rules! budgets {
    ($($run:expr => $budget:expr),+ $(,)?) => {
        check(&[$((stringify!($run), allocations($run), $budget)),+])
    };
}

#[test]
fn an_item_is_at_most_one_allocation_at_every_end() {
    let ctx = &Context::background();
    let over = |items| fan_out(ctx, 0..items, yields).limit(8);
    budgets! {
        async |n| fetch_all(ctx, 8, 0..n, yields).await => (18, 1),
        async |n| over(n).all().await => (18, 1),
        async |n| over(n).for_each().await => (18, 1),
        async |n| over(n).settle().await => (18, 1),
        async |n| over(n).try_stream().count().await => (18, 1),
        async |n| over(n).stream().count().await => (18, 1),
        async |n| over(n).ordered_stream().count().await => (18, 1),
        async |n| over(n).quorum(n).await => (11, 0),
        async |n| over(n).named("item").for_each().await => (18, 1),
        async |n| over(n).on_progress(|_| ()).for_each().await => (18, 0),
    }
}

#[test]
fn an_item_on_the_callers_own_task_allocates_nothing() {
    let ctx = &Context::background();
    let over = |items| fan_out(ctx, 0..items, yields).limit(8).local();
    budgets! {
        async |n| over(n).all().await => (3, 0),
        async |n| over(n).for_each().await => (3, 0),
        async |n| over(n).settle().await => (3, 0),
        async |n| over(n).try_stream().count().await => (3, 0),
        async |n| over(n).stream().count().await => (3, 0),
        async |n| over(n).ordered_stream().count().await => (3, 0),
        async |n| over(n).quorum(n).await => (3, 0),
    }
}

#[test]
fn a_failure_before_a_success_is_at_most_one_allocation_more() {
    let ctx = &Context::background();
    let fails = |_, _| ready(Err::<(), _>(String::new()));
    let over = |items| fan_out(ctx, 0..items, fails).limit(8);
    budgets! {
        async |n| over(n).settle().await => (18, 0),
        async |n| over(n).first_ok().await => (15, 1),
        async |n| over(n).local().first_ok().await => (7, 1),
    }
}

#[test]
fn a_hedge_is_at_most_27_allocations_and_two_per_attempt() {
    let ctx = &Context::background();
    let fails = |_, _| ready(Err::<(), _>(String::new()));
    budgets! {
        async |_| hedge(ctx, Duration::from_secs(1), 3, yields).await => (27, 0),
        async |n| hedge(ctx, Duration::from_secs(1), n.max(1), fails).await => (23, 2),
    }
}

#[test]
fn a_fan_out_not_awaited_is_at_most_five_allocations() {
    let ctx = &Context::background();
    budgets! {
        async |n| drop(fan_out(ctx, 0..n, yields)) => (0, 0),
        async |n| drop(fan_out(ctx, 0..n, yields).named("item").limit(8).local()) => (0, 0),
        async |n| drop(fan_out(ctx, 0..n, yields).all()) => (5, 0),
        async |n| drop(fan_out(ctx, 0..n, yields).stream()) => (5, 0),
        async |n| drop(fan_out(ctx, 0..n, yields).local().all()) => (3, 0),
    }
}
