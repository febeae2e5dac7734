//! Wakeups that could be lost between a stream of outcomes and its consumer. The race needs two
//! worker threads.

use errgroup::{Context, fan_out, fan_out_stream};
use futures::StreamExt;
use tokio::task::yield_now;

use crate::group_support::in_time;

/// The number of items, each of which is a chance for the race.
const ITEMS: usize = 20_000;

async fn after_a_yield(item: usize) -> Result<usize, String> {
    yield_now().await;
    Ok(item)
}

/// With a limit of 1, there is no other outcome that could make up for a lost wakeup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_is_ready_while_the_consumer_polls_wakes_it() {
    let ctx = Context::background();
    let stream = fan_out(&ctx, 0..ITEMS, |_, item| after_a_yield(item)).limit(1);
    let all = tokio::spawn(stream.stream().count());
    assert_eq!(in_time(all).await.unwrap(), ITEMS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_is_ready_while_the_next_stage_polls_wakes_it() {
    let ctx = Context::background();
    let first = fan_out(&ctx, 0..ITEMS, |_, item| after_a_yield(item)).limit(1);
    let second = fan_out_stream(&ctx, first.try_stream(), |_, item| async { item });
    let all = tokio::spawn(second.limit(1).for_each());
    in_time(all).await.unwrap().unwrap();
}
