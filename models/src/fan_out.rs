//! The workers of a fan-out at its item source, and the consumer of its results.

use std::sync::Arc;

use errgroup::{Context, fan_out, fan_out_stream};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::{block_on, check};

/// A function with a point at which loom may switch threads, like a pull that takes some time.
fn slow() -> impl Fn() + Send {
    let calls = AtomicUsize::new(0);
    move || _ = calls.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn two_workers_pull_every_item_once() {
    check(2, || {
        let slow = slow();
        let all = fan_out(&Context::background(), 0..3, move |_, item| {
            slow();
            async move { Ok::<_, String>(item) }
        });
        assert_eq!(block_on(all.limit(2).all()), Ok(vec![0, 1, 2]));
    });
}

/// An iterator that does not say how many items it has. So no item has a worker of its own.
fn uncounted(mut items: std::ops::Range<usize>) -> impl Iterator<Item = usize> + Send {
    std::iter::from_fn(move || items.next())
}

#[test]
fn a_worker_that_finds_the_iterator_in_use_is_woken() {
    one_of_two_pulls_the_second_item(2, || uncounted(0..2));
}

#[test]
fn a_worker_of_one_item_that_finds_the_iterator_in_use_is_replaced() {
    one_of_two_pulls_the_second_item(1, || 0..2);
}

fn one_of_two_pulls_the_second_item<I>(
    preemptions: usize,
    items: impl Fn() -> I + Sync + Send + 'static,
) where
    I: Iterator<Item = usize> + Send + 'static,
{
    check(preemptions, move || {
        let (second, guard) = Context::background().with_cancel();
        let (second, guard) = (Arc::new(second), Arc::new(guard));
        let slow = slow();
        let all = fan_out(&Context::background(), items(), move |_, item| {
            slow();
            let (second, guard) = (second.clone(), guard.clone());
            async move {
                match item {
                    // The worker of this item waits, so another worker has to pull the other item.
                    0 => drop(second.done().await),
                    _ => guard.cancel(),
                }
                Ok::<_, String>(())
            }
        });
        assert_eq!(block_on(all.limit(2).for_each()), Ok(()));
    });
}

#[test]
fn a_cancel_of_the_context_stops_the_pulling() {
    check(1, || {
        let (ctx, guard) = Context::background().with_cancel();
        let cancels = thread::spawn(move || guard.cancel());
        // A stream, so that the item has no worker of its own.
        let items = futures::stream::iter(0..1);
        let all = fan_out_stream(&ctx, items, |_, item| async move { Ok::<_, String>(item) });
        let results = block_on(all.limit(1).settle());
        assert_eq!(results.len(), 1);
        cancels.join().unwrap();
    });
}

#[test]
fn a_cancel_stops_the_worker_of_one_item() {
    check(1, || {
        let (ctx, guard) = Context::background().with_cancel();
        let cancels = thread::spawn(move || guard.cancel());
        let all = fan_out(&ctx, 0..1, |_, _| {
            std::future::pending::<Result<(), String>>()
        });
        let results = block_on(all.settle());
        assert_eq!(results.len(), 1);
        assert!(results.iter().all(Result::is_err));
        cancels.join().unwrap();
    });
}

#[test]
fn a_fan_out_dropped_while_its_item_begins_to_wait_stops_the_item() {
    check(2, || {
        let mut all = Box::pin(
            fan_out(&Context::background(), 0..1, |_, _| {
                std::future::pending::<Result<(), String>>()
            })
            .all(),
        );
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(all.as_mut().poll(&mut cx).is_pending());
        drop(all);
    });
}

#[test]
fn a_consumer_is_woken_for_each_outcome() {
    check(2, || {
        let stream = fan_out(&Context::background(), 0..2, |_, item| async move {
            Ok::<_, String>(item)
        });
        let mut stream = Box::pin(stream.limit(1).stream());
        let mut came = Vec::new();
        while let Some(result) = block_on(std::future::poll_fn(|cx| {
            futures::Stream::poll_next(stream.as_mut(), cx)
        })) {
            came.push(result.unwrap());
        }
        assert_eq!(came, [0, 1]);
    });
}

#[test]
fn a_fan_out_that_is_dropped_half_way_leaves_nothing_running() {
    check(2, || {
        let mut all = Box::pin(
            fan_out(
                &Context::background(),
                uncounted(0..2),
                |_, item| async move { Ok::<_, String>(item) },
            )
            .all(),
        );
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = all.as_mut().poll(&mut cx);
        drop(all);
    });
}

#[test]
fn the_last_item_is_counted_before_the_source_is_exhausted() {
    check(2, || {
        // It does not say how many items it has, so another worker comes to pull.
        let mut items = 0..1;
        let items = std::iter::from_fn(move || items.next());
        let first = fan_out(&Context::background(), items, |ctx, item| async move {
            ctx.check()
                .map(|()| item)
                .map_err(|error| error.to_string())
        });
        assert_eq!(block_on(first.limit(2).first_ok()).ok(), Some(0));
    });
}

#[test]
fn items_on_the_callers_task_are_woken() {
    check(2, || {
        let (first, ends_first) = Context::background().with_cancel();
        let (second, ends_second) = Context::background().with_cancel();
        let ends = thread::spawn(move || {
            ends_first.cancel();
            ends_second.cancel();
        });
        let waited = [first, second];
        let all = fan_out(&Context::background(), 0..2, |_, item: usize| {
            let waited = &waited;
            async move {
                waited[item].done().await;
                Ok::<_, String>(item)
            }
        });
        assert_eq!(block_on(all.local().all()), Ok(vec![0, 1]));
        ends.join().unwrap();
    });
}

/// The wakes of one item: each comes with a count, which the item must see.
struct Counted {
    count: AtomicUsize,
    waker: loom::sync::Mutex<Option<std::task::Waker>>,
}

impl Counted {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let waker = self.waker.lock().unwrap().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[test]
fn an_item_that_is_woken_during_its_poll_is_polled_again() {
    check(2, || {
        let counted = Arc::new(Counted {
            count: AtomicUsize::new(0),
            waker: loom::sync::Mutex::new(None),
        });
        let adds = counted.clone();
        let adds = thread::spawn(move || {
            adds.add();
            adds.add();
        });
        let all = fan_out(&Context::background(), 0..1, |_, _| {
            let counted = &counted;
            std::future::poll_fn(move |cx| {
                *counted.waker.lock().unwrap() = Some(cx.waker().clone());
                match counted.count.load(Ordering::Relaxed) {
                    2 => std::task::Poll::Ready(Ok::<_, String>(())),
                    _ => std::task::Poll::Pending,
                }
            })
        });
        assert_eq!(block_on(all.local().for_each()), Ok(()));
        adds.join().unwrap();
    });
}

#[test]
fn the_end_of_the_context_stops_items_on_the_callers_task() {
    check(2, || {
        let (ctx, guard) = Context::background().with_cancel();
        let cancels = thread::spawn(move || guard.cancel());
        let all = fan_out(&ctx, 0..2, |_, _| {
            std::future::pending::<Result<(), String>>()
        });
        let results = block_on(all.limit(1).local().settle());
        assert_eq!(results.len(), 2);
        assert!(results.iter().all(Result::is_err));
        cancels.join().unwrap();
    });
}
