//! No user code runs under a lock. Wakers, causes, values and functions call back into the tree
//! that runs or drops them.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use errgroup::{AfterFunc, CancelHandle, Context};
use tokio::runtime::Builder;

use crate::support::{
    OnDrop, ROUNDS, has_resolved, poll_with, race, returns, tasks_end, waiting, waker,
};

/// Calls everything that takes a lock or writes in the tree of `ctx`.
fn call_back(ctx: &Context, handle: &CancelHandle) {
    let child = ctx.with_value("child");
    let merged = child.merge(ctx);
    let other = Context::background().merge(&child);
    let mut dones = [ctx, &child, &merged, &other].map(Context::done_owned);
    for done in &mut dones {
        for _ in 0..2 {
            let _ = poll_with(done, &waker(|| ()));
        }
    }
    drop(dones);
    handle.cancel_with("by the waker");
    assert!(ctx.is_done() && merged.is_done() && other.is_done());
    let _ = (ctx.err(), ctx.cause(), format!("{ctx} {ctx:?}"));
}

/// A context, a handle that cancels it, and a closure that calls back into the tree and counts its
/// calls.
struct Scene {
    ctx: Context,
    handle: CancelHandle,
    calls: Arc<AtomicUsize>,
}

impl Scene {
    fn new() -> Scene {
        let (ctx, guard) = Context::background().with_cancel();
        Scene {
            ctx,
            handle: guard.disarm(),
            calls: Arc::default(),
        }
    }

    fn caller(&self) -> impl Fn() + Clone + Send + Sync + 'static {
        let (ctx, handle, calls) = (self.ctx.clone(), self.handle.clone(), self.calls.clone());
        move || {
            call_back(&ctx, &handle);
            calls.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A waker that calls back when it is dropped.
    fn drop_waker(&self) -> Waker {
        let call = OnDrop(self.caller());
        waker(move || {
            let _ = &call;
        })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// An error that calls back when it is dropped.
struct Caller<F: FnMut()>(#[allow(dead_code, reason = "it is there to be dropped")] OnDrop<F>);

impl<F: FnMut()> Caller<F> {
    fn new(f: F) -> Caller<F> {
        Caller(OnDrop(f))
    }
}

impl<F: FnMut()> fmt::Debug for Caller<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}

impl<F: FnMut()> fmt::Display for Caller<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("caller")
    }
}

impl<F: FnMut()> Error for Caller<F> {}

#[test]
fn a_waker_that_is_woken_may_call_back() {
    returns(|| {
        let scene = Scene::new();
        let below = scene.ctx.with_value("below");
        let (mut here, mut there) = (scene.ctx.done(), below.done());
        assert!(poll_with(&mut here, &waker(scene.caller())).is_pending());
        assert!(poll_with(&mut there, &waker(scene.caller())).is_pending());
        scene.handle.cancel();
        assert_eq!(scene.calls(), 2);
    });
}

#[test]
fn a_waker_that_is_dropped_with_its_done_may_call_back() {
    returns(|| {
        let scene = Scene::new();
        let mut done = scene.ctx.done();
        assert!(poll_with(&mut done, &scene.drop_waker()).is_pending());
        assert_eq!(scene.calls(), 0);
        drop(done);
        assert_eq!(scene.calls(), 1);
    });
}

#[test]
fn a_waker_that_is_replaced_may_call_back() {
    returns(|| {
        let scene = Scene::new();
        let mut done = scene.ctx.done();
        assert!(poll_with(&mut done, &scene.drop_waker()).is_pending());
        let _ = poll_with(&mut done, Waker::noop());
        assert_eq!(scene.calls(), 1);
    });
}

#[test]
fn a_waker_that_is_not_needed_any_more_may_call_back() {
    returns(|| {
        let scene = Scene::new();
        let mut done = scene.ctx.done();
        let waker = scene.drop_waker();
        assert!(poll_with(&mut done, &waker).is_pending());
        scene.handle.cancel();
        drop(waker);
        assert_eq!(scene.calls(), 1);
        assert!(poll_with(&mut done, Waker::noop()).is_ready());
    });
}

#[test]
fn a_waker_may_drop_what_its_context_is_made_of() {
    returns(|| {
        let (top, guard) = Context::background().with_cancel();
        let leaf = top.with_value("between").with_value("leaf");
        let mut done = leaf.done_owned();
        let held = Mutex::new(Some((top, leaf)));
        let dropping = waker(move || drop(held.lock().map(|mut held| held.take())));
        assert!(poll_with(&mut done, &dropping).is_pending());
        drop(dropping);
        guard.cancel();
        assert!(poll_with(&mut done, Waker::noop()).is_ready());
    });
}

#[test]
fn a_cause_that_is_too_late_may_call_back_when_it_is_dropped() {
    returns(|| {
        let scene = Scene::new();
        let _waiter = waiting(&scene.ctx);
        scene.handle.cancel_with("first");
        scene.handle.cancel_with(Caller::new(scene.caller()));
        assert_eq!(scene.calls(), 1);
    });
}

#[test]
fn a_cause_that_loses_a_race_may_call_back_when_it_is_dropped() {
    returns(|| {
        for round in 0..ROUNDS {
            let scene = Scene::new();
            let (child, guard) = scene.ctx.with_value("between").with_cancel();
            let waiter = waiting(&child);
            let caller = scene.caller();
            race(
                round,
                || scene.handle.cancel_with("wins or loses"),
                || guard.cancel_with(Caller::new(caller)),
            );
            drop((child, guard, waiter));
            assert_eq!(scene.calls(), 1);
        }
    });
}

#[test]
fn a_cause_that_is_dropped_with_its_context_may_call_back() {
    returns(|| {
        let scene = Scene::new();
        let (child, guard) = scene.ctx.with_cancel();
        let mut waiter = waiting(&child);
        guard.cancel_with(Caller::new(scene.caller()));
        drop((child, guard));
        drop(waiter.poll());
        assert_eq!(scene.calls(), 0);
        drop(waiter);
        assert_eq!(scene.calls(), 1);
    });
}

#[test]
fn an_unused_cause_of_a_deadline_may_call_back_in_its_drop() {
    returns(|| {
        let scene = Scene::new();
        let past = scene.ctx.with_timeout(Duration::ZERO);
        let later = past.with_timeout_cause(Duration::MAX, Caller::new(scene.caller()));
        assert!(later.is_done());
        drop(later);
        assert_eq!(scene.calls(), 1);
    });
}

#[test]
fn a_value_that_is_dropped_with_its_context_may_call_back() {
    returns(|| {
        let scene = Scene::new();
        let child = scene.ctx.with_value(OnDrop(scene.caller()));
        let waiter = waiting(&child.with_value("a linked child"));
        drop(child);
        assert_eq!(scene.calls(), 0);
        drop(waiter);
        assert_eq!(scene.calls(), 1);
    });
}

#[test]
fn the_values_of_a_long_chain_may_call_back_when_it_is_dropped() {
    returns(|| {
        let scene = Scene::new();
        let chain = (0..100).fold(scene.ctx.clone(), |ctx, _| {
            ctx.with_value(OnDrop(scene.caller()))
        });
        let waiter = waiting(&chain);
        drop(chain);
        drop(waiter);
        assert_eq!(scene.calls(), 100);
    });
}

#[test]
fn a_value_dropped_during_a_propagation_may_call_back() {
    returns(|| {
        for round in 0..ROUNDS {
            let scene = Scene::new();
            let child = scene.ctx.with_value(OnDrop(scene.caller()));
            let waiter = waiting(&child);
            race(round, || scene.handle.cancel(), || drop((waiter, child)));
            assert_eq!(scene.calls(), 1);
        }
    });
}

#[test]
fn a_value_that_panics_during_a_propagation_loses_no_wakeup() {
    let bomb = || {
        if !thread::panicking() {
            resume_unwind(Box::new("boom"));
        }
    };
    for round in 0..2 * ROUNDS {
        let (top, guard) = Context::background().with_cancel();
        let mut leaving: Vec<_> = (0..4)
            .map(|_| Context::background().with_value(OnDrop(bomb)).merge(&top))
            .collect();
        let mut waiter = waiting(&top.with_value("staying"));
        let drop_each = || {
            for ctx in leaving.drain(..) {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(ctx)));
            }
        };
        let cancel = || {
            let _ = catch_unwind(AssertUnwindSafe(|| guard.cancel()));
        };
        race(round, cancel, drop_each);
        assert!(has_resolved(&mut waiter), "round {round}");
    }
}

/// Runs `f` in a runtime, and fails if it never returns.
fn returns_in_a_runtime(f: impl AsyncFnOnce() + Send + 'static) {
    returns(|| {
        let runtime = Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(f());
    });
}

#[test]
fn a_function_that_is_stopped_may_call_back_when_it_is_dropped() {
    returns_in_a_runtime(async || {
        let scene = Scene::new();
        let call = OnDrop(scene.caller());
        let handle: Arc<OnceLock<AfterFunc>> = Arc::default();
        let of_func = handle.clone();
        let stop_again = OnDrop(move || {
            assert_eq!(of_func.get().map(AfterFunc::stop), Some(false));
        });
        let func = scene.ctx.after_func(move || drop((call, stop_again)));
        assert!(handle.get_or_init(|| func).stop());
        assert_eq!(scene.calls(), 1);
    });
}

#[test]
fn a_function_that_runs_may_call_back() {
    returns_in_a_runtime(async || {
        let scene = Scene::new();
        let call = scene.caller();
        let handle: Arc<OnceLock<AfterFunc>> = Arc::default();
        let of_func = handle.clone();
        let func = scene.ctx.after_func(move || {
            call();
            assert_eq!(of_func.get().map(AfterFunc::stop), Some(false));
        });
        let func = handle.get_or_init(|| func);
        scene.handle.cancel();
        tasks_end().await;
        assert_eq!(scene.calls(), 1);
        assert!(!func.stop());
    });
}
