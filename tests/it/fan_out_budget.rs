//! Futures and streams of a fan-out that are ready at once take part in tokio's cooperative budget.
//! A loop over them lets other tasks run, and can be aborted and timed out.

use std::future::ready;
use std::pin::pin;
use std::sync::mpsc;
use std::task;
use std::thread;
use std::time::Duration;

use errgroup::{Context, fan_out_stream, fetch_all, hedge};
use futures::{FutureExt, StreamExt, stream};
use tokio::runtime::Builder;
use tokio::task::coop;

use crate::fan_out_support::*;
use crate::group_support::*;

both_flavours![
    a_fan_out_on_a_done_context_uses_the_budget,
    a_fan_out_without_items_uses_the_budget,
    a_quorum_of_nothing_uses_the_budget,
    a_fetch_all_and_a_hedge_on_a_done_context_use_the_budget,
    a_stream_that_has_ended_uses_the_budget,
    outcomes_that_wait_use_the_budget,
    a_consumer_without_budget_is_woken_again,
];

/// A context that is done.
fn done() -> Context {
    background().with_timeout(Duration::ZERO)
}

/// Polls one future after another, in one poll of the task, until one is pending. Then awaits that
/// one, which completes only if it was woken.
async fn assert_pending_at_last<F: Future>(mut make: impl FnMut() -> F) {
    // The first may be pending until it sees that its context is done.
    make().await;
    tokio::task::yield_now().await;
    for _ in 0..10_000 {
        let mut future = pin!(make());
        if futures::poll!(future.as_mut()).is_pending() {
            future.await;
            return;
        }
    }
    panic!("10,000 were ready in one poll");
}

async fn a_fan_out_on_a_done_context_uses_the_budget() {
    for end in each_end() {
        let ctx = done();
        assert_pending_at_last(|| end.of(fan_out(&ctx, 0..3, |_, _| ready(OK)))).await;
    }
}

async fn a_fan_out_without_items_uses_the_budget() {
    for end in each_end() {
        assert_pending_at_last(|| end.of(fan_out(&background(), 0..0, |_, _| ready(OK)))).await;
        let none = || fan_out_stream(&background(), stream::empty::<()>(), |_, ()| ready(OK));
        assert_pending_at_last(|| end.of(none())).await;
    }
}

async fn a_quorum_of_nothing_uses_the_budget() {
    in_each_place!(|at| {
        let quorum = || at!(fan_out(&background(), 0..3, |_, _| ready(OK))).quorum(0);
        assert_pending_at_last(quorum).await;
    });
}

async fn a_fetch_all_and_a_hedge_on_a_done_context_use_the_budget() {
    let ctx = done();
    assert_pending_at_last(|| fetch_all(&ctx, 8, 0..3, |_, _| ready(OK))).await;
    assert_pending_at_last(|| hedge(&ctx, Duration::ZERO, 3, |_, _| ready(OK))).await;
}

async fn a_stream_that_has_ended_uses_the_budget() {
    for end in each_stream() {
        let mut ended = end.stream(fan_out(&background(), 0..3, |_, _| ready(OK)));
        while ended.next().await.is_some() {}
        for polls in 0.. {
            assert!(polls < 10_000, "10,000 were ready in one poll");
            if futures::poll!(ended.next()).is_pending() {
                break;
            }
        }
        assert_eq!(ended.next().await, None);
    }
}

async fn outcomes_that_wait_use_the_budget() {
    for end in each_stream() {
        // All of them are stopped at once, and then wait for the consumer.
        let (ctx, guard) = background().with_cancel();
        let begun = Count::default();
        let begins = begun.clone();
        let mut stopped = end.stream(fan_out(&ctx, 0..1_000, move |_, _| {
            begins.add();
            std::future::pending::<Result<(), String>>()
        }));
        while begun.get() < 1_000 {
            assert!(futures::poll!(stopped.next()).is_pending());
            tokio::task::yield_now().await;
        }
        drop(guard);
        // All outcomes are ready as soon as one of them is.
        let mut came = usize::from(stopped.next().await.is_some());
        let mut pending = 0;
        loop {
            match futures::poll!(stopped.next()) {
                task::Poll::Ready(None) => break,
                task::Poll::Ready(Some(_)) => came += 1,
                task::Poll::Pending => {
                    pending += 1;
                    came += usize::from(stopped.next().await.is_some());
                }
            }
        }
        assert!(came == 1 || pending > 0, "{came} came in one poll");
    }
}

async fn a_consumer_without_budget_is_woken_again() {
    for end in each_stream() {
        let mut values = end.stream(fan_out(&background(), 0..3, |_, _| ready(OK)).limit(3));
        let mut came = 0;
        loop {
            while coop::has_budget_remaining() {
                tokio::task::consume_budget().await;
            }
            assert!(futures::poll!(values.next()).is_pending());
            match values.next().await {
                Some(value) => came += usize::from(value.is_ok()),
                None => break,
            }
        }
        assert_eq!(came, 3);
    }
}

/// Runs `body` on its own thread and runtime, so that a defect hangs that thread and not the test.
fn on_a_thread<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body());
        done.send(()).unwrap();
    });
    is_done
        .recv_timeout(PATIENCE)
        .expect("the loop was not aborted");
}

/// A client that retries for ever although its context is done.
async fn retries() {
    let ctx = done();
    loop {
        let tried = fetch_all(&ctx, 8, 0..3, |_, _| ready(OK)).await;
        assert!(tried.is_err());
    }
}

#[test]
fn a_loop_over_fan_outs_can_be_aborted() {
    on_a_thread(|| async {
        let task = tokio::spawn(retries());
        yields(3).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn a_loop_over_fan_outs_can_be_timed_out() {
    on_a_thread(|| async {
        let tried = tokio::time::timeout(Duration::from_millis(1), retries());
        assert!(tried.await.is_err());
    });
}

#[test]
fn a_loop_over_a_stream_that_has_ended_can_be_aborted() {
    on_a_thread(|| async {
        let task = tokio::spawn(async {
            let none = errgroup::fan_out(&background(), 0..0, |_, _: i32| ready(OK));
            let mut none = none.stream();
            loop {
                assert!(none.next().map(|next| next.is_none()).await);
            }
        });
        yields(3).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    });
}
