//! What fan-outs cost in memory. Counted for one thread, so everything runs on a current-thread runtime.
//!
//! Ten million items with optimizations, a million without: `cargo test --release --test allocs_fan_out`.

use std::future::Future;

use allocation_counter::{AllocationInfo, measure};
use errgroup::{Context, fan_out, fan_out_stream};
use futures::StreamExt;
use tokio::runtime::{Builder, Runtime};

const MANY: usize = if cfg!(debug_assertions) {
    1_000_000
} else {
    10_000_000
};
const FEW: usize = MANY / 100;

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
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
fn a_hundred_times_the_items_through_for_each_take_no_more_memory() {
    assert_flat(|items| async move {
        let each = fan_out(&Context::background(), 0..items, trivial).limit(64);
        each.for_each().await.unwrap();
    });
}

#[test]
fn a_hundred_times_the_items_through_a_stream_take_no_more_memory() {
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

#[test]
fn a_hundred_times_the_items_through_three_stages_take_no_more_memory() {
    assert_flat(|items| async move {
        let (ctx, items) = (Context::background(), items / 10);
        let first = fan_out(&ctx, 0..items, trivial).limit(16).ordered_stream();
        let second = fan_out_stream(&ctx, first, |_, item| async { item });
        let second = second.limit(8).try_stream();
        let third = fan_out_stream(&ctx, second, |_, item| async { item });
        third.limit(4).for_each().await.unwrap();
    });
}
