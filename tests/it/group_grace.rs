//! Winding down: which tasks are dropped when the context is done, and which run on for a grace
//! period.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use errgroup::{Context, Group, TaskErrorKind};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::group_support::*;

both_flavours![
    a_cancellable_task_is_dropped_at_its_await_by_a_cancel,
    a_cancellable_task_counts_as_ended_with_the_context_error,
    a_queued_cancellable_task_is_never_polled_after_a_cancel,
    a_cancellable_task_may_end_by_itself,
    the_error_of_a_cancellable_task_is_a_failure_as_any_other,
    the_failure_of_a_sibling_stops_a_cancellable_task,
    a_failure_in_a_new_group_stops_no_cancellable_task,
    a_grace_of_zero_aborts_at_the_end,
    wait_returns_when_the_last_destructor_has_run,
    a_grace_that_no_timer_reaches_waits_for_the_tasks,
    a_grace_in_a_group_without_tasks_changes_nothing,
    a_grace_may_be_set_outside_a_runtime_and_before_any_task,
];

const SECOND: Duration = Duration::from_secs(1);

/// Never ends by itself, and never looks at a context.
fn stubborn(g: &G) -> Probe {
    let probe = Probe::default();
    g.go(probe.wrap(std::future::pending()));
    probe
}

/// Ends `Ok`, this long after its start.
fn ends_after(g: &G, time: Duration) {
    g.go(async move {
        sleep(time).await;
        Ok(())
    });
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn a_cancellable_task_is_dropped_at_its_await_by_a_cancel() {
    let (g, _ctx) = group();
    let (probe, kept) = (Probe::default(), Probe::default());
    g.go_cancellable(probe.wrap(std::future::pending()));
    let gate = Gate::new();
    let gated = gate.clone();
    g.go(kept.wrap(async move {
        gated.pass().await;
        Ok(())
    }));
    until(|| probe.polled() > 0).await;
    assert_eq!(probe.dropped(), 0);
    g.cancel();
    until(|| probe.dropped() == 1).await;
    // It is polled at most once more, to see whether it is ready.
    assert!((1..=2).contains(&probe.polled()));
    assert_eq!(kept.dropped(), 0, "a task of `go` is not dropped");
    gate.open();
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
}

async fn a_cancellable_task_counts_as_ended_with_the_context_error() {
    let (g, _ctx) = group();
    g.go_cancellable(std::future::pending());
    g.cancel_with("enough");
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(errors.len(), 1);
    let TaskErrorKind::Aborted(error) = errors.iter().next().unwrap().kind() else {
        panic!("{errors:?}");
    };
    assert!(error.is_cancelled());
    assert_eq!(error.cause().unwrap().to_string(), "enough");

    let (g, _ctx) = Group::<anyhow::Error>::with_context(Context::background());
    g.go_cancellable(std::future::pending());
    g.cancel();
    let error = g.wait().await.unwrap_err();
    assert!(error.is::<errgroup::ContextError>());
}

async fn a_queued_cancellable_task_is_never_polled_after_a_cancel() {
    let g = limited(0);
    let probe = Probe::default();
    let admission = g.go_cancellable(probe.wrap(std::future::pending()));
    g.cancel();
    assert!(!admission.await.is_started());
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
    assert_eq!(probe.polled(), 0);
    probe.assert_all_dropped();
}

#[tokio::test(start_paused = true)]
async fn a_cancellable_task_is_not_polled_first_after_a_cancel() {
    let (g, _ctx) = group();
    let probe = Probe::default();
    let admission = g.go_cancellable(probe.wrap(async { Ok(()) }));
    g.cancel();
    assert!(admission.await.is_started());
    assert_eq!(in_time(g.wait()).await.unwrap_err(), "context cancelled");
    assert_eq!(probe.polled(), 0);
    probe.assert_all_dropped();
}

#[tokio::test(start_paused = true)]
async fn a_cancellable_task_is_not_polled_first_after_a_deadline() {
    let (g, _ctx) = G::with_context(Context::background().with_timeout(SECOND));
    let probe = Probe::default();
    g.go_cancellable(probe.wrap(async { Ok(()) }));
    // It does not yield, so there is no query for the deadline.
    futures::FutureExt::now_or_never(tokio::time::advance(2 * SECOND));
    let error = in_time(g.wait()).await.unwrap_err();
    assert_eq!(error, "context deadline exceeded");
    assert_eq!(probe.polled(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancellable_task_that_is_ready_in_the_same_poll_wins() {
    for fails in [false, true] {
        let (g, _ctx) = group();
        let (probe, ready) = (Probe::default(), Arc::new(AtomicBool::new(false)));
        let is_ready = ready.clone();
        g.go_cancellable(probe.wrap(poll_fn(move |_| {
            match is_ready.load(Ordering::SeqCst) {
                true if fails => Poll::Ready(Err("its own".to_owned())),
                true => Poll::Ready(Ok(())),
                // Woken by the context alone.
                false => Poll::Pending,
            }
        })));
        until(|| probe.polled() == 1).await;
        ready.store(true, Ordering::SeqCst);
        g.cancel();
        let expected = if fails { Err("its own".to_owned()) } else { OK };
        assert_eq!(g.wait().await, expected);
        assert_eq!(probe.dropped(), 1);
    }
}

async fn a_cancellable_task_may_end_by_itself() {
    let (g, ctx) = group();
    let ended = Count::default();
    for _ in 0..10 {
        let ended = ended.clone();
        g.go_cancellable(async move {
            yields(5).await;
            ended.add();
            Ok(())
        });
    }
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), 10);
    assert!(ctx.is_done());
}

async fn the_error_of_a_cancellable_task_is_a_failure_as_any_other() {
    let (g, ctx) = group();
    g.go_cancellable(async { Err("boom".to_owned()) });
    assert_eq!(g.wait().await.unwrap_err(), "boom");
    assert_eq!(ctx.cause().unwrap().to_string(), "boom");
}

async fn the_failure_of_a_sibling_stops_a_cancellable_task() {
    let (g, _ctx) = group();
    let probe = Probe::default();
    for _ in 0..10 {
        g.go_cancellable(probe.wrap(std::future::pending()));
    }
    g.go(async { Err("boom".to_owned()) });
    assert_eq!(g.wait().await.unwrap_err(), "boom");
    probe.assert_all_dropped();
}

async fn a_failure_in_a_new_group_stops_no_cancellable_task() {
    let (g, gate) = (G::new(), Gate::new());
    let gated = gate.clone();
    let value = g.spawn(async { Ok(1) });
    g.go_cancellable(async move {
        gated.pass().await;
        Ok(())
    });
    g.go(async { Err("boom".to_owned()) });
    until(|| g.running() == 1).await;
    assert!(!g.context().is_done());
    gate.open();
    assert_eq!(g.wait().await.unwrap_err(), "boom");
    assert_eq!(value.take(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_cancellable_task_is_dropped_at_a_deadline_without_a_query() {
    let (g, _ctx) = G::with_context(Context::background().with_timeout(SECOND));
    let start = Instant::now();
    g.go_cancellable(std::future::pending());
    let error = in_time(g.wait()).await.unwrap_err();
    assert_eq!(error, "context deadline exceeded");
    assert_eq!(start.elapsed(), SECOND);
}

async fn a_grace_of_zero_aborts_at_the_end() {
    for before in [true, false] {
        let (g, _ctx) = group();
        if before {
            g.set_grace(Duration::ZERO);
        }
        let probe = stubborn(&g);
        until(|| probe.polled() == 1).await;
        yields(50).await;
        assert_eq!(probe.dropped(), 0, "not before the end");
        g.cancel();
        g.set_grace(Duration::ZERO);
        assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
        assert_eq!((probe.polled(), probe.dropped()), (1, 1));
    }
}

async fn wait_returns_when_the_last_destructor_has_run() {
    for round in 0..50 {
        let (g, _ctx) = group();
        g.set_grace(Duration::ZERO);
        let (started, gone) = (Count::default(), Count::default());
        for task in 0..8 {
            let (started, gone) = (started.clone(), gone.clone());
            let dropped = OnDrop(move || {
                std::thread::yield_now();
                gone.add();
            });
            let future = async move {
                let _dropped = dropped;
                started.add();
                std::future::pending().await
            };
            match task % 2 {
                0 => g.go(future),
                _ => g.go_cancellable(future),
            };
        }
        yields(round % 10).await;
        g.cancel();
        assert!(g.wait().await.is_err());
        assert_eq!(gone.get(), 8, "{} had started", started.get());
    }
}

async fn a_grace_that_no_timer_reaches_waits_for_the_tasks() {
    let (g, ctx) = group();
    g.set_grace(Duration::MAX);
    g.go(async move {
        ctx.done().await;
        yields(10).await;
        Ok(())
    });
    g.cancel();
    assert_eq!(g.wait().await, OK);
}

async fn a_grace_in_a_group_without_tasks_changes_nothing() {
    let (g, _ctx) = group();
    g.set_grace(SECOND);
    g.cancel();
    yields(10).await;
    assert_eq!(tasks(), 0);
    assert_eq!(g.wait().await, OK);
}

async fn a_grace_may_be_set_outside_a_runtime_and_before_any_task() {
    let g = std::thread::spawn(|| {
        let (g, _ctx) = group();
        g.set_grace(SECOND);
        g.set_grace(None);
        g.set_grace(Duration::ZERO);
        g
    });
    let g = g.join().unwrap();
    let probe = stubborn(&g);
    g.cancel();
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
    probe.assert_all_dropped();
}

#[tokio::test(start_paused = true)]
async fn only_what_still_runs_after_the_grace_is_aborted() {
    let (g, _ctx) = group();
    g.set_grace(5 * SECOND);
    let probe = stubborn(&g);
    ends_after(&g, 4 * SECOND);
    ends_after(&g, 6 * SECOND);
    let start = Instant::now();
    g.cancel_with("enough");
    let errors = in_time(g.wait_all()).await.unwrap_err();
    assert_eq!(start.elapsed(), 5 * SECOND);
    assert_eq!((probe.polled(), probe.dropped()), (1, 1));
    assert_eq!(errors.len(), 2);
    for error in &errors {
        assert_eq!(error.elapsed(), 5 * SECOND);
        let TaskErrorKind::Aborted(error) = error.kind() else {
            panic!("{error:?}");
        };
        assert_eq!(error.cause().unwrap().to_string(), "enough");
    }
}

#[tokio::test(start_paused = true)]
async fn the_grace_is_over_when_the_last_task_ends_in_it() {
    let (g, _ctx) = group();
    g.set_grace(5 * SECOND);
    let start = Instant::now();
    ends_after(&g, 3 * SECOND);
    g.cancel();
    assert_eq!(in_time(g.wait()).await, OK);
    assert_eq!(start.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_grace_counts_from_the_end_and_not_before() {
    let (g, ctx) = group();
    g.set_grace(5 * SECOND);
    let probe = stubborn(&g);
    sleep(3600 * SECOND).await;
    assert_eq!(probe.dropped(), 0);
    assert!(!ctx.is_done());
    let end = Instant::now();
    g.cancel();
    assert!(in_time(g.wait()).await.is_err());
    assert_eq!(end.elapsed(), 5 * SECOND);
}

/// Sets the grace period of a group at each of these times. Returns when, after the end of the
/// context, a stubborn task is aborted.
async fn aborted_after(changes: &[(u64, Option<Duration>)]) -> Duration {
    let (g, _ctx) = group();
    let dropped = Log::new();
    let drops = dropped.clone();
    let at_drop = OnDrop(move || drops.add(Instant::now()));
    g.go(async move {
        let _at_drop = at_drop;
        std::future::pending().await
    });
    sleep(10 * SECOND).await;
    let mut end = Instant::now();
    for &(at, grace) in changes {
        if at == 0 {
            g.set_grace(grace);
            continue;
        }
        if !g.context().is_done() {
            g.cancel();
            end = Instant::now();
        }
        tokio::time::sleep_until(end + Duration::from_secs(at)).await;
        g.set_grace(grace);
    }
    if !g.context().is_done() {
        g.cancel();
        end = Instant::now();
    }
    let wait = tokio::time::timeout(1_000 * SECOND, g.wait());
    assert!(wait.await.expect("it is never aborted").is_err());
    dropped.get()[0] - end
}

#[tokio::test(start_paused = true)]
async fn a_grace_may_be_changed_while_it_runs() {
    let grace = |seconds| Some(seconds * SECOND);
    assert_eq!(aborted_after(&[(0, grace(5))]).await, 5 * SECOND);
    // A longer one.
    let told = [(0, grace(5)), (2, grace(9))];
    assert_eq!(aborted_after(&told).await, 9 * SECOND);
    // A shorter one, which is not over yet.
    let told = [(0, grace(5)), (2, grace(3))];
    assert_eq!(aborted_after(&told).await, 3 * SECOND);
    // A shorter one, which is already over.
    let told = [(0, grace(5)), (2, grace(1))];
    assert_eq!(aborted_after(&told).await, 2 * SECOND);
    // Many times.
    let told = [(0, grace(5)), (2, grace(9)), (3, grace(4)), (3, grace(7))];
    assert_eq!(aborted_after(&told).await, 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_grace_may_be_cleared_while_it_runs_and_set_again() {
    let grace = |seconds| Some(seconds * SECOND);
    let told = [(0, grace(5)), (2, None), (50, grace(60))];
    assert_eq!(aborted_after(&told).await, 60 * SECOND);
    let told = [(0, grace(5)), (2, None), (50, grace(20))];
    assert_eq!(aborted_after(&told).await, 50 * SECOND);
    let told = [(0, grace(5)), (0, None), (50, grace(60))];
    assert_eq!(aborted_after(&told).await, 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_grace_that_is_cleared_aborts_no_task() {
    let (g, _ctx) = group();
    g.set_grace(SECOND);
    let probe = stubborn(&g);
    ends_after(&g, 100 * SECOND);
    g.cancel();
    sleep(SECOND / 2).await;
    g.set_grace(None);
    sleep(3600 * SECOND).await;
    assert_eq!(probe.dropped(), 0);
    g.abort();
    assert!(in_time(g.wait()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_first_grace_set_after_a_cancel_counts_from_the_end() {
    let told = [(2, Some(5 * SECOND))];
    assert_eq!(aborted_after(&told).await, 5 * SECOND);
    let told = [(7, Some(5 * SECOND))];
    assert_eq!(aborted_after(&told).await, 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_first_grace_set_after_a_deadline_counts_from_the_end() {
    for (set, aborted) in [(4, 6), (9, 9)] {
        let (g, _ctx) = G::with_context(Context::background().with_timeout(3 * SECOND));
        let (start, probe) = (Instant::now(), stubborn(&g));
        sleep(Duration::from_secs(set)).await;
        assert_eq!(probe.dropped(), 0);
        g.set_grace(3 * SECOND);
        assert!(in_time(g.wait()).await.is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(aborted));
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_grace_set_after_a_failure_counts_from_the_end() {
    let (g, ctx) = group();
    stubborn(&g);
    g.go(async { Err("boom".to_owned()) });
    ctx.done().await;
    let end = Instant::now();
    sleep(2 * SECOND).await;
    g.set_grace(5 * SECOND);
    assert_eq!(in_time(g.wait()).await.unwrap_err(), "boom");
    assert_eq!(end.elapsed(), 5 * SECOND);
}

type Starts = fn(&G);

/// Every way to start a task that never ends.
fn ways_to_start() -> Vec<(&'static str, Starts)> {
    type Never = std::future::Pending<Result<(), String>>;
    fn never() -> Never {
        std::future::pending()
    }
    vec![
        ("go", |g| _ = g.go(never())),
        ("go_with", |g| _ = g.go_with(|_| never())),
        ("try_go", |g| g.try_go(never()).unwrap()),
        ("go_local", |g| _ = g.go_local(never())),
        ("spawn", |g| _ = g.spawn(never())),
        ("named", |g| _ = g.named("it").go(never())),
        ("named try_go", |g| g.named("it").try_go(never()).unwrap()),
        ("spawner", |g| _ = g.spawner().go(never())),
        ("spawner try_go", |g| g.spawner().try_go(never()).unwrap()),
    ]
}

/// The `wait` of a group with one stubborn task, whose grace was set before or after its start.
async fn wait_for_one(g: G, grace: Duration, before: bool, start: Starts) -> Result<(), String> {
    let wait = async move {
        if before {
            g.set_grace(grace);
        }
        start(&g);
        if !before {
            g.set_grace(grace);
        }
        g.wait().await
    };
    in_time(tokio::task::LocalSet::new().run_until(wait)).await
}

#[tokio::test(start_paused = true)]
async fn the_grace_begins_at_a_deadline_for_every_kind_of_task() {
    for (how, start) in ways_to_start() {
        for before in [true, false] {
            let (g, _ctx) = G::with_context(Context::background().with_timeout(3 * SECOND));
            let began = Instant::now();
            let error = wait_for_one(g, 2 * SECOND, before, start).await;
            assert_eq!(error.unwrap_err(), "context deadline exceeded", "{how}");
            assert_eq!(began.elapsed(), 5 * SECOND, "{how}, grace first: {before}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_grace_begins_at_the_parents_cancel_for_every_kind() {
    for (how, start) in ways_to_start() {
        for before in [true, false] {
            let (parent, guard) = Context::background().with_cancel();
            let (g, _ctx) = G::with_context(&parent);
            let began = Instant::now();
            let wait = wait_for_one(g, 2 * SECOND, before, start);
            let cancel = async move {
                sleep(3 * SECOND).await;
                guard.cancel_with("shut down");
            };
            let (error, ()) = futures::join!(wait, cancel);
            assert_eq!(error.unwrap_err(), "context cancelled", "{how}");
            assert_eq!(began.elapsed(), 5 * SECOND, "{how}, grace first: {before}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_grace_begins_at_a_failure_which_stays_the_error() {
    for panics in [false, true] {
        let (g, ctx) = group();
        g.set_grace(2 * SECOND);
        let (start, probe) = (Instant::now(), stubborn(&g));
        g.go(async move {
            sleep(SECOND).await;
            assert!(!panics, "a bug");
            Err("boom".to_owned())
        });
        let wait = in_time(g.wait());
        match panics {
            true => assert_eq!(text(panic_of(wait).await), "a bug"),
            false => assert_eq!(wait.await.unwrap_err(), "boom"),
        }
        assert_eq!(start.elapsed(), 3 * SECOND);
        assert!(ctx.is_done());
        probe.assert_all_dropped();
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_a_new_group_begins_no_grace() {
    let g = G::new();
    g.set_grace(SECOND);
    let start = Instant::now();
    g.go(async { Err("boom".to_owned()) });
    ends_after(&g, 10 * SECOND);
    assert_eq!(in_time(g.wait()).await.unwrap_err(), "boom");
    assert_eq!(start.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_the_grace_has_failed_and_is_not_aborted() {
    let (g, _ctx) = group();
    g.set_grace(5 * SECOND);
    g.go(async move {
        sleep(2 * SECOND).await;
        Err("too late".to_owned())
    });
    stubborn(&g);
    g.cancel();
    let errors = in_time(g.wait_all()).await.unwrap_err();
    let kinds: Vec<_> = errors
        .iter()
        .map(|error| error.kind().to_string())
        .collect();
    assert_eq!(kinds, ["too late", "context cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn queued_tasks_do_not_wait_for_the_grace() {
    let g = limited(1);
    g.set_grace(5 * SECOND);
    stubborn(&g);
    let queued = Probe::default();
    let admission = g.go(queued.wrap(async { Ok(()) }));
    let start = Instant::now();
    g.cancel();
    assert!(!in_time(admission).await.is_started());
    yields(10).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(in_time(g.wait()).await.is_err());
    assert_eq!(queued.polled(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_lends_is_aborted_when_the_grace_is_over() {
    let g = limited(1);
    g.set_grace(2 * SECOND);
    let (spawner, start) = (g.spawner(), Instant::now());
    g.go(async move {
        let _ = spawner.spawn(std::future::pending::<Result<(), _>>()).await;
        Ok(())
    });
    yields(10).await;
    g.cancel();
    assert_eq!(in_time(g.wait()).await.unwrap_err(), "context cancelled");
    assert_eq!(start.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_abort_does_not_wait_for_the_grace() {
    let (g, _ctx) = group();
    g.set_grace(5 * SECOND);
    let (start, probe) = (Instant::now(), stubborn(&g));
    g.cancel();
    sleep(SECOND).await;
    g.abort();
    assert!(in_time(g.wait()).await.is_err());
    assert_eq!(start.elapsed(), SECOND);
    probe.assert_all_dropped();
}

#[tokio::test(start_paused = true)]
async fn a_group_or_its_wait_that_is_dropped_aborts_without_the_grace() {
    for in_grace in [false, true] {
        for waits in [false, true] {
            let (g, ctx) = group();
            g.set_grace(5 * SECOND);
            let (start, probe) = (Instant::now(), stubborn(&g));
            yields(3).await;
            if in_grace {
                g.cancel();
                yields(3).await;
            }
            assert_eq!(probe.dropped(), 0);
            if waits {
                let mut wait = Box::pin(g.wait());
                assert!(futures::poll!(&mut wait).is_pending());
                drop(wait);
            } else {
                drop(g);
            }
            assert!(ctx.is_done());
            until(|| probe.dropped() == 1).await;
            assert_eq!((probe.polled(), start.elapsed()), (1, Duration::ZERO));
            until(|| tasks() == 0).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_without_grace_queue_or_deadline_has_no_watcher_task() {
    let gate = Gate::new();
    let (g, ctx) = group();
    let gated = gate.clone();
    g.go(async move {
        gated.pass().await;
        Ok(())
    });
    until(|| tasks() == 1).await;
    // A queue, but no deadline.
    g.set_limit(1);
    g.go(async { Ok(()) });
    yields(20).await;
    assert_eq!(tasks(), 1);
    // A grace, but no deadline.
    g.set_grace(SECOND);
    yields(20).await;
    assert_eq!(tasks(), 1);
    g.set_grace(None);
    g.cancel();
    assert!(ctx.is_done());
    yields(20).await;
    assert_eq!(tasks(), 1, "it has ended, and there is no grace");
    gate.open();
    assert!(g.wait().await.is_err());
    until(|| tasks() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_alone_needs_no_watcher_task() {
    let (g, _ctx) = G::with_context(Context::background().with_timeout(SECOND));
    ends_after(&g, 3 * SECOND);
    yields(10).await;
    assert_eq!(tasks(), 1);
    sleep(2 * SECOND).await;
    assert_eq!(tasks(), 1);
    assert_eq!(in_time(g.wait()).await, OK);
}

#[tokio::test(start_paused = true)]
async fn one_watcher_task_runs_during_a_grace_and_ends_with_it() {
    let (g, _ctx) = group();
    for _ in 0..3 {
        ends_after(&g, 3 * SECOND);
    }
    for _ in 0..10 {
        g.set_grace(5 * SECOND);
    }
    sleep(SECOND).await;
    let before = tasks();
    g.cancel();
    yields(10).await;
    assert_eq!(tasks(), before + 1);
    g.set_grace(None);
    yields(10).await;
    assert_eq!(tasks(), before, "no grace and no watcher are left");
    g.set_grace(5 * SECOND);
    yields(10).await;
    assert_eq!(tasks(), before + 1);
    sleep(3 * SECOND).await;
    yields(10).await;
    assert_eq!((g.running(), tasks()), (0, 0), "no task is left");
    assert_eq!(in_time(g.wait()).await, OK);
}

#[tokio::test(start_paused = true)]
async fn the_watcher_of_a_grace_ends_with_the_last_task_of_any_kind() {
    for (how, start) in [
        ("go", (|g| ends_after(g, SECOND)) as Starts),
        ("spawn", |g| {
            drop(g.spawn(async {
                sleep(SECOND).await;
                Ok(1)
            }))
        }),
        ("go_cancellable", |g| {
            g.go_cancellable(std::future::pending());
        }),
        ("go_blocking", |g| {
            g.go_blocking(|_| Ok(()));
        }),
    ] {
        let (g, _ctx) = group();
        g.set_grace(100 * SECOND);
        start(&g);
        yields(3).await;
        g.cancel();
        sleep(10 * SECOND).await;
        yields(10).await;
        assert_eq!((g.running(), tasks()), (0, 0), "{how}");
        drop(g);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grace_with_a_deadline_has_a_watcher_only_after_the_deadline() {
    let (g, _ctx) = G::with_context(Context::background().with_timeout(SECOND));
    g.set_grace(20 * SECOND);
    for _ in 0..3 {
        ends_after(&g, 10 * SECOND);
    }
    yields(10).await;
    assert_eq!(tasks(), 3);
    sleep(2 * SECOND).await;
    yields(10).await;
    assert_eq!(tasks(), 4);
    assert_eq!(in_time(g.wait()).await, OK);
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_watcher_task_ends_when_the_grace_is_over() {
    let (g, _ctx) = group();
    g.set_grace(SECOND);
    let probe = stubborn(&g);
    g.cancel();
    sleep(2 * SECOND).await;
    yields(10).await;
    assert_eq!((probe.dropped(), tasks()), (1, 0));
    assert!(in_time(g.wait()).await.is_err());
}
