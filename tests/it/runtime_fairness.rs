//! A worker yields to the other tasks of its runtime, however long the user's code takes.
//!
//! Each piece of user code here computes for longer than a worker may run in one poll. So a second
//! one in the same poll is a fault, however slow the machine is.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use errgroup::{Context, fan_out, fan_out_stream, fetch_all};
use futures::{Stream, StreamExt, stream};
use tokio::task::yield_now;

use crate::group_support::*;
use crate::support::compute;

/// How many pieces of user code each test runs.
const PIECES: usize = 40;

/// Runs `work` beside a task that yields all the time. Returns the maximum by which `count` grew
/// between two polls of that task.
async fn most_between_turns(count: &Count, work: impl Future<Output = ()>) -> usize {
    let mut work = std::pin::pin!(work);
    let mut most = 0;
    let mut last = count.get();
    let turns = poll_fn(|cx| {
        let ended = work.as_mut().poll(cx);
        most = most.max(count.get() - last);
        last = count.get();
        if ended.is_ready() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    turns.await;
    most
}

/// The most tasks of a burst that get a worker each. Such a worker is a task of the runtime like
/// any other, so all of them may run between two turns.
const MOST_IN_BURST: usize = 8;

/// Runs `work` on a runtime of one thread. It counts each piece of user code, and no two of them
/// may run in one poll.
#[track_caller]
fn one_at_a_time<F: Future<Output = ()>>(work: impl FnOnce(Count) -> F) {
    one_at_a_time_after(0, work);
}

/// The same, if the first pieces have a worker each: at most `own` of them.
#[track_caller]
fn one_at_a_time_after<F: Future<Output = ()>>(own: usize, work: impl FnOnce(Count) -> F) {
    let count = Count::default();
    let most = current_thread().block_on(in_time(async {
        most_between_turns(&count, work(count.clone())).await
    }));
    assert!(count.get() >= PIECES, "only {} pieces ran", count.get());
    assert!(
        most <= own + 2,
        "{most} pieces of user code between two turns"
    );
}

async fn computes(count: Count) -> Result<(), String> {
    compute();
    count.add();
    Ok(())
}

/// Counts and computes when it is dropped.
struct SlowDrop(Count);

impl Drop for SlowDrop {
    fn drop(&mut self) {
        compute();
        self.0.add();
    }
}

/// A paused group, whose queued tasks compute when they are dropped.
fn queue_of_slow_drops(count: &Count) -> G {
    let g = limited(0);
    for _ in 0..PIECES {
        let held = SlowDrop(count.clone());
        g.go(async move {
            drop(held);
            Ok(())
        });
    }
    g
}

#[test]
fn tasks_without_a_limit_yield() {
    one_at_a_time_after(MOST_IN_BURST, |count| async move {
        let (g, _ctx) = group();
        for _ in 0..PIECES {
            g.go(computes(count.clone()));
        }
        assert_eq!(g.wait().await, OK);
    });
}

#[test]
fn tasks_under_a_limit_yield() {
    for limit in [1, 4] {
        one_at_a_time_after(limit, |count| async move {
            let g = limited(limit);
            for _ in 0..PIECES {
                g.go(computes(count.clone()));
            }
            assert_eq!(g.wait().await, OK);
        });
    }
}

#[test]
fn tasks_that_compute_after_an_await_yield() {
    one_at_a_time(|count| async move {
        // With a higher limit, each would have its own worker, which is a task like any other.
        let g = limited(1);
        for _ in 0..PIECES {
            let count = count.clone();
            g.go(async move {
                yield_now().await;
                computes(count).await
            });
        }
        assert_eq!(g.wait().await, OK);
    });
}

#[test]
fn tasks_that_become_slow_after_quick_ones_yield() {
    let count = Count::default();
    let most = current_thread().block_on(in_time(async {
        let g = limited(1);
        for _ in 0..500 {
            g.go(async { Ok(()) });
        }
        for _ in 0..PIECES {
            g.go(computes(count.clone()));
        }
        most_between_turns(&count, async { assert_eq!(g.wait().await, OK) }).await
    }));
    // After quick ones, the clock is read after every sixteenth.
    assert!(most <= 17, "{most} slow tasks between two turns");
}

#[test]
fn a_chain_of_quick_tasks_yields() {
    fn chain(s: errgroup::Spawner<String>, count: Count) {
        let next = s.clone();
        s.go(async move {
            if count.add() < 20_000 {
                chain(next, count);
            }
            Ok(())
        });
    }
    let count = Count::default();
    let most = current_thread().block_on(in_time(async {
        let (g, _ctx) = group();
        chain(g.spawner(), count.clone());
        most_between_turns(&count, async { assert_eq!(g.wait().await, OK) }).await
    }));
    assert_eq!(count.get(), 20_000);
    assert!(most <= 256, "{most} tasks between two turns");
}

#[test]
fn items_that_compute_yield() {
    one_at_a_time(|count| async move {
        let done = fetch_all(&Context::background(), 4, 0..PIECES, move |_, _| {
            computes(count.clone())
        });
        assert_eq!(done.await.map(|done| done.len()), Ok(PIECES));
    });
}

#[test]
fn an_iterator_that_computes_yields() {
    one_at_a_time(|count| async move {
        let items = (0..PIECES).inspect(move |_| {
            compute();
            count.add();
        });
        let done = fetch_all(&Context::background(), 4, items, |_, _| async { OK });
        assert!(done.await.is_ok());
    });
}

#[test]
fn a_function_that_computes_yields() {
    one_at_a_time(|count| async move {
        let done = fan_out(&Context::background(), 0..PIECES, move |_, _| {
            compute();
            count.add();
            async { OK }
        });
        assert_eq!(done.limit(4).for_each().await, OK);
    });
}

#[test]
fn a_stream_of_items_that_computes_yields() {
    one_at_a_time(|count| async move {
        let items = stream::iter(0..PIECES).inspect(move |_| {
            compute();
            count.add();
        });
        let done = fan_out_stream(&Context::background(), items, |_, _| async { OK });
        assert_eq!(done.limit(4).for_each().await, OK);
    });
}

#[test]
fn progress_reports_that_compute_yield() {
    one_at_a_time(|count| async move {
        let done = fan_out(&Context::background(), 0..PIECES, |_, _| async { OK });
        let done = done.limit(4).on_progress(move |_| {
            compute();
            count.add();
        });
        assert_eq!(done.for_each().await, OK);
    });
}

#[test]
fn destructors_of_queued_tasks_yield_after_a_cancel() {
    one_at_a_time(|count| async move {
        let g = queue_of_slow_drops(&count);
        g.cancel();
        assert!(g.wait().await.is_err());
    });
}

#[test]
fn destructors_of_queued_tasks_yield_after_an_abort() {
    one_at_a_time(|count| async move {
        let g = queue_of_slow_drops(&count);
        let before = count.get();
        g.abort();
        assert_eq!(count.get(), before, "an abort drops nothing by itself");
        assert!(g.wait().await.is_err());
    });
}

#[test]
fn destructors_of_queued_tasks_yield_after_a_drop() {
    one_at_a_time(|count| async move {
        let g = queue_of_slow_drops(&count);
        drop(g);
        until(|| count.get() == PIECES).await;
    });
}

#[test]
fn queued_tasks_are_dropped_with_a_runtime_that_shuts_down() {
    let count = Count::default();
    let runtime = current_thread();
    let g = runtime.block_on(async {
        let g = queue_of_slow_drops(&count);
        g.abort();
        g
    });
    drop(runtime);
    assert_eq!(count.get(), PIECES);
    let errors = current_thread().block_on(in_time(g.wait_all()));
    assert_eq!(errors.unwrap_err().len(), PIECES);
}

#[test]
fn a_second_abort_does_not_keep_queued_tasks() {
    current_thread().block_on(in_time(async {
        let count = Count::default();
        let g = queue_of_slow_drops(&count);
        g.abort();
        yield_now().await;
        g.abort();
        yield_now().await;
        drop(g);
        until(|| count.get() == PIECES).await;
    }));
}

/// Items on the caller's own task are polled by it, as many as are ready.
fn local<S>(items: S, count: Count) -> impl Future<Output = Result<(), String>>
where
    S: Stream<Item = usize>,
{
    fan_out_stream(&Context::background(), items, move |_, _| {
        computes(count.clone())
    })
    .limit(4)
    .local()
    .for_each()
}

#[test]
fn local_items_that_compute_and_wait_in_turns_yield() {
    one_at_a_time(|count| async move {
        let done = fan_out(&Context::background(), 0..8, move |_, _| {
            let count = count.clone();
            async move {
                for piece in 0..5 {
                    // Before each piece, so that no poll of an item is quick.
                    if piece > 0 {
                        yield_now().await;
                    }
                    compute();
                    count.add();
                }
                OK
            }
        });
        assert_eq!(done.local().for_each().await, OK);
    });
}

#[test]
fn a_consumer_of_a_local_stream_that_computes_yields() {
    one_at_a_time(|count| async move {
        let done = fan_out(&Context::background(), 0..PIECES, move |_, _| {
            computes(count.clone())
        });
        let mut done = done.limit(4).local().stream();
        while let Some(done) = done.next().await {
            assert_eq!(done, OK);
        }
    });
}

#[test]
fn local_items_that_compute_yield() {
    one_at_a_time(|count| async move {
        let mut done = Box::pin(local(stream::iter(0..PIECES), count));
        assert_eq!(Pin::new(&mut done).await, OK);
    });
}
