//! `fan_out_blocking`: its ends and options, what is waited for, what never begins, and where
//! destructors run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::thread::{self, ThreadId};
use std::time::Duration;

use errgroup::{Context, Progress, TaskErrorKind, fan_out_blocking};
use futures::{FutureExt, StreamExt};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::sleep;

use crate::fan_out_support::*;
use crate::group_support::*;
use crate::support::{Drops, HOUR, OnDrop, PATIENCE, ms, tasks_end};

both_flavours! {
    each_end_gives_what_it_gives_elsewhere,
    without_items_each_end_resolves,
    a_call_runs_on_the_blocking_pool,
    the_default_limit_is_the_number_of_cores,
    at_most_limit_run_at_once_and_none_is_no_limit,
    a_limit_of_zero_panics_only_if_there_is_an_item,
    a_handle_changes_the_limit,
    items_are_named_in_errors,
    progress_counts_each_call,
    the_first_error_waits_for_the_calls_that_run,
    a_cancelled_end_waits_for_the_calls_that_run_and_keeps_their_results,
    a_deadline_is_noticed_and_running_calls_are_awaited,
    first_ok_waits_for_the_losers,
    a_call_sees_that_the_context_is_done,
    stop_waits_for_the_calls_that_run,
    a_stream_gives_results_of_calls_that_ended_late,
    a_panic_is_resumed_when_all_calls_have_ended,
    a_panic_after_the_end_of_the_context_is_resumed,
    a_panic_of_a_destructor_is_resumed,
    destructors_may_block,
    a_dropped_end_lets_a_running_call_end,
    nothing_starts_before_the_first_poll,
    a_builder_that_is_dropped_drops_everything_on_the_pool,
}

/// A call that runs until it is let go.
#[derive(Clone)]
struct Held {
    gate: Arc<(std::sync::Mutex<usize>, std::sync::Condvar)>,
    running: Gauge,
    ended: Count,
}

impl Held {
    fn new() -> Held {
        Held {
            gate: Arc::default(),
            running: Gauge::default(),
            ended: Count::default(),
        }
    }

    /// Blocks the thread until `let_go` has been called for one more call.
    fn block(&self) {
        let alive = self.running.enter();
        let (left, changed) = &*self.gate;
        let left = left.lock().unwrap();
        let (mut left, timeout) = changed
            .wait_timeout_while(left, PATIENCE, |left| *left == 0)
            .unwrap();
        assert!(!timeout.timed_out(), "it was not let go");
        *left -= 1;
        drop(left);
        drop(alive);
        self.ended.add();
    }

    fn let_go(&self, count: usize) {
        *self.gate.0.lock().unwrap() += count;
        self.gate.1.notify_all();
    }

    async fn run(&self, count: usize) {
        until(|| self.running.now() == count).await;
    }
}

/// Whether this thread may block: not if it polls tasks.
fn may_block() -> bool {
    let may = || Handle::current().block_on(std::future::ready(()));
    Handle::try_current().is_err() || std::panic::catch_unwind(may).is_ok()
}

async fn each_end_gives_what_it_gives_elsewhere() {
    let call = |_: Context, item: usize| match item {
        7 => Err("seven".to_owned()),
        _ => Ok(2 * item),
    };
    let ctx = background();
    let over = |items: std::ops::Range<usize>| fan_out_blocking(&ctx, items, call);

    assert_eq!(in_time(over(0..5).all()).await.unwrap(), [0, 2, 4, 6, 8]);
    assert_eq!(in_time(over(5..9).all()).await.unwrap_err(), "seven");
    assert_eq!(in_time(over(0..5).for_each()).await, OK);
    let settled = in_time(over(6..9).settle()).await;
    assert_eq!(settled, [Ok(12), Err("seven".to_owned()), Ok(16)]);
    let ordered: Vec<_> = in_time(over(6..9).ordered_stream().collect()).await;
    assert_eq!(ordered, settled);
    let mut some: Vec<_> = in_time(over(6..9).stream().collect()).await;
    some.sort();
    assert_eq!(some, [Ok(12), Ok(16), Err("seven".to_owned())]);
    let mut indexed: Vec<_> = in_time(over(6..9).indexed_stream().collect()).await;
    indexed.sort();
    assert_eq!(indexed, settled.into_iter().enumerate().collect::<Vec<_>>());
    let tried: Vec<_> = in_time(over(7..30).limit(1).try_stream().collect()).await;
    assert_eq!(tried, [Err("seven".to_owned())]);
    assert_eq!(in_time(over(7..9).first_ok()).await.unwrap(), 16);
    assert_eq!(
        in_time(over(0..9).limit(1).quorum(2)).await.unwrap(),
        [0, 2]
    );
    let errors = in_time(over(7..8).quorum(1)).await.unwrap_err();
    assert_eq!(errors.iter().next().unwrap().kind().to_string(), "seven");
}

async fn without_items_each_end_resolves() {
    let none = || fan_out_blocking(&background(), Vec::<u8>::new(), |_, _| OK);
    assert_eq!(in_time(none().all()).await, Ok(vec![]));
    assert_eq!(in_time(none().for_each()).await, OK);
    assert_eq!(in_time(none().settle()).await, []);
    assert_eq!(in_time(none().stream().count()).await, 0);
    assert_eq!(in_time(none().indexed_stream().count()).await, 0);
    assert!(in_time(none().first_ok()).await.is_err());
    assert_eq!(in_time(none().quorum(0)).await.unwrap(), []);
}

async fn a_call_runs_on_the_blocking_pool() {
    let (caller, threads) = (thread::current().id(), Log::<ThreadId>::new());
    let log = threads.clone();
    let all = fan_out_blocking(&background(), 0..8, move |_, item| {
        log.add(thread::current().id());
        assert!(may_block());
        // The call may use what needs a runtime.
        Ok::<u32, String>(Handle::current().block_on(async move { item }))
    });
    assert!(in_time(all.all()).await.unwrap().into_iter().eq(0..8));
    assert!(!threads.get().contains(&caller));
}

async fn the_default_limit_is_the_number_of_cores() {
    let (cores, held) = (thread::available_parallelism().unwrap().get(), Held::new());
    let holds = held.clone();
    let all = fan_out_blocking(&background(), 0..3 * cores, move |_, _| {
        holds.block();
        OK
    });
    let all = tokio::spawn(all.all());
    held.run(cores).await;
    yields(50).await;
    assert_eq!(held.running.now(), cores);
    held.let_go(3 * cores);
    in_time(all).await.unwrap().unwrap();
    assert_eq!(held.running.most(), cores);
}

async fn at_most_limit_run_at_once_and_none_is_no_limit() {
    for limit in [Some(1), Some(3), None] {
        let held = Held::new();
        let holds = held.clone();
        let all = fan_out_blocking(&background(), 0..7, move |_, _| {
            holds.block();
            OK
        });
        let all = tokio::spawn(all.limit(limit).all());
        held.run(limit.unwrap_or(7)).await;
        held.let_go(7);
        in_time(all).await.unwrap().unwrap();
        assert_eq!(held.running.most(), limit.unwrap_or(7));
    }
}

async fn a_limit_of_zero_panics_only_if_there_is_an_item() {
    let over = |items| fan_out_blocking(&background(), 0..items, |_, _| OK).limit(0);
    assert_eq!(in_time(over(0).all()).await.unwrap(), []);
    let message = text(panic_of(over(1).all()).await);
    assert!(message.starts_with("a fan-out with a limit of 0 never starts its items"));
}

async fn a_handle_changes_the_limit() {
    let held = Held::new();
    let holds = held.clone();
    let all = fan_out_blocking(&background(), 0..9, move |_, _| {
        holds.block();
        OK
    });
    let (all, limit) = all.limit(1).limit_handle();
    let all = tokio::spawn(all.all());
    held.run(1).await;
    limit.set_limit(4);
    held.run(4).await;
    limit.set_limit(0);
    held.let_go(4);
    until(|| held.ended.get() == 4).await;
    yields(50).await;
    assert_eq!(held.running.now(), 0);
    held.let_go(9);
    limit.set_limit(2);
    in_time(all).await.unwrap().unwrap();
}

async fn items_are_named_in_errors() {
    let failing = fan_out_blocking(&background(), 0..2, |_, _: u8| {
        Err::<(), _>("bad".to_owned())
    });
    let errors = in_time(failing.named("hash").limit(1).first_ok())
        .await
        .unwrap_err();
    let names: Vec<_> = errors.iter().map(|task| task.name().unwrap()).collect();
    assert_eq!(names, ["hash[0]", "hash[1]"]);
}

async fn progress_counts_each_call() {
    let log = Log::new();
    let logs = log.clone();
    let all = fan_out_blocking(&background(), 0..5, |_, item| match item {
        3 => Err("bad".to_owned()),
        _ => Ok(()),
    });
    in_time(all.on_progress(move |progress| logs.add(progress)).settle()).await;
    let last = Progress {
        started: 5,
        done: 4,
        failed: 1,
        size_hint: (5, Some(5)),
    };
    assert_eq!(log.get().last(), Some(&last));
    assert_eq!(log.len(), 10);
}

/// Polls the future for a while: it must be pending.
async fn assert_pending(future: &mut (impl Future<Output: Sized> + Unpin)) {
    for _ in 0..100 {
        assert!(futures::poll!(&mut *future).is_pending());
        tokio::task::yield_now().await;
    }
}

async fn the_first_error_waits_for_the_calls_that_run() {
    let (held, begun) = (Held::new(), Count::default());
    let (holds, begins) = (held.clone(), begun.clone());
    let all_begun = Barrier::new(3);
    let all = fan_out_blocking(&background(), 0..50, move |ctx, item| {
        begins.add();
        all_begun.wait();
        if item == 2 {
            return Err("bad".to_owned());
        }
        while !ctx.is_done() {
            thread::sleep(ms(1));
        }
        holds.block();
        OK
    });
    let mut all = Box::pin(all.limit(3).all());
    until_polled(&mut all, || begun.get() == 3 && held.running.now() == 2).await;
    assert_pending(&mut all).await;
    held.let_go(2);
    assert_eq!(in_time(all).await.unwrap_err(), "bad");
    assert_eq!((held.ended.get(), begun.get()), (2, 3));
}

/// Polls the future, which must not be ready, until the condition holds.
async fn until_polled(future: &mut (impl Future + Unpin), condition: impl Fn() -> bool) {
    in_time(async {
        while !condition() {
            assert!(future.now_or_never().is_none());
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn a_cancelled_end_waits_for_the_calls_that_run_and_keeps_their_results() {
    for grace in [Duration::ZERO, ms(1), HOUR] {
        let (held, (ctx, guard)) = (Held::new(), background().with_cancel());
        let holds = held.clone();
        let settle = fan_out_blocking(&ctx, 0..20, move |_, item| {
            holds.block();
            match item {
                0 => Err("late".to_owned()),
                _ => Ok(item),
            }
        });
        let mut settle = Box::pin(settle.limit(3).grace(grace).settle());
        until_polled(&mut settle, || held.running.now() == 3).await;
        guard.cancel();
        assert_pending(&mut settle).await;
        held.let_go(3);
        let settled = in_time(settle).await;
        assert_eq!(held.ended.get(), 3);
        assert_eq!(settled[..3], [Err("late".to_owned()), Ok(1), Ok(2)]);
        let stopped = Err("context cancelled".to_owned());
        assert_eq!(settled[3..], vec![stopped; 17]);
    }
}

async fn a_deadline_is_noticed_and_running_calls_are_awaited() {
    let (held, begun) = (Held::new(), Count::default());
    let (holds, begins) = (held.clone(), begun.clone());
    // Long enough that two threads have begun, also on a busy machine.
    let ctx = background().with_timeout(ms(1_000));
    let settle = fan_out_blocking(&ctx, 0..20, move |ctx, item| {
        begins.add();
        while !ctx.is_done() {
            thread::sleep(ms(1));
        }
        holds.block();
        Ok::<_, String>(item)
    });
    let settle = tokio::spawn(settle.limit(2).settle());
    until(|| begun.get() == 2).await;
    // A clock that is paused does not advance by itself while a closure runs.
    match Handle::current().metrics().num_workers() {
        1 => tokio::time::advance(ms(1_005)).await,
        _ => sleep(ms(1_005)).await,
    }
    held.run(2).await;
    held.let_go(2);
    let settled = in_time(settle).await.unwrap();
    assert_eq!(settled[..2], [Ok(0), Ok(1)]);
    let late = Err("context deadline exceeded".to_owned());
    assert_eq!(settled[2..], vec![late; 18]);
}

async fn first_ok_waits_for_the_losers() {
    let held = Held::new();
    let holds = held.clone();
    let all_begun = Barrier::new(3);
    let first = fan_out_blocking(&background(), 0..3, move |ctx, item| {
        all_begun.wait();
        if item == 1 {
            return Ok(item);
        }
        while !ctx.is_done() {
            thread::sleep(ms(1));
        }
        holds.block();
        Err("lost".to_owned())
    });
    let mut first = Box::pin(first.limit(3).first_ok());
    until_polled(&mut first, || held.running.now() == 2).await;
    assert_pending(&mut first).await;
    held.let_go(2);
    assert_eq!(in_time(first).await.unwrap(), 1);
    assert_eq!(held.ended.get(), 2);
}

async fn a_call_sees_that_the_context_is_done() {
    let ((ctx, guard), begun) = (background().with_cancel(), Count::default());
    let begins = begun.clone();
    let all = fan_out_blocking(&ctx, 0..9, move |ctx: Context, _| {
        begins.add();
        loop {
            ctx.check()?;
            thread::sleep(ms(1));
        }
        #[expect(unreachable_code, reason = "it says what the error is")]
        OK
    });
    let all = tokio::spawn(all.limit(2).all());
    until(|| begun.get() == 2).await;
    guard.cancel();
    assert_eq!(
        in_time(all).await.unwrap().unwrap_err(),
        "context cancelled"
    );
    assert_eq!(begun.get(), 2);
}

async fn stop_waits_for_the_calls_that_run() {
    let held = Held::new();
    let holds = held.clone();
    let drops = Drops::default();
    let (in_f, items) = (
        drops.counted(),
        (0..9).map(|_| drops.counted()).collect::<Vec<_>>(),
    );
    let stream = fan_out_blocking(&background(), items, move |_, item| {
        let _ = &in_f;
        let _item = item;
        holds.block();
        OK
    });
    let mut stream = stream.limit(3).indexed_stream();
    until_polled(&mut stream.next(), || held.running.now() == 3).await;
    let mut stop = Box::pin(stream.stop());
    assert_pending(&mut stop).await;
    held.let_go(3);
    in_time(stop).await;
    assert_eq!((held.ended.get(), drops.count()), (3, 10));
}

async fn a_stream_gives_results_of_calls_that_ended_late() {
    let (held, (ctx, guard)) = (Held::new(), background().with_cancel());
    let holds = held.clone();
    let stream = fan_out_blocking(&ctx, 0..9, move |_, item| {
        holds.block();
        Ok::<_, String>(item)
    });
    let mut stream = stream.limit(2).ordered_stream();
    until_polled(&mut stream.next(), || held.running.now() == 2).await;
    guard.cancel();
    held.let_go(2);
    let all: Vec<_> = in_time(stream.collect()).await;
    assert_eq!(all, [Ok(0), Ok(1)]);
}

async fn a_panic_is_resumed_when_all_calls_have_ended() {
    let held = Held::new();
    let holds = held.clone();
    let all_begun = Barrier::new(3);
    let settle = fan_out_blocking(&background(), 0..20, move |ctx, item| {
        all_begun.wait();
        assert_ne!(item, 1, "at row {item}");
        while !ctx.is_done() {
            thread::sleep(ms(1));
        }
        holds.block();
        OK
    });
    let mut settle = Box::pin(settle.limit(3).settle());
    until_polled(&mut settle, || held.running.now() == 2).await;
    assert_pending(&mut settle).await;
    held.let_go(2);
    assert!(text(panic_of(settle).await).contains("at row 1"));
    assert_eq!(held.ended.get(), 2);
}

async fn a_panic_after_the_end_of_the_context_is_resumed() {
    let (held, (ctx, guard)) = (Held::new(), background().with_cancel());
    let holds = held.clone();
    let all = fan_out_blocking(&ctx, 0..2, move |_, item| {
        holds.block();
        assert_ne!(item, 0, "late");
        OK
    });
    let mut all = Box::pin(all.limit(2).all());
    until_polled(&mut all, || held.running.now() == 2).await;
    guard.cancel();
    held.let_go(2);
    assert!(text(panic_of(all).await).contains("late"));
}

async fn a_panic_of_a_destructor_is_resumed() {
    // Of the function.
    let bomb = OnDrop(|| panic!("in f"));
    let all = fan_out_blocking(&background(), 0..3, move |_, _| {
        let _ = &bomb;
        OK
    });
    assert_eq!(text(panic_of(all.all()).await), "in f");
    // Of the iterator, which is not exhausted.
    let bomb = OnDrop(|| panic!("in the iterator"));
    let items = (0..).inspect(move |_| {
        let _ = &bomb;
    });
    let all = fan_out_blocking(&background(), items, |_, _| Err::<(), _>("bad".to_owned()));
    assert_eq!(text(panic_of(all.all()).await), "in the iterator");
    // Of an item.
    let items = [OnDrop(|| panic!("in an item"))];
    let all = fan_out_blocking(&background(), items, |_, item| {
        drop(item);
        OK
    });
    assert_eq!(text(panic_of(all.all()).await), "in an item");
}

/// Panics where it is dropped if that thread polls tasks, and counts its drops.
struct Client {
    drops: Count,
    _runtime: Runtime,
}

impl Client {
    fn new(drops: &Count) -> Client {
        Client {
            drops: drops.clone(),
            _runtime: Builder::new_current_thread().build().unwrap(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        assert!(may_block(), "it is dropped on a thread that polls tasks");
        self.drops.add();
    }
}

async fn destructors_may_block() {
    // Items that begin, items that never begin, an iterator that is not exhausted, the function.
    for bad in [0, 2, 99] {
        let drops = Count::default();
        let items: Vec<_> = (0..6).map(|item| (item, Client::new(&drops))).collect();
        let in_f = Client::new(&drops);
        let all = fan_out_blocking(&background(), items, move |_, (item, client)| {
            let _ = (&in_f, &client);
            match item == bad {
                true => Err("bad".to_owned()),
                false => Ok(()),
            }
        });
        assert_eq!(in_time(all.limit(2).all()).await.is_err(), bad < 6);
        assert_eq!(drops.get(), 7, "everything has been dropped");
    }
    // A stream that is dropped half-way.
    let drops = Count::default();
    let items: Vec<_> = (0..6).map(|_| Client::new(&drops)).collect();
    let stream = fan_out_blocking(&background(), items, |_, client| {
        drop(client);
        OK
    });
    let mut stream = stream.limit(1).stream();
    in_time(stream.next()).await.unwrap().unwrap();
    drop(stream);
    until(|| drops.get() == 6).await;
}

async fn a_dropped_end_lets_a_running_call_end() {
    let (held, drops) = (Held::new(), Drops::default());
    let (holds, in_f) = (held.clone(), drops.counted());
    let all = fan_out_blocking(&background(), 0..9, move |ctx, _| {
        let _ = &in_f;
        holds.block();
        assert_eq!(ctx.cause().unwrap().to_string(), "the fan-out was dropped");
        Err::<(), _>("unseen".to_owned())
    });
    let mut all = Box::pin(all.limit(2).all());
    until_polled(&mut all, || held.running.now() == 2).await;
    drop(all);
    assert_eq!(held.running.now(), 2);
    held.let_go(2);
    until(|| drops.count() == 1).await;
    assert_eq!(held.ended.get(), 2);
    tasks_end().await;
}

async fn nothing_starts_before_the_first_poll() {
    let begun = Count::default();
    let begins = begun.clone();
    let all = fan_out_blocking(&background(), 0..9, move |_, _| {
        begins.add();
        OK
    });
    let all = all.all();
    yields(20).await;
    assert_eq!(begun.get(), 0);
    in_time(all).await.unwrap();
    assert_eq!(begun.get(), 9);
}

async fn a_builder_that_is_dropped_drops_everything_on_the_pool() {
    let drops = Count::default();
    let (item, in_f) = (Client::new(&drops), Client::new(&drops));
    let all = fan_out_blocking(&background(), [item], move |_, _| {
        let _ = &in_f;
        OK
    });
    drop(all);
    until(|| drops.get() == 2).await;
}

/// A runtime whose blocking pool has one thread.
fn with_one_blocking_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_call_that_has_not_begun_when_the_context_is_done_never_begins() {
    with_one_blocking_thread().block_on(in_time(async {
        let (busy, begun) = (Held::new(), Count::default());
        let (holds, begins) = (busy.clone(), begun.clone());
        let other = tokio::task::spawn_blocking(move || holds.block());
        busy.run(1).await;

        let (ctx, guard) = background().with_cancel();
        let (drops, log) = (Count::default(), Log::<Progress>::new());
        let (logs, started) = (log.clone(), Count::default());
        let starts = started.clone();
        let items: Vec<_> = (0..4).map(|_| Client::new(&drops)).collect();
        let first = fan_out_blocking(&ctx, items, move |_, _| {
            begins.add();
            OK
        });
        let first = first.limit(2).on_progress(move |progress| {
            starts.add();
            logs.add(progress);
        });
        let mut first = Box::pin(first.first_ok());
        until_polled(&mut first, || started.get() == 2).await;
        // Its items wait for the one thread.
        assert_pending(&mut first).await;
        guard.cancel();
        assert_pending(&mut first).await;
        busy.let_go(1);
        let errors = first.await.unwrap_err();
        other.await.unwrap();
        assert_eq!((begun.get(), drops.get()), (0, 4));
        // They were stopped, and have not failed.
        let is_stopped = |kind: &TaskErrorKind<String>| matches!(kind, TaskErrorKind::Aborted(_));
        assert_eq!(errors.len(), 2);
        assert!(errors.iter().all(|task| is_stopped(task.kind())));
        assert_eq!(
            log.get().last().map(|last| (last.started, last.failed)),
            Some((2, 0))
        );
    }));
}

#[test]
fn a_panic_of_an_item_that_never_begins_is_resumed() {
    with_one_blocking_thread().block_on(in_time(async {
        let busy = Held::new();
        let holds = busy.clone();
        let other = tokio::task::spawn_blocking(move || holds.block());
        busy.run(1).await;
        let ((ctx, guard), started) = (background().with_cancel(), Count::default());
        let starts = started.clone();
        let items = [OnDrop(|| panic!("unused"))];
        let all = fan_out_blocking(&ctx, items, |_, _| OK).on_progress(move |_| {
            starts.add();
        });
        let mut all = Box::pin(all.all());
        until_polled(&mut all, || started.get() == 1).await;
        guard.cancel();
        busy.let_go(1);
        assert_eq!(text(panic_of(all).await), "unused");
        other.await.unwrap();
    }));
}

#[test]
fn the_shutdown_of_the_runtime_does_not_hang() {
    for begins in [false, true] {
        let runtime = with_one_blocking_thread();
        let (busy, drops) = (Held::new(), Drops::default());
        let holds = busy.clone();
        if !begins {
            let holds = busy.clone();
            runtime.spawn_blocking(move || holds.block());
        }
        let in_f = drops.counted();
        let items = vec![drops.counted(), drops.counted(), drops.counted()];
        let (sender, ended) = mpsc::channel();
        let all = fan_out_blocking(&background(), items, move |_, _item| {
            let _ = &in_f;
            holds.block();
            OK
        });
        let mut all = Box::pin(all.limit(2).all());
        {
            let _inside = runtime.enter();
            assert!((&mut all).now_or_never().is_none());
        }
        while busy.running.now() == 0 {
            thread::yield_now();
        }
        runtime.shutdown_background();
        // Another runtime polls the end.
        let ends = thread::spawn(move || {
            let result = current_thread().block_on(all);
            sender.send(result.unwrap_err()).unwrap();
        });
        if begins {
            assert!(ended.recv_timeout(ms(50)).is_err(), "the call still runs");
        }
        busy.let_go(3);
        ended.recv_timeout(PATIENCE).unwrap();
        ends.join().unwrap();
        assert_eq!(drops.count(), 4);
    }
}

#[test]
fn outside_a_runtime_the_first_poll_panics_with_a_message() {
    let dropped = Arc::new(AtomicBool::new(false));
    let drops = dropped.clone();
    let in_f = OnDrop(move || drops.store(true, Ordering::SeqCst));
    let all = fan_out_blocking(&background(), 0..3, move |_, _| {
        let _ = &in_f;
        OK
    });
    let poll = || all.all().now_or_never();
    let message = text(panic_in(poll));
    assert!(
        message.starts_with("a fan-out called outside a tokio runtime"),
        "{message}"
    );
    assert!(dropped.load(Ordering::SeqCst));
}

#[test]
fn ends_are_send_and_streams_are_unpin() {
    fn is_send<T>(_: impl Future<Output = T> + Send + 'static) {}
    fn is_send_stream<T>(_: impl futures::Stream<Item = T> + Send + Unpin + 'static) {}
    let over = || fan_out_blocking(&background(), 0..3, |_, _: u8| OK);
    is_send(over().all());
    is_send(over().stream().stop());
    is_send_stream(over().indexed_stream());
}

/// Calls, ends and cancellations meet at any moment on two workers and four threads.
#[test]
fn at_any_moment_nothing_is_left_running_and_nothing_hangs() {
    let runtime = two_workers();
    for round in 0..400_u64 {
        let (gauge, drops) = (Gauge::default(), Drops::default());
        let (enters, in_f) = (gauge.clone(), drops.counted());
        let items: Vec<_> = (0..6).map(|item| (item, drops.counted())).collect();
        let (ctx, guard) = background().with_cancel();
        let fan_out = fan_out_blocking(&ctx, items, move |ctx, (item, held)| {
            let (_, _held, _alive) = (&in_f, held, enters.enter());
            thread::sleep(Duration::from_micros(round % 7 * 10));
            match item {
                4 if round % 3 == 0 => Err("bad".to_owned()),
                _ => ctx.check().map_err(String::from),
            }
        });
        let fan_out = fan_out.limit(1 + round as usize % 4);
        runtime.block_on(in_time(async {
            let cancels = tokio::spawn(async move {
                sleep(Duration::from_micros(round % 11 * 30)).await;
                drop(guard);
            });
            match round % 4 {
                0 => drop(fan_out.all().await),
                1 => drop(fan_out.settle().await),
                2 => drop(fan_out.quorum(2).await),
                _ => {
                    let mut stream = fan_out.indexed_stream();
                    drop(stream.next().await);
                    stream.stop().await;
                }
            }
            assert_eq!((gauge.now(), drops.count()), (0, 7), "in round {round}");
            cancels.await.unwrap();
        }));
    }
}
