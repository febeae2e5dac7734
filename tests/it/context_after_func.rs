//! Functions that run when a context is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use errgroup::{AfterFunc, Context};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::{self, yield_now};
use tokio::time;

use crate::support::{Drops, ROUNDS, ms, tasks_end};

/// Registers a function that counts how often it runs.
fn counting(ctx: &Context) -> (AfterFunc, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = runs.clone();
    let handle = ctx.after_func(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    (handle, runs)
}

#[tokio::test(start_paused = true)]
async fn it_runs_once_when_the_context_is_cancelled_and_not_before() {
    let (ctx, guard) = Context::background().with_cancel();
    let (_handle, runs) = counting(&ctx);
    yield_now().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    guard.cancel();
    guard.cancel();
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn it_runs_when_the_deadline_passes() {
    let ctx = Context::background().with_timeout(ms(10));
    let (_handle, runs) = counting(&ctx);
    time::sleep(ms(9)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    time::sleep(ms(1)).await;
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn it_runs_at_once_if_the_context_has_ended() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    let (_handle, runs) = counting(&ctx);
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn it_runs_in_a_task_of_its_own_and_not_where_the_cancel_is() {
    let (ctx, guard) = Context::background().with_cancel();
    let (sender, receiver) = oneshot::channel();
    let (_other, runs) = counting(&ctx);
    ctx.after_func(move || sender.send(task::try_id()).unwrap());
    guard.cancel();
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    let id = receiver.await.unwrap();
    assert!(id.is_some());
    assert_ne!(id, task::try_id());
}

#[tokio::test(start_paused = true)]
async fn stop_is_true_once_if_it_prevented_the_run() {
    let (ctx, guard) = Context::background().with_cancel();
    let (handle, runs) = counting(&ctx);
    assert!(handle.stop());
    assert!(!handle.stop());
    guard.cancel();
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert!(!handle.stop());
}

#[tokio::test(start_paused = true)]
async fn stop_is_true_after_the_end_if_the_task_had_not_begun() {
    let (ctx, guard) = Context::background().with_cancel();
    let (handle, runs) = counting(&ctx);
    guard.cancel();
    assert!(handle.stop());
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn stop_is_false_after_the_run() {
    let (ctx, guard) = Context::background().with_cancel();
    let (handle, runs) = counting(&ctx);
    guard.cancel();
    tasks_end().await;
    assert!(!handle.stop());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn stop_drops_the_function_at_once_and_ends_its_task() {
    let drops = Drops::default();
    let counted = drops.counted();
    let (ctx, _guard) = Context::background().with_cancel();
    let handle = ctx.after_func(move || drop(counted));
    assert_eq!(drops.count(), 0);
    assert!(handle.stop());
    assert_eq!(drops.count(), 1);
    tasks_end().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_changes_nothing() {
    let (ctx, guard) = Context::background().with_cancel();
    let (handle, runs) = counting(&ctx);
    drop(handle);
    yield_now().await;
    guard.cancel();
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn it_runs_though_every_handle_of_the_context_is_dropped() {
    let (_, runs) = counting(&Context::background().with_timeout(ms(10)));
    time::sleep(ms(10)).await;
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn on_a_context_that_is_never_done_it_needs_no_runtime() {
    let drops = Drops::default();
    let counted = drops.counted();
    let handle = Context::background().after_func(move || drop(counted));
    assert_eq!(drops.count(), 0);
    assert!(handle.stop());
    assert!(!handle.stop());
    assert_eq!(drops.count(), 1);
}

#[test]
#[should_panic = "there is no reactor running"]
fn outside_a_runtime_it_panics() {
    let (ctx, _guard) = Context::background().with_cancel();
    ctx.after_func(|| ());
}

#[tokio::test(start_paused = true)]
async fn a_function_that_panics_ends_its_own_task_only() {
    let (ctx, guard) = Context::background().with_cancel();
    ctx.after_func(|| panic!("boom"));
    let (_handle, runs) = counting(&ctx);
    guard.cancel();
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn if_the_runtime_shuts_down_first_it_never_runs_and_is_dropped() {
    let drops = Drops::default();
    let counted = drops.counted();
    let (ctx, guard) = Context::background().with_cancel();
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        ctx.after_func(move || {
            drop(counted);
            panic!("it ran");
        });
        yield_now().await;
    });
    drop(runtime);
    assert_eq!(drops.count(), 1);
    guard.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_and_the_end_at_once_leave_either_a_run_or_a_true_stop() {
    for round in 0..ROUNDS {
        let (ctx, guard) = Context::background().with_cancel();
        let (handle, runs) = counting(&ctx);
        let cancel = tokio::spawn(async move { guard.cancel() });
        if round % 2 == 0 {
            yield_now().await;
        }
        let stopped = handle.stop();
        cancel.await.unwrap();
        tasks_end().await;
        assert_eq!(usize::from(!stopped), runs.load(Ordering::SeqCst));
    }
}
