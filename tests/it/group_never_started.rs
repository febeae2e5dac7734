//! Once the context is done, queued tasks never start.

use std::sync::Arc;
use std::time::Duration;

use errgroup::{Admission, Context, Group};

use crate::group_support::*;
use crate::support::ms;

both_flavours![
    a_queued_task_never_starts_after_a_failure,
    a_queued_task_never_starts_after_the_parents_cancel,
    a_queued_task_never_starts_after_a_cancel_of_the_group,
    a_queued_task_never_starts_after_a_panic,
    the_admission_resolves_as_not_started,
    an_admission_that_was_never_polled_resolves_as_not_started,
    it_counts_as_ended_with_the_context_error,
    it_is_not_dropped_under_the_locks_of_a_cancel,
    go_after_the_end_never_starts,
    go_with_after_the_end_never_calls_its_closure,
    a_started_task_is_polled_though_cancelled_before_its_poll,
    raising_the_limit_after_the_end_starts_nothing,
    a_paused_group_ends_when_its_context_does,
    the_drop_of_a_queued_future_may_call_back,
    the_drop_of_a_queued_future_may_call_back_at_an_abort,
    a_waker_may_call_back_into_the_group,
    the_drop_of_an_error_may_call_back_into_the_group,
];

/// A group whose one permit is taken by a task that waits for the gate.
fn full(parent: &Context) -> (G, Gate) {
    let ((g, _), gate) = (G::with_context(parent), Gate::new());
    g.set_limit(1);
    let gated = gate.clone();
    g.go(async move {
        gated.pass().await;
        Ok(())
    });
    (g, gate)
}

/// The same, and ten more tasks that are queued.
fn queue_of_ten(parent: &Context) -> (G, Gate, Probe, Vec<Admission>) {
    let ((g, gate), probe) = (full(parent), Probe::default());
    let admissions = (0..10)
        .map(|_| g.go(probe.wrap(async { Ok(()) })))
        .collect();
    assert_eq!((g.running(), g.queued()), (1, 10));
    (g, gate, probe, admissions)
}

fn assert_never_started(probe: &Probe) {
    assert_eq!(probe.polled(), 0);
    probe.assert_all_dropped();
}

async fn a_queued_task_never_starts_after_a_failure() {
    let g = limited(1);
    let probe = Probe::default();
    g.go(async { Err("boom".to_owned()) });
    for _ in 0..10 {
        g.go(probe.wrap(async { Ok(()) }));
    }
    assert_eq!(g.wait().await.unwrap_err(), "boom");
    assert_never_started(&probe);
}

async fn a_queued_task_never_starts_after_the_parents_cancel() {
    let (parent, guard) = Context::background().with_cancel();
    let (g, gate, probe, _admissions) = queue_of_ten(&parent);
    guard.cancel();
    gate.open();
    assert!(g.wait().await.is_err());
    assert_never_started(&probe);
}

async fn a_queued_task_never_starts_after_a_cancel_of_the_group() {
    let (g, gate, probe, _admissions) = queue_of_ten(&Context::background());
    g.cancel();
    assert_eq!((g.running(), g.queued()), (1, 0));
    gate.open();
    assert!(g.wait().await.is_err());
    assert_never_started(&probe);
}

async fn a_queued_task_never_starts_after_a_panic() {
    let g = limited(1);
    let probe = Probe::default();
    g.go(async { panic!("boom") });
    g.go(probe.wrap(async { Ok(()) }));
    assert_eq!(text(panic_of(g.wait()).await), "boom");
    assert_never_started(&probe);
}

async fn the_admission_resolves_as_not_started() {
    let (g, gate, _probe, admissions) = queue_of_ten(&Context::background());
    let mut all = Box::pin(futures::future::join_all(admissions));
    assert!(futures::poll!(&mut all).is_pending());
    g.cancel();
    assert!(!all.await.iter().any(|admitted| admitted.is_started()));
    gate.open();
    assert!(g.wait().await.is_err());
}

async fn an_admission_that_was_never_polled_resolves_as_not_started() {
    let (g, gate, _probe, admissions) = queue_of_ten(&Context::background());
    g.cancel();
    gate.open();
    assert!(g.wait().await.is_err());
    for admission in admissions {
        assert!(!admission.await.is_started());
    }
}

async fn it_counts_as_ended_with_the_context_error() {
    let (parent, guard) = Context::background().with_cancel();
    let (g, _ctx) = Group::<anyhow::Error>::with_context(&parent);
    g.set_limit(0);
    g.go(async { Ok(()) });
    guard.cancel_with("shutting down");
    let error = g.wait().await.unwrap_err();
    let error = error.downcast_ref::<errgroup::ContextError>().unwrap();
    assert!(error.is_cancelled());
    assert_eq!(error.cause().unwrap().to_string(), "shutting down");
}

/// A worker drops the task: the caller of `cancel` may hold a lock that its destructor takes.
async fn it_is_not_dropped_under_the_locks_of_a_cancel() {
    let g = limited(0);
    let lock = Arc::new(std::sync::Mutex::new(()));
    let taken = lock.clone();
    let takes = OnDrop(move || drop(taken.lock().unwrap()));
    g.go(async move {
        let _takes = takes;
        Ok(())
    });
    let held = lock.lock().unwrap();
    g.cancel();
    drop(held);
    assert!(g.wait().await.is_err());
}

async fn go_after_the_end_never_starts() {
    let (g, ctx) = group();
    g.cancel_with("enough");
    let probe = Probe::default();
    assert!(!g.go(probe.wrap(async { Ok(()) })).await.is_started());
    assert_never_started(&probe);
    assert_eq!(ctx.cause().unwrap().to_string(), "enough");
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
}

async fn go_with_after_the_end_never_calls_its_closure() {
    let (g, _ctx) = group();
    g.cancel();
    let admission = g.go_with(|_| -> std::future::Ready<Result<(), String>> { unreachable!() });
    assert!(!admission.await.is_started());
    assert!(g.wait().await.is_err());
}

async fn a_started_task_is_polled_though_cancelled_before_its_poll() {
    for _ in 0..100 {
        let (g, _ctx) = group();
        let probe = Probe::default();
        assert!(g.go(probe.wrap(async { Ok(()) })).await.is_started());
        g.cancel();
        assert_eq!(g.wait().await, OK);
        assert_eq!((probe.polled(), probe.dropped()), (1, 1));
    }
}

async fn raising_the_limit_after_the_end_starts_nothing() {
    let (g, gate, probe, _admissions) = queue_of_ten(&Context::background());
    g.cancel();
    g.set_limit(None);
    gate.open();
    assert!(g.wait().await.is_err());
    assert_never_started(&probe);
}

async fn a_paused_group_ends_when_its_context_does() {
    let (parent, guard) = Context::background().with_cancel();
    let (g, _ctx) = G::with_context(&parent);
    g.set_limit(0);
    g.go(async { Ok(()) });
    let mut wait = Box::pin(g.wait());
    assert!(futures::poll!(&mut wait).is_pending());
    guard.cancel();
    assert_eq!(wait.await.unwrap_err(), "context cancelled");
}

/// Calls every method that takes the group's locks.
fn call_back(g: &G) {
    g.go(async { Ok(()) });
    let _ = g.try_go(async { Ok(()) });
    g.set_limit(g.limit());
    let _ = (g.running(), g.queued(), format!("{g:?}"));
    assert!(g.context().is_done());
    g.cancel();
}

fn calls_back(g: &Arc<G>, calls: &Count) -> impl Future<Output = Result<(), String>> + use<> {
    let (g, calls) = (Arc::downgrade(g), calls.clone());
    let called = OnDrop(move || {
        call_back(&g.upgrade().unwrap());
        calls.add();
    });
    async move {
        let _called = called;
        Ok(())
    }
}

async fn the_drop_of_a_queued_future_may_call_back() {
    let (g, calls) = (Arc::new(limited(0)), Count::default());
    for _ in 0..10 {
        g.go(calls_back(&g, &calls));
    }
    g.cancel();
    assert_eq!((g.running(), g.queued()), (0, 0));
    until(|| calls.get() == 10).await;
    let g = Arc::into_inner(g).unwrap();
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
}

async fn the_drop_of_a_queued_future_may_call_back_at_an_abort() {
    let (g, calls) = (Arc::new(limited(5)), Count::default());
    for _ in 0..10 {
        let calls_back = calls_back(&g, &calls);
        g.go(async move {
            std::future::pending::<()>().await;
            calls_back.await
        });
    }
    g.abort();
    until(|| calls.get() == 10).await;
    until(|| g.running() == 0).await;
    let g = Arc::into_inner(g).unwrap();
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
}

async fn a_waker_may_call_back_into_the_group() {
    let (g, calls) = (Arc::new(limited(0)), Count::default());
    let mut admissions: Vec<_> = (0..10).map(|_| g.go(async { Ok(()) })).collect();
    for admission in &mut admissions {
        let (g, calls) = (Arc::downgrade(&g), calls.clone());
        let waker = waker(move || {
            call_back(&g.upgrade().unwrap());
            calls.add();
        });
        assert!(poll_with(admission, &waker).is_pending());
    }
    g.cancel();
    assert_eq!(calls.get(), 10);
    let g = Arc::into_inner(g).unwrap();
    assert!(g.wait().await.is_err());
}

async fn the_drop_of_an_error_may_call_back_into_the_group() {
    struct Loud(Option<Box<dyn FnMut() + Send>>);

    impl std::fmt::Display for Loud {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("loud")
        }
    }

    impl From<errgroup::ContextError> for Loud {
        fn from(_: errgroup::ContextError) -> Loud {
            Loud(None)
        }
    }

    impl Drop for Loud {
        fn drop(&mut self) {
            if let Some(call) = &mut self.0 {
                call();
            }
        }
    }

    let (g, _ctx) = Group::<Loud>::with_context(Context::background());
    let (g, calls, gate) = (Arc::new(g), Count::default(), Gate::new());
    for _ in 0..10 {
        let (weak, calls, gated) = (Arc::downgrade(&g), calls.clone(), gate.clone());
        g.go(async move {
            // No task fails before all of them have started: after a failure none would start.
            gated.pass().await;
            Err(Loud(Some(Box::new(move || {
                if let Some(g) = weak.upgrade() {
                    let _ = (g.running(), g.queued());
                    g.set_limit(None);
                }
                calls.add();
            }))))
        });
    }
    until(|| g.queued() == 0 && g.running() == 10).await;
    gate.open();
    until(|| g.running() == 0).await;
    let g = Arc::into_inner(g).unwrap();
    assert!(g.wait().await.is_err());
    assert_eq!(calls.get(), 10, "every error has been dropped");
}

const SECOND: Duration = Duration::from_secs(1);

/// The same at a deadline, which passes without a notification.
#[tokio::test(start_paused = true)]
async fn this_holds_at_a_passive_deadline_too() {
    let parent = Context::background().with_timeout_cause(SECOND, "too slow");
    let (g, gate, probe, admissions) = queue_of_ten(&parent);
    let start = tokio::time::Instant::now();
    for admission in admissions {
        assert!(!in_time(admission).await.is_started());
    }
    assert_eq!(start.elapsed(), SECOND);
    gate.open();
    assert_eq!(g.wait().await.unwrap_err(), "context deadline exceeded");
    assert_never_started(&probe);
}

#[tokio::test(start_paused = true)]
async fn at_a_deadline_the_queue_is_dropped_without_a_query() {
    let (g, gate, probe, _admissions) = queue_of_ten(&Context::background().with_timeout(SECOND));
    tokio::time::sleep(SECOND).await;
    yields(40).await;
    assert_never_started(&probe);
    assert_eq!((g.running(), g.queued()), (1, 0));
    gate.open();
    assert_eq!(g.wait().await.unwrap_err(), "context deadline exceeded");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_paused_group_ends_at_its_deadline() {
    let parent = Context::background().with_timeout(SECOND);
    let (g, _ctx) = G::with_context(&parent);
    g.set_limit(0);
    g.go(async { Ok(()) });
    let error = in_time(g.wait()).await.unwrap_err();
    assert_eq!(error, "context deadline exceeded");
}

#[tokio::test(start_paused = true)]
async fn a_permit_released_after_the_deadline_starts_nothing() {
    let parent = Context::background().with_timeout(SECOND);
    let (g, _ctx) = G::with_context(&parent);
    g.set_limit(1);
    let probe = Probe::default();
    g.go(async {
        tokio::time::advance(2 * SECOND).await;
        Ok(())
    });
    g.go(probe.wrap(async { Ok(()) }));
    assert!(in_time(g.wait()).await.is_err());
    assert_never_started(&probe);
}

/// Advances the clock without running other tasks.
fn advance(by: Duration) {
    let _ = futures::FutureExt::now_or_never(tokio::time::advance(by));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_a_job_after_the_deadline_needs_no_timer() {
    let parent = Context::background().with_timeout(SECOND);
    let (g, _ctx) = G::with_context(&parent);
    g.set_limit(1);
    let (gate, probe, log) = (Gate::new(), Probe::default(), Log::new());
    let (gated, queued, seen) = (gate.clone(), probe.clone(), log.clone());
    g.go(async move {
        gated.pass().await;
        advance(2 * SECOND);
        tokio::spawn(async move { seen.add(queued.dropped()) });
        Ok(())
    });
    g.go(probe.wrap(async { Ok(()) }));
    yields(3).await;
    gate.open();
    assert!(in_time(g.wait()).await.is_err());
    until(|| log.len() == 1).await;
    assert_eq!(log.get(), [1], "right after that worker's poll");
}

#[test]
fn an_admission_polled_after_the_deadline_needs_no_timer() {
    let (not_driven, clock) = (current_thread(), current_thread());
    clock.block_on(async {
        let parent = Context::background().with_timeout(SECOND);
        let (g, _ctx) = G::with_context(&parent);
        g.set_limit(0);
        let mut admission = {
            let _inside = not_driven.enter();
            g.go(async { Ok(()) })
        };
        assert!(futures::poll!(&mut admission).is_pending());
        advance(2 * SECOND);
        assert!(
            futures::poll!(&mut admission).is_pending(),
            "but it has asked"
        );
        assert!(!in_time(admission).await.is_started());
        assert_eq!(g.queued(), 0);
        drop(g);
    });
}

#[tokio::test(start_paused = true)]
async fn a_queue_under_a_deadline_needs_no_task() {
    let (g, gate, probe, _) = queue_of_ten(&Context::background().with_timeout(SECOND));
    let tasks = || {
        let runtime = tokio::runtime::Handle::current();
        runtime.metrics().num_alive_tasks()
    };
    yields(10).await;
    assert_eq!(tasks(), 1);
    tokio::time::sleep(SECOND + ms(1)).await;
    assert_eq!(g.queued(), 0);
    assert_never_started(&probe);
    gate.open();
    assert!(in_time(g.wait()).await.is_err());
    until(|| tasks() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_a_plain_thread_queues_is_dropped_at_the_deadline() {
    let (g, gate) = full(&Context::background().with_timeout(SECOND));
    let probe = Probe::default();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(g.go(probe.wrap(async { Ok(()) }))));
    });
    assert_eq!(g.queued(), 1);
    tokio::time::sleep(SECOND + ms(1)).await;
    assert_never_started(&probe);
    gate.open();
    assert!(in_time(g.wait()).await.is_err());
}

#[test]
fn a_runtime_that_shuts_down_does_not_end_a_group_before_its_deadline() {
    // A runtime fires all its timers when it shuts down.
    let runtime = current_thread();
    let (g, ctx) = G::with_context(Context::background().with_timeout(3600 * SECOND));
    g.set_limit(0);
    let probe = Probe::default();
    runtime.block_on(async {
        drop(g.go(probe.wrap(async { Ok(()) })));
        tokio::time::sleep(SECOND).await;
    });
    drop(runtime);
    assert!(!ctx.is_done());
    assert_eq!((g.queued(), probe.dropped()), (1, 0));
    drop(g);
    assert_never_started(&probe);
}

/// Counts the panics of the calling thread from now on. The hook stays, and calls the one before.
fn count_own_panics() -> Count {
    let (count, own) = (Count::default(), std::thread::current().id());
    let (counted, before) = (count.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == own {
            counted.add();
        }
        before(info);
    }));
    count
}

#[test]
fn a_queue_on_a_runtime_that_has_shut_down_panics_nowhere() {
    let runtime = current_thread();
    let (g, _) = G::with_context(Context::background().with_timeout(3600 * SECOND));
    runtime.block_on(async {
        g.go(async { Ok(()) });
        until(|| g.running() == 0).await;
    });
    drop(runtime);
    let (panics, probe) = (count_own_panics(), Probe::default());
    g.set_limit(0);
    drop(g.go(probe.wrap(async { Ok(()) })));
    assert_eq!(panics.get(), 0);
    drop(g);
    assert_never_started(&probe);
}
