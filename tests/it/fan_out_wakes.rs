//! Wakeups. Between a stream of outcomes and its consumer one could be lost: the race needs two
//! worker threads. On the caller's own task, an item is polled when it was woken, and only then.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};

use errgroup::{Context, fan_out, fan_out_stream};
use futures::{FutureExt, StreamExt};
use tokio::task::yield_now;

use crate::group_support::{in_time, yields};
use crate::support::compute;

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

/// An item that notes its polls and its last waker. It is ready in the given poll.
async fn noted(polls: &Cell<usize>, waker: &RefCell<Option<Waker>>, ready_in: usize) {
    poll_fn(|cx| {
        polls.set(polls.get() + 1);
        *waker.borrow_mut() = Some(cx.waker().clone());
        match polls.get() < ready_in {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    })
    .await;
}

/// Polls a future, which stays pending, until something is so. It yields when its polls have taken
/// too long, so one poll may not be enough.
async fn poll_until<F: Future>(mut future: Pin<&mut F>, is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        assert!(futures::poll!(future.as_mut()).is_pending());
        if is_so() {
            return;
        }
        yield_now().await;
    }
    panic!("it does not come to that in 10,000 polls");
}

#[tokio::test]
async fn only_the_local_item_that_was_woken_is_polled() {
    let ctx = Context::background();
    let polls: [Cell<usize>; 100] = std::array::from_fn(|_| Cell::new(0));
    let wakers: [RefCell<Option<Waker>>; 100] = std::array::from_fn(|_| RefCell::new(None));
    let all = fan_out(&ctx, 0..100, |_, item: usize| {
        noted(&polls[item], &wakers[item], usize::MAX).map(Ok::<_, String>)
    });
    let mut all = pin!(all.local().for_each());
    poll_until(all.as_mut(), || polls.iter().all(|polls| polls.get() > 0)).await;
    wakers[70].borrow().as_ref().unwrap().wake_by_ref();
    wakers[70].borrow().as_ref().unwrap().wake_by_ref();
    poll_until(all.as_mut(), || polls[70].get() > 1).await;
    assert!(futures::poll!(all.as_mut()).is_pending());
    for (item, polls) in polls.iter().enumerate() {
        assert_eq!(polls.get(), if item == 70 { 2 } else { 1 }, "{item}");
    }
}

#[tokio::test]
async fn a_waker_left_behind_wakes_no_later_local_item() {
    let ctx = Context::background();
    let polls: [Cell<usize>; 3] = Default::default();
    let wakers: [RefCell<Option<Waker>>; 3] = Default::default();
    // One at a time, so that all have the same slot. The first two end in their second poll.
    let all = fan_out(&ctx, 0..3, |_, item: usize| {
        let ready_in = if item == 2 { usize::MAX } else { 2 };
        noted(&polls[item], &wakers[item], ready_in).map(Ok::<_, String>)
    });
    let mut all = pin!(all.limit(1).local().for_each());
    for item in 0..2 {
        poll_until(all.as_mut(), || polls[item].get() == 1).await;
        wakers[item].borrow().as_ref().unwrap().wake_by_ref();
    }
    poll_until(all.as_mut(), || polls[2].get() == 1).await;
    for waker in &wakers[..2] {
        waker.take().unwrap().wake();
    }
    for _ in 0..3 {
        assert!(futures::poll!(all.as_mut()).is_pending());
        yield_now().await;
    }
    assert_eq!(polls[2].get(), 1);
    wakers[2].take().unwrap().wake();
    poll_until(all.as_mut(), || polls[2].get() == 2).await;
}

/// Wakes itself in its own poll, until `is_over`.
async fn spins(is_over: &Cell<bool>) {
    poll_fn(|cx| match is_over.get() {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[tokio::test]
async fn local_items_that_wake_themselves_keep_none_from_starting() {
    let ctx = Context::background();
    let is_over = Cell::new(false);
    let all = fan_out(&ctx, 0..10_usize, async |_, item| {
        match item {
            9 => is_over.set(true),
            _ => spins(&is_over).await,
        }
        Ok::<_, String>(())
    });
    assert_eq!(in_time(all.local().for_each()).await, Ok(()));
}

#[tokio::test]
async fn local_items_that_wake_themselves_yield_to_their_task() {
    let ctx = Context::background();
    let (is_over, polls) = (Cell::new(false), Cell::new(0));
    let all = fan_out(&ctx, 0..2, async |_, _| {
        let mut spins = pin!(spins(&is_over));
        poll_fn(|cx| {
            polls.set(polls.get() + 1);
            spins.as_mut().poll(cx)
        })
        .await;
        Ok::<_, String>(())
    });
    let other = async {
        yields(10).await;
        is_over.set(true);
    };
    let both = futures::future::join(all.local().for_each(), other);
    assert_eq!(in_time(both).await.0, Ok(()));
    // The other future of the task is polled between two polls of an item.
    assert!(polls.get() < 50, "{} polls", polls.get());
}

/// Runs items of which all but the first are ready at their first poll, and each calls `work`. The
/// iterator has no end. The first item, which yields once, must have run on before this many
/// outcomes have come.
async fn assert_first_runs_on_within(most: usize, work: impl Fn()) {
    let ctx = Context::background();
    let is_woken = Cell::new(false);
    let mut outcomes = pin!(
        fan_out(&ctx, 0_u64.., async |_, item| {
            if item == 0 {
                yield_now().await;
                is_woken.set(true);
            }
            work();
            Ok::<_, String>(item)
        })
        .limit(2)
        .local()
        .stream()
    );
    let mut came = 0;
    while !is_woken.get() {
        outcomes.next().await.unwrap().unwrap();
        came += 1;
        assert!(came < most, "the first item starves");
    }
}

#[tokio::test]
async fn items_that_are_ready_at_once_keep_no_local_item_waiting() {
    assert_first_runs_on_within(10_000, || {}).await;
}

/// Each of them takes longer than the budget of a poll.
#[tokio::test]
async fn slow_items_that_are_ready_at_once_keep_none_waiting() {
    assert_first_runs_on_within(10, compute).await;
}

/// The waker of a task. Its count is that of the clones.
struct TaskWaker;

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_local_fan_out_that_was_dropped_keeps_no_waker_of_its_task() {
    let ctx = Context::background();
    // Kept for long, as a timer or a channel may keep it.
    let waker = RefCell::new(None);
    let polls = Cell::new(0);
    let all = fan_out(&ctx, 0..1, |_, _| {
        noted(&polls, &waker, usize::MAX).map(Ok::<_, String>)
    });
    let mut all = Box::pin(all.local().for_each());
    let task = Arc::new(TaskWaker);
    let of_task = Waker::from(task.clone());
    let mut cx = task::Context::from_waker(&of_task);
    assert!(all.as_mut().poll(&mut cx).is_pending());
    // The first poll ends at its budget on a busy machine.
    assert!(all.as_mut().poll(&mut cx).is_pending());
    assert_eq!(Arc::strong_count(&task), 3);
    drop(all);
    assert_eq!(Arc::strong_count(&task), 2);
    waker.take().unwrap().wake();
}
