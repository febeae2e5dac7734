//! A fan-out keeps the tasks that it needs now, and not those that a burst needed.

use std::sync::Arc;

use errgroup::{Context, fan_out_stream};
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::group_support::*;

both_flavours![
    a_burst_leaves_few_tasks_behind,
    a_second_burst_runs_as_the_first_did,
    a_burst_of_a_pipeline_leaves_few_tasks_behind,
];

const BURST: usize = 2_000;

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// A stream of the items that a test sends. It does not end.
fn items() -> (
    mpsc::UnboundedSender<usize>,
    impl futures::Stream<Item = usize> + Send + Unpin + 'static,
) {
    let (send, mut receive) = mpsc::unbounded_channel();
    let items = futures::stream::poll_fn(move |cx| receive.poll_recv(cx));
    (send, items)
}

async fn a_burst_leaves_few_tasks_behind() {
    let (send, items) = items();
    let gate = Gate::new();
    let gated = gate.clone();
    let mut done = fan_out_stream(&Context::background(), items, move |_, item| {
        let gate = gated.clone();
        async move {
            gate.pass().await;
            Ok::<_, String>(item)
        }
    })
    .stream();
    let before = tasks();
    (0..BURST).for_each(|item| send.send(item).unwrap());
    assert!(futures::poll!(done.next()).is_pending());
    until(|| tasks() >= before + BURST).await;
    gate.open();
    for _ in 0..BURST {
        assert!(done.next().await.unwrap().is_ok());
    }
    // The worker that waits for the next item, and at most 32 idle ones.
    until(|| tasks() <= before + 33).await;
}

async fn a_second_burst_runs_as_the_first_did() {
    let (send, items) = items();
    let mut done = fan_out_stream(&Context::background(), items, move |_, item| async move {
        tokio::task::yield_now().await;
        Ok::<_, String>(item)
    })
    .stream();
    for _ in 0..3 {
        (0..BURST).for_each(|item| send.send(item).unwrap());
        let mut sum = 0;
        for _ in 0..BURST {
            sum += done.next().await.unwrap().unwrap();
        }
        assert_eq!(sum, BURST * (BURST - 1) / 2);
        until(|| tasks() <= 40).await;
    }
}

async fn a_burst_of_a_pipeline_leaves_few_tasks_behind() {
    let (send, items) = items();
    let ctx = Context::background();
    let held = Arc::new(());
    let holds = held.clone();
    let first = fan_out_stream(&ctx, items, move |_, item| {
        let held = holds.clone();
        async move {
            tokio::task::yield_now().await;
            drop(held);
            Ok::<_, String>(item)
        }
    })
    .stream();
    let mut done = fan_out_stream(&ctx, first, |_, item| async move { item }).stream();
    (0..BURST).for_each(|item| send.send(item).unwrap());
    for _ in 0..BURST {
        assert!(done.next().await.unwrap().is_ok());
    }
    until(|| tasks() <= 70).await;
    // The function holds one of them.
    assert_eq!(Arc::strong_count(&held), 2);
}
