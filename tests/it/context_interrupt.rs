//! Guarded interrupts: after the guard has been dropped, the function has returned or never runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use errgroup::{AfterFuncGuard, Context, ContextError};

use crate::group_support::two_workers;
use crate::support::{returns, tasks_end};

/// Registers a function that counts how often it runs.
fn counting(ctx: &Context) -> (AfterFuncGuard, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = runs.clone();
    let func = ctx.after_func(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    (func.guard(), runs)
}

#[tokio::test]
async fn a_guard_that_is_dropped_before_the_end_prevents_the_run() {
    let (ctx, cancel) = Context::background().with_cancel();
    let (guard, runs) = counting(&ctx);
    drop(guard);
    cancel.cancel();
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_guard_dropped_between_the_end_and_the_run_prevents_the_run() {
    let (ctx, cancel) = Context::background().with_cancel();
    let (guard, runs) = counting(&ctx);
    // On one thread the function's task does not run before the next await.
    cancel.cancel();
    drop(guard);
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_guard_does_not_keep_the_function_from_running() {
    let (ctx, cancel) = Context::background().with_cancel();
    let (guard, runs) = counting(&ctx);
    cancel.cancel();
    tasks_end().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    drop(guard);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_early_return_and_a_panic_disarm() {
    fn fails(ctx: &Context, runs: &mut Arc<AtomicUsize>) -> Result<(), ContextError> {
        let (_guard, count) = counting(ctx);
        *runs = count;
        Context::background()
            .with_timeout(std::time::Duration::ZERO)
            .check()?;
        unreachable!("the check fails")
    }
    fn panics(ctx: &Context, runs: &mut Arc<AtomicUsize>) {
        let (_guard, count) = counting(ctx);
        *runs = count;
        std::panic::resume_unwind(Box::new("a bug"));
    }
    let (ctx, cancel) = Context::background().with_cancel();
    let (mut of_return, mut of_panic) = Default::default();
    fails(&ctx, &mut of_return).unwrap_err();
    catch_unwind(AssertUnwindSafe(|| panics(&ctx, &mut of_panic))).unwrap_err();
    cancel.cancel();
    tasks_end().await;
    assert_eq!(of_return.load(Ordering::SeqCst), 0);
    assert_eq!(of_panic.load(Ordering::SeqCst), 0);
}

#[test]
fn on_a_context_that_never_ends_the_drop_returns_at_once() {
    let (guard, runs) = counting(&Context::background());
    drop(guard);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

/// Drops a guard while its function runs on a worker thread. Returns whether the function had
/// returned by then. `end` ends the function.
fn dropped_during_the_run(end: fn()) -> bool {
    let runtime = two_workers();
    let _inside = runtime.enter();
    let (ctx, cancel) = Context::background().with_cancel();
    let (started, has_started) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let returned = Arc::new(AtomicBool::new(false));
    let returns = returned.clone();
    let guard = ctx
        .after_func(move || {
            started.send(()).unwrap();
            goes_on.recv().unwrap();
            // Lets other threads run.
            (0..100).for_each(|_| thread::yield_now());
            returns.store(true, Ordering::SeqCst);
            end();
        })
        .guard();
    cancel.cancel();
    has_started.recv().unwrap();
    let (about_to_drop, is_about_to_drop) = mpsc::channel();
    let dropping = thread::spawn(move || {
        about_to_drop.send(()).unwrap();
        drop(guard);
        returned.load(Ordering::SeqCst)
    });
    is_about_to_drop.recv().unwrap();
    go_on.send(()).unwrap();
    dropping.join().unwrap()
}

#[test]
fn a_guard_that_is_dropped_during_the_run_waits_for_it() {
    returns(|| (0..50).for_each(|_| assert!(dropped_during_the_run(|| ()))));
}

#[test]
fn a_guard_does_not_wait_for_a_function_that_has_panicked() {
    let panics = || std::panic::resume_unwind(Box::new("a bug"));
    returns(move || (0..50).for_each(|_| assert!(dropped_during_the_run(panics))));
}

#[test]
fn two_threads_that_stop_and_drop_both_return() {
    returns(|| {
        for _ in 0..50 {
            let runtime = two_workers();
            let _inside = runtime.enter();
            let (ctx, cancel) = Context::background().with_cancel();
            let (guard, runs) = counting(&ctx);
            let cancelling = thread::spawn(move || cancel.cancel());
            drop(guard);
            let before = runs.load(Ordering::SeqCst);
            cancelling.join().unwrap();
            runtime.block_on(tasks_end());
            assert_eq!(runs.load(Ordering::SeqCst), before);
        }
    });
}

#[test]
fn a_function_may_drop_its_own_guard() {
    returns(|| {
        let runtime = two_workers();
        runtime.block_on(async {
            let (ctx, cancel) = Context::background().with_cancel();
            let own: Arc<OnceLock<Mutex<Option<AfterFuncGuard>>>> = Arc::default();
            let of_func = own.clone();
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let func = ctx.after_func(move || {
                let own = of_func.get().unwrap().lock().unwrap().take();
                drop(own.unwrap());
                sender.send(()).unwrap();
            });
            own.set(Mutex::new(Some(func.guard()))).unwrap();
            cancel.cancel();
            receiver.await.unwrap();
        });
    });
}
