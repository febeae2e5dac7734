//! Aborts: by the group, by a task, and by a runtime that shuts down.

use std::sync::Arc;
use std::time::Duration;

use errgroup::Context;

use crate::group_support::*;

both_flavours![
    abort_drops_every_task_now,
    abort_counts_every_dropped_task_as_a_context_error,
    abort_does_not_hide_an_earlier_error,
    abort_says_why,
    aborting_twice_is_aborting_once,
    abort_from_inside_a_task,
    after_an_abort_nothing_starts,
    an_aborted_group_waits_for_destructors,
    abort_at_every_moment,
    an_abort_reaches_tasks_beside_clean_up_tasks_with_a_handle,
];

/// A thousand tasks in all states.
fn a_thousand(g: &G, probe: &Probe) {
    for task in 0..1_000 {
        g.go(probe.wrap(async move {
            match task % 4 {
                0 => return Ok(()),
                1 => yields(task % 7).await,
                2 => tokio::time::sleep(Duration::from_secs(3600)).await,
                _ => std::future::pending().await,
            }
            Ok(())
        }));
    }
}

async fn abort_drops_every_task_now() {
    for limit in [Some(1), Some(10), None] {
        for turns in [0, 1, 10] {
            let (g, _ctx) = group();
            g.set_limit(limit);
            let probe = Probe::default();
            a_thousand(&g, &probe);
            yields(turns).await;
            g.abort();
            assert_eq!(g.queued(), 0);
            assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
            probe.assert_all_dropped();
        }
    }
}

async fn abort_counts_every_dropped_task_as_a_context_error() {
    let (g, _ctx) = errgroup::Group::<anyhow::Error>::with_context(Context::background());
    g.go(std::future::pending());
    g.abort();
    let error = g.wait().await.unwrap_err();
    let error = error.downcast_ref::<errgroup::ContextError>().unwrap();
    assert_eq!(error.cause().unwrap().to_string(), "the group was aborted");
}

async fn abort_does_not_hide_an_earlier_error() {
    let (g, ctx) = group();
    g.go(async { Err("boom".to_owned()) });
    g.go(std::future::pending());
    ctx.done().await;
    g.abort();
    assert_eq!(g.wait().await.unwrap_err(), "boom");
}

async fn abort_says_why() {
    let (g, ctx) = group();
    g.abort();
    assert_eq!(ctx.cause().unwrap().to_string(), "the group was aborted");
    assert_eq!(g.wait().await, OK);
}

async fn aborting_twice_is_aborting_once() {
    let (g, _ctx) = group();
    let probe = Probe::default();
    a_thousand(&g, &probe);
    g.abort();
    g.abort();
    assert!(g.wait().await.is_err());
    probe.assert_all_dropped();
}

async fn abort_from_inside_a_task() {
    let g = Arc::new(limited(10));
    let (probe, after) = (Probe::default(), Count::default());
    let (weak, counted) = (Arc::downgrade(&g), after.clone());
    g.go(probe.wrap(async move {
        weak.upgrade().unwrap().abort();
        tokio::task::yield_now().await;
        counted.add();
        Ok(())
    }));
    a_thousand(&g, &probe);
    until(|| probe.dropped() == probe.made()).await;
    let g = Arc::into_inner(g).unwrap();
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
    assert_eq!(after.get(), 0, "it was polled again");
}

async fn after_an_abort_nothing_starts() {
    let g = limited(1);
    let probe = Probe::default();
    g.abort();
    assert!(!g.go(probe.wrap(async { Ok(()) })).await.is_started());
    assert!(g.try_go(probe.wrap(async { Ok(()) })).is_err());
    assert!(g.wait().await.is_err());
    assert_eq!(probe.polled(), 0);
    probe.assert_all_dropped();
}

async fn an_aborted_group_waits_for_destructors() {
    for turns in 0..100 {
        let (g, _ctx) = group();
        let probe = Probe::default();
        for _ in 0..4 {
            g.go(probe.wrap(std::future::pending()));
        }
        yields(turns % 5).await;
        g.abort();
        assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
        assert_eq!(probe.dropped(), 4);
    }
}

async fn abort_at_every_moment() {
    for turns in 0..60 {
        let g = limited(3);
        let probe = Probe::default();
        for task in 0..30 {
            g.go(probe.wrap(async move {
                yields(task % 5).await;
                Ok(())
            }));
        }
        yields(turns).await;
        g.abort();
        let _ = g.wait().await;
        probe.assert_all_dropped();
    }
}

fn runtimes() -> [tokio::runtime::Runtime; 2] {
    [current_thread(), two_workers()]
}

#[test]
fn a_runtime_shutdown_aborts_a_thousand_tasks_in_all_states() {
    for limit in [Some(1), Some(10), None] {
        for turns in [0, 1, 10] {
            for runtime in runtimes() {
                let probe = Probe::default();
                let g = runtime.block_on(async {
                    let (g, _ctx) = group();
                    g.set_limit(limit);
                    a_thousand(&g, &probe);
                    yields(turns).await;
                    g
                });
                drop(runtime);
                let wait = in_time(g.wait());
                assert_eq!(
                    current_thread().block_on(wait).unwrap_err(),
                    "context cancelled"
                );
                probe.assert_all_dropped();
            }
        }
    }
}

#[test]
fn wait_still_ends_when_the_runtime_shuts_down_meanwhile() {
    for runtime in runtimes() {
        let (g, ctx) = runtime.block_on(async { group() });
        let probe = Probe::default();
        {
            let _inside = runtime.enter();
            g.set_limit(2);
            a_thousand(&g, &probe);
        }
        let waits = std::thread::spawn(move || current_thread().block_on(g.wait()));
        drop(runtime);
        assert_eq!(waits.join().unwrap().unwrap_err(), "context cancelled");
        assert!(ctx.is_done());
        probe.assert_all_dropped();
    }
}

#[test]
fn a_runtime_that_shuts_down_stops_the_siblings_that_are_queued() {
    for g in [G::new(), group().0] {
        let (runtime, probe) = (current_thread(), Probe::default());
        g.set_limit(1);
        runtime.block_on(async {
            g.go(std::future::pending());
            yields(2).await;
            for _ in 0..10 {
                g.go(probe.wrap(async { Ok(()) }));
            }
        });
        drop(runtime);
        assert!(g.context().is_done());
        assert_eq!((g.running(), g.queued()), (0, 0));
        assert_eq!(probe.polled(), 0);
        probe.assert_all_dropped();
        assert!(current_thread().block_on(in_time(g.wait())).is_err());
    }
}

#[test]
fn go_after_a_runtime_shutdown_starts_nothing_and_wait_ends() {
    for runtime in runtimes() {
        let g = runtime.block_on(async {
            let g = limited(3);
            g.go(async { Ok(()) });
            until(|| g.running() == 0).await;
            g
        });
        drop(runtime);
        let probe = Probe::default();
        for _ in 0..10 {
            g.go(probe.wrap(async { Ok(()) }));
        }
        let error = current_thread().block_on(in_time(g.wait())).unwrap_err();
        assert_eq!(error, "context cancelled");
        assert_eq!(probe.polled(), 0);
        probe.assert_all_dropped();
    }
}

#[test]
fn a_runtime_shutdown_before_any_poll_ends_wait() {
    for runtime in runtimes() {
        let (g, probe) = (limited(3), Probe::default());
        {
            let _inside = runtime.enter();
            for _ in 0..1_000 {
                g.go(probe.wrap(std::future::pending()));
            }
        }
        runtime.shutdown_background();
        let error = two_workers().block_on(in_time(g.wait())).unwrap_err();
        assert_eq!(error, "context cancelled");
        probe.assert_all_dropped();
    }
}

#[test]
fn a_destructor_may_call_go_during_a_runtime_shutdown() {
    for runtime in runtimes() {
        let g = Arc::new(runtime.block_on(async { limited(2) }));
        let calls = Count::default();
        let _inside = runtime.enter();
        for _ in 0..10 {
            let (weak, calls) = (Arc::downgrade(&g), calls.clone());
            g.go(async move {
                let _calls_back = OnDrop(move || {
                    calls.add();
                    if let Some(g) = weak.upgrade() {
                        g.go(async { Ok(()) });
                    }
                });
                std::future::pending().await
            });
        }
        drop(_inside);
        runtime.block_on(until(|| g.running() == 2));
        runtime.block_on(yields(10));
        drop(runtime);
        let g = Arc::into_inner(g).unwrap();
        assert!(current_thread().block_on(in_time(g.wait())).is_err());
    }
}

#[test]
fn a_destructor_may_call_go_after_a_runtime_shutdown() {
    for runtime in runtimes() {
        let g = Arc::new(runtime.block_on(async {
            let g = limited(3);
            g.go(async { Ok(()) });
            until(|| g.running() == 0).await;
            g
        }));
        drop(runtime);
        let (probe, calls) = (Probe::default(), Count::default());
        for _ in 0..5 {
            let calls_back = OnDrop({
                let (weak, probe, calls) = (Arc::downgrade(&g), probe.clone(), calls.clone());
                move || {
                    calls.add();
                    if let Some(g) = weak.upgrade() {
                        g.go(probe.wrap(async { Ok(()) }));
                    }
                }
            });
            g.go(probe.wrap(async move {
                let _calls_back = calls_back;
                Ok(())
            }));
        }
        let g = Arc::into_inner(g).unwrap();
        assert!(current_thread().block_on(in_time(g.wait())).is_err());
        assert_eq!((calls.get(), probe.polled()), (5, 0));
        probe.assert_all_dropped();
    }
}

#[test]
fn a_destructor_of_an_unpolled_task_may_call_go_after_an_abort() {
    for runtime in runtimes() {
        let (probe, calls) = (Probe::default(), Count::default());
        runtime.block_on(in_time(async {
            let g = Arc::new(limited(3));
            for _ in 0..10 {
                let calls_back = OnDrop({
                    let (weak, calls) = (Arc::downgrade(&g), calls.clone());
                    move || {
                        calls.add();
                        if let Some(g) = weak.upgrade() {
                            g.go(async { Ok(()) });
                        }
                    }
                });
                g.go(probe.wrap(async move {
                    let _calls_back = calls_back;
                    std::future::pending().await
                }));
            }
            g.abort();
            until(|| calls.get() == 10).await;
            let g = until_alone(g).await;
            assert!(g.wait().await.is_err());
        }));
        probe.assert_all_dropped();
    }
}

/// Clean-up tasks have a list of wakers of their own. One that has ended leaves the wakers of the
/// other tasks where they are, whether it has a handle or a call of `start` or neither.
async fn an_abort_reaches_tasks_beside_clean_up_tasks_with_a_handle() {
    let hour = Duration::from_secs(3600);
    for cleanup in 0..4 {
        let (g, _ctx) = group();
        let probe = Probe::default();
        for _ in 0..3 {
            g.go(probe.wrap(std::future::pending()));
        }
        yields(2).await;
        let ends = || async {
            yields(3).await;
            OK
        };
        let builder = g.task().cleanup(hour);
        match cleanup {
            0 => drop(builder.spawn(ends()).await),
            1 => drop(builder.spawn_with(move |_| ends()).await),
            2 => {
                let begin = move |_, ready: errgroup::Ready<()>| async move {
                    yields(3).await;
                    ready.ok(());
                    yields(3).await;
                    OK
                };
                assert_eq!(builder.start(begin).await, OK);
            }
            _ => drop(builder.go(ends())),
        }
        until(|| g.running() == 3).await;
        g.abort();
        in_time(g.wait()).await.unwrap_err();
        probe.assert_all_dropped();
    }
}
