//! `idle`, `close` and `close_and_wait`: waiting for a group through a reference.

use std::error::Error;
use std::sync::Arc;

use errgroup::{Context, Group, TryGoError};
use futures::FutureExt;
use tokio::time::{sleep, timeout};

use crate::group_support::*;
use crate::support::ms;

both_flavours! {
    idle_returns_at_once_if_nothing_was_started,
    idle_waits_for_what_runs_and_what_is_queued,
    idle_changes_nothing,
    idle_may_be_dropped_and_called_again,
    any_number_of_callers_wait_until_it_is_idle,
    idle_returns_although_tasks_were_started_meanwhile,
    idle_waits_for_a_lent_permit,
    idle_waits_for_blocking_closures,
    a_task_lends_while_it_awaits_the_idleness_of_a_group,
    what_is_queued_runs_after_a_close,
    a_go_after_a_close_is_refused_and_reported,
    every_way_to_start_is_refused_after_a_close,
    a_refused_task_does_not_end_the_context,
    a_refused_closure_is_dropped_on_the_pool,
    a_closed_group_whose_context_is_done_reports_that,
    close_and_wait_gives_the_first_error_to_the_first_caller,
    of_two_callers_at_once_one_gets_the_error,
    close_and_wait_ends_the_context,
    close_and_wait_waits_for_what_is_queued,
    a_panic_is_resumed_to_the_first_caller,
    close_and_wait_that_is_dropped_aborts_nothing,
    nothing_counts_after_close_and_wait,
    a_wait_after_close_and_wait_is_ok,
    a_failure_of_start_that_nobody_takes_is_returned,
    a_group_that_is_waited_for_says_so,
    a_permit_that_is_out_keeps_background_tasks_alive,
    a_permit_that_is_given_back_ends_background_tasks,
    a_reservation_in_the_queue_keeps_background_tasks_alive,
    a_reservation_behind_one_of_a_background_task_keeps_nothing_alive,
    a_background_task_that_reserves_does_not_keep_itself_alive,
    what_a_background_task_had_reserved_does_not_count_later,
    a_task_polled_inside_a_background_task_reserves_for_itself,
    a_background_acceptor_starts_tasks_until_the_close,
    wait_and_drain_wait_for_no_permit_beside_a_background_task,
}

fn gated(g: &G, gate: &Gate) {
    let gate = gate.clone();
    g.go(async move {
        gate.pass().await;
        OK
    });
}

async fn idle_returns_at_once_if_nothing_was_started() {
    assert!(G::new().idle().now_or_never().is_some());
}

async fn idle_waits_for_what_runs_and_what_is_queued() {
    let (g, gate) = (limited(1), Gate::new());
    gated(&g, &gate);
    gated(&g, &gate);
    let mut idle = Box::pin(g.idle());
    assert!(futures::poll!(&mut idle).is_pending());
    gate.let_one_through();
    until(|| g.queued() == 0).await;
    assert!(futures::poll!(&mut idle).is_pending());
    gate.let_one_through();
    idle.await;
    assert_eq!((g.running(), g.queued()), (0, 0));
}

async fn idle_changes_nothing() {
    let (g, ctx) = group();
    g.go(async { Ok(()) });
    g.idle().await;
    assert!(!ctx.is_done());
    g.go(async { Err("no".to_owned()) });
    g.idle().await;
    assert_eq!(g.wait().await, Err("no".to_owned()));
}

async fn idle_may_be_dropped_and_called_again() {
    let (g, gate) = (G::new(), Gate::new());
    gated(&g, &gate);
    for _ in 0..3 {
        assert!(g.idle().now_or_never().is_none());
    }
    assert!(timeout(ms(1), g.idle()).await.is_err());
    gate.open();
    g.idle().await;
    assert_eq!(g.wait().await, OK);
}

async fn any_number_of_callers_wait_until_it_is_idle() {
    let (g, gate) = (Arc::new(G::new()), Gate::new());
    gated(&g, &gate);
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let g = g.clone();
            tokio::spawn(async move { g.idle().await })
        })
        .collect();
    yields(10).await;
    assert!(callers.iter().all(|caller| !caller.is_finished()));
    gate.open();
    for caller in callers {
        caller.await.unwrap();
    }
}

async fn idle_returns_although_tasks_were_started_meanwhile() {
    let (g, gate) = (G::new(), Gate::new());
    gated(&g, &gate);
    let mut idle = tokio_test::task::spawn(g.idle());
    assert!(idle.poll().is_pending());
    gate.let_one_through();
    until(|| g.running() == 0).await;
    until(|| idle.is_woken()).await;
    gated(&g, &gate);
    assert!(idle.poll().is_ready());
    assert_eq!(g.running(), 1);
}

async fn idle_waits_for_a_lent_permit() {
    let (g, gate) = (limited(1), Gate::new());
    let (spawner, passes) = (g.spawner(), gate.clone());
    g.go(async move {
        let child = spawner.spawn(async move {
            passes.pass().await;
            Ok(1)
        });
        let _ = child.await;
        OK
    });
    let mut idle = Box::pin(g.idle());
    for _ in 0..20 {
        assert!(futures::poll!(&mut idle).is_pending());
        tokio::task::yield_now().await;
    }
    gate.open();
    idle.await;
}

async fn idle_waits_for_blocking_closures() {
    let (g, (send, receive)) = (G::new(), std::sync::mpsc::channel::<()>());
    g.go_blocking(move |_| {
        let _ = receive.recv();
        OK
    });
    assert!(g.idle().now_or_never().is_none());
    drop(send);
    g.idle().await;
    assert_eq!(g.running(), 0);
}

async fn a_task_lends_while_it_awaits_the_idleness_of_a_group() {
    let outer = limited(1);
    let spawner = outer.spawner();
    outer.go(async move {
        let inner = G::new();
        inner.go(async move {
            // A sibling of the task that awaits `idle`, which holds the only permit.
            let _ = spawner.spawn(async { Ok(()) }).await;
            OK
        });
        inner.idle().await;
        inner.wait().await
    });
    assert_eq!(outer.wait().await, OK);
}

async fn what_is_queued_runs_after_a_close() {
    let (g, gate, ran) = (limited(1), Gate::new(), Count::default());
    gated(&g, &gate);
    for _ in 0..3 {
        let ran = ran.clone();
        g.go(async move {
            ran.add();
            OK
        });
    }
    g.close();
    g.close();
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 3);
}

/// The error of a group's only failure, with its cause.
async fn reason(g: G) -> String {
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(errors.len(), 1, "{errors}");
    errors.iter().next().unwrap().to_string()
}

async fn a_go_after_a_close_is_refused_and_reported() {
    let (g, probe) = (G::new(), Probe::default());
    g.close();
    let admission = g.named("late").go(probe.wrap(async { OK }));
    assert!(!admission.await.is_started());
    assert_eq!((probe.polled(), probe.dropped()), (0, 1));
    let text = reason(g).await;
    assert!(text.starts_with("task \"late\" (started at "), "{text}");
    assert!(
        text.ends_with(" was stopped: the group is closed"),
        "{text}"
    );
}

async fn every_way_to_start_is_refused_after_a_close() {
    let g = G::new();
    let spawner = g.spawner();
    g.close();
    assert!(!g.go_with(|_| async { OK }).await.is_started());
    assert!(!g.go_cancellable(async { OK }).await.is_started());
    assert!(!g.go_blocking(|_| OK).await.is_started());
    assert!(!spawner.go(async { OK }).await.is_started());
    assert!(g.spawn(async { Ok(1) }).await.is_err());
    let refused = g.try_go(async { OK }).unwrap_err();
    assert!(matches!(refused, TryGoError::Ended(_)));
    let start = g.start(|_, ready: errgroup::Ready<()>| async move {
        ready.ok(());
        OK
    });
    assert_eq!(start.await, Err("context cancelled".to_owned()));
    tokio::task::LocalSet::new()
        .run_until(async {
            assert!(!g.go_local(async { OK }).await.is_started());
            g.idle().await;
        })
        .await;
    let errors = g.wait_all().await.unwrap_err();
    for error in &errors {
        assert!(
            error.to_string().ends_with("the group is closed"),
            "{error}"
        );
    }
    assert_eq!(errors.len(), 6);
    assert!(errors.only_cancelled());
}

async fn a_refused_task_does_not_end_the_context() {
    let (g, ctx) = group();
    let gate = Gate::new();
    gated(&g, &gate);
    g.close();
    g.go(async { OK });
    g.go_blocking(|_| OK);
    yields(10).await;
    assert!(!ctx.is_done());
    gate.open();
    assert_eq!(g.wait().await, Err("context cancelled".to_owned()));
}

async fn a_refused_closure_is_dropped_on_the_pool() {
    let (g, here) = (G::new(), std::thread::current().id());
    let (send, receive) = std::sync::mpsc::channel();
    let on_drop = OnDrop(move || send.send(std::thread::current().id()).unwrap());
    g.close();
    g.go_blocking(move |_| {
        drop(on_drop);
        panic!("a refused closure has run")
    });
    g.idle().await;
    assert_ne!(receive.recv().unwrap(), here);
    assert!(reason(g).await.ends_with("the group is closed"));
}

async fn a_closed_group_whose_context_is_done_reports_that() {
    let (g, _ctx) = group();
    g.close();
    g.cancel_with("stop");
    g.go(async { OK });
    assert!(reason(g).await.ends_with(" was stopped: stop"));
}

async fn close_and_wait_gives_the_first_error_to_the_first_caller() {
    let (g, gate) = (G::new(), Gate::new());
    g.go(async { Err("first".to_owned()) });
    g.idle().await;
    gated(&g, &gate);
    g.go(async { Err("second".to_owned()) });
    gate.open();
    assert_eq!(g.close_and_wait().await, Err("first".to_owned()));
    assert_eq!(g.close_and_wait().await, OK);
    assert_eq!(g.close_and_wait().await, OK);
}

async fn of_two_callers_at_once_one_gets_the_error() {
    let (g, gate) = (Arc::new(G::new()), Gate::new());
    let passes = gate.clone();
    g.go(async move {
        passes.pass().await;
        Err("no".to_owned())
    });
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let g = g.clone();
            tokio::spawn(async move {
                let result = g.close_and_wait().await;
                assert!(g.context().is_done());
                result
            })
        })
        .collect();
    yields(10).await;
    gate.open();
    let mut failed = 0;
    for caller in callers {
        failed += usize::from(caller.await.unwrap().is_err());
    }
    assert_eq!(failed, 1);
}

async fn close_and_wait_ends_the_context() {
    let (g, ctx) = group();
    g.go(async { OK });
    assert_eq!(g.close_and_wait().await, OK);
    let cause = ctx.cause().unwrap().to_string();
    assert_eq!(cause, "the group's wait has finished");
}

async fn close_and_wait_waits_for_what_is_queued() {
    let (g, ran) = (limited(1), Count::default());
    for _ in 0..20 {
        let ran = ran.clone();
        g.go(async move {
            tokio::task::yield_now().await;
            ran.add();
            OK
        });
    }
    assert_eq!(g.close_and_wait().await, OK);
    assert_eq!(ran.get(), 20);
}

async fn a_panic_is_resumed_to_the_first_caller() {
    let (g, ctx) = group();
    g.go(async { panic!("a bug") });
    assert_eq!(text(panic_of(g.close_and_wait()).await), "a bug");
    assert!(ctx.is_done());
    assert_eq!(g.close_and_wait().await, OK);
}

async fn close_and_wait_that_is_dropped_aborts_nothing() {
    let (g, ctx) = group();
    let gate = Gate::new();
    gated(&g, &gate);
    g.go(async { OK });
    assert!(timeout(ms(1), g.close_and_wait()).await.is_err());
    assert!(!ctx.is_done());
    assert!(!g.go(async { OK }).await.is_started());
    gate.open();
    assert_eq!(
        g.close_and_wait().await,
        Err("context cancelled".to_owned())
    );
}

async fn nothing_counts_after_close_and_wait() {
    let g = G::new();
    assert_eq!(g.close_and_wait().await, OK);
    assert!(!g.go(async { Err("late".to_owned()) }).await.is_started());
    assert_eq!(g.close_and_wait().await, OK);
}

async fn a_wait_after_close_and_wait_is_ok() {
    let g = G::new();
    g.go(async { Err("no".to_owned()) });
    assert!(g.close_and_wait().await.is_err());
    assert_eq!(g.wait().await, OK);
}

async fn a_failure_of_start_that_nobody_takes_is_returned() {
    let g = G::new();
    let gate = Gate::new();
    let gated = gate.clone();
    let mut start = Box::pin(g.start(move |_, _: errgroup::Ready<()>| async move {
        gated.pass().await;
        Err("no".to_owned())
    }));
    assert!(futures::poll!(&mut start).is_pending());
    gate.open();
    assert_eq!(g.close_and_wait().await, Err("no".to_owned()));
    drop(start);
}

async fn a_group_that_is_waited_for_says_so() {
    let (g, gate) = (G::new(), Gate::new());
    gated(&g, &gate);
    let mut idle = Box::pin(g.idle());
    assert!(futures::poll!(&mut idle).is_pending());
    assert!(format!("{g:?}").contains("waited_for: false"), "{g:?}");
    let mut wait = Box::pin(g.close_and_wait());
    assert!(futures::poll!(&mut wait).is_pending());
    assert!(format!("{g:?}").contains("waited_for: true"), "{g:?}");
    drop(wait);
    assert!(format!("{g:?}").contains("waited_for: false"), "{g:?}");
    gate.open();
    idle.await;
}

/// The clock is real: a loop that yields keeps a paused one from advancing.
#[tokio::test]
async fn idle_takes_part_in_the_budget_of_its_task() {
    let g = G::new();
    let spins = async {
        loop {
            g.idle().await;
        }
    };
    assert!(timeout(ms(10), spins).await.is_err());
    let closes = async {
        loop {
            let _ = g.close_and_wait().await;
        }
    };
    assert!(timeout(ms(10), closes).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_idle_aborts_nothing() {
    let (g, _ctx) = Group::<String>::with_context(Context::background());
    g.go(async {
        sleep(ms(100)).await;
        OK
    });
    assert!(timeout(ms(10), g.idle()).await.is_err());
    assert_eq!(g.running(), 1);
    assert_eq!(g.wait().await, OK);
}

/// The cause of a refused task is the source of its error, where the type has one.
#[tokio::test(start_paused = true)]
async fn the_error_of_a_refused_task_has_its_cause() {
    let g = Group::<anyhow::Error>::new();
    g.close();
    g.go(async { Ok(()) });
    let error = g.close_and_wait().await.unwrap_err();
    let source: &dyn Error = error.source().unwrap();
    assert_eq!(source.to_string(), "the group is closed");
}

/// A group with a background task that ends with the context.
fn with_background(limit: usize) -> (G, Context) {
    let (g, ctx) = group();
    g.set_limit(limit);
    g.task().background().go_with(async |ctx| {
        ctx.done().await;
        OK
    });
    (g, ctx)
}

async fn a_permit_that_is_out_keeps_background_tasks_alive() {
    let ((g, ctx), ran) = (with_background(2), Count::default());
    let permit = g.reserve().await.unwrap();
    let mut end = Box::pin(g.close_and_wait());
    assert!(futures::poll!(&mut end).is_pending());
    yields(10).await;
    assert!(!ctx.is_done());
    let counted = ran.clone();
    permit.go(async move {
        yields(3).await;
        counted.add();
        OK
    });
    assert_eq!(end.await, OK);
    assert_eq!(ran.get(), 1);
    let cause = ctx.cause().unwrap().to_string();
    assert_eq!(cause, "all tasks have finished");
}

async fn a_permit_that_is_given_back_ends_background_tasks() {
    let (g, ctx) = with_background(2);
    let permit = g.reserve().await.unwrap();
    let mut end = Box::pin(g.close_and_wait());
    assert!(futures::poll!(&mut end).is_pending());
    assert!(!ctx.is_done());
    drop(permit);
    assert!(ctx.is_done());
    assert_eq!(end.await, OK);
}

async fn a_reservation_in_the_queue_keeps_background_tasks_alive() {
    for is_dropped in [false, true] {
        let (g, ctx) = with_background(1);
        let permit = g.reserve().await.unwrap();
        let mut waits = Box::pin(g.reserve());
        assert!(futures::poll!(&mut waits).is_pending());
        let mut end = Box::pin(g.close_and_wait());
        assert!(futures::poll!(&mut end).is_pending());
        drop(permit);
        assert!(!ctx.is_done());
        if is_dropped {
            // Its permit was granted and not taken.
            drop(waits);
            assert!(ctx.is_done());
        } else {
            let handle = waits.await.unwrap().spawn(async { Ok(7) });
            assert_eq!(handle.await.unwrap(), 7);
        }
        assert_eq!(end.await, OK);
    }
}

/// Such a reservation would wait for the background task, and that for the end of the context.
async fn a_reservation_behind_one_of_a_background_task_keeps_nothing_alive() {
    let (g, ctx) = group();
    g.set_limit(1);
    let (spawner, has) = (g.spawner(), Count::default());
    let counted = has.clone();
    g.task().background().go_with(async move |ctx| {
        let permit = spawner.reserve().await.unwrap();
        counted.add();
        ctx.done().await;
        drop(permit);
        OK
    });
    until(|| has.get() == 1).await;
    let mut waits = Box::pin(g.reserve());
    assert!(futures::poll!(&mut waits).is_pending());
    assert_eq!(in_time(g.close_and_wait()).await, OK);
    assert!(ctx.is_done());
    assert!(in_time(waits).await.is_err());
}

/// A background task that reserved a permit, or waits for one, is cancelled when only it is left.
async fn a_background_task_that_reserves_does_not_keep_itself_alive() {
    for limit in [0, 1] {
        for kind in 0..4 {
            let (g, ctx) = group();
            g.set_limit(limit);
            let (spawner, reserved) = (g.spawner(), Count::default());
            let counted = reserved.clone();
            let reserves = async move |ctx: Context| {
                let reserve = spawner.reserve();
                counted.add();
                let permit = ctx.run(reserve).await;
                ctx.done().await;
                drop(permit);
                OK
            };
            let set = tokio::task::LocalSet::new();
            match kind {
                0 => drop(g.task().background().go_with(reserves)),
                3 => {
                    let own = ctx.clone();
                    let tracked = async move { reserves(own).await };
                    drop(tokio::spawn(g.task().background().track(tracked)));
                }
                1 => drop(g.task().background().go_blocking(move |ctx| {
                    tokio::runtime::Handle::current().block_on(reserves(ctx))
                })),
                _ => {
                    let inside = set.enter();
                    let own = ctx.clone();
                    drop(
                        g.task()
                            .background()
                            .go_local(async move { reserves(own).await }),
                    );
                    drop(inside);
                }
            }
            let end = set.run_until(async {
                until(|| reserved.get() == 1 && g.running() + g.queued() > 0).await;
                g.close_and_wait().await
            });
            assert_eq!(end.await, OK, "limit {limit}, kind {kind}");
            assert!(ctx.is_done());
        }
    }
}

/// A background task that accepts connections has a permit for the next one.
async fn a_background_acceptor_starts_tasks_until_the_close() {
    let (g, ran) = (limited(2), Count::default());
    let (spawner, counted) = (g.spawner(), ran.clone());
    let (connect, mut connections) = tokio::sync::mpsc::channel::<Gate>(8);
    g.task().background().go_cancellable(async move {
        while let Ok(permit) = spawner.reserve().await {
            let Some(gate) = connections.recv().await else {
                break;
            };
            let ran = counted.clone();
            permit.go(async move {
                gate.pass().await;
                ran.add();
                OK
            });
        }
        OK
    });
    let gate = Gate::new();
    connect.send(gate.clone()).await.unwrap();
    until(|| g.running() == 2).await;
    let mut end = Box::pin(g.close_and_wait());
    assert!(futures::poll!(&mut end).is_pending());
    // It has its permit from before the close.
    connect.send(gate.clone()).await.unwrap();
    until(|| connect.capacity() == 8).await;
    gate.open();
    assert_eq!(end.await, OK);
    assert_eq!(ran.get(), 2);
    assert!(connect.is_closed());
}

async fn wait_and_drain_wait_for_no_permit_beside_a_background_task() {
    let (g, ctx) = with_background(1);
    let permit = g.reserve().await.unwrap();
    assert_eq!(g.wait().await, OK);
    assert!(ctx.is_done());
    drop(permit);

    let (g, ctx) = with_background(1);
    let permit = g.reserve().await.unwrap();
    let drained = g.drain(ms(60_000)).await;
    assert_eq!(drained.aborted().count(), 0, "{drained:?}");
    assert!(ctx.is_done());
    drop(permit);
}

async fn what_a_background_task_had_reserved_does_not_count_later() {
    let (g, ctx) = group();
    g.set_limit(2);
    let (spawner, rounds) = (g.spawner(), Gate::new());
    let (passes, done) = (rounds.clone(), Count::default());
    let counted = done.clone();
    g.task().background().go_with(async move |ctx| {
        let is_granted = || matches!(spawner.reserve().now_or_never(), Some(Ok(_)));
        // Given back, used, granted and not taken, dropped in the queue.
        assert!(is_granted());
        spawner
            .reserve()
            .await
            .unwrap()
            .spawn(async { Ok(()) })
            .await
            .unwrap();
        counted.add();
        passes.pass().await;
        let mut waits = Box::pin(spawner.reserve());
        assert!(futures::poll!(&mut waits).is_pending());
        counted.add();
        passes.pass().await;
        drop(waits);
        assert!(!is_granted());
        counted.add();
        passes.pass().await;
        // Refused by the closed group.
        assert!(spawner.reserve().await.is_err());
        counted.add();
        ctx.done().await;
        OK
    });
    until(|| done.get() == 1).await;
    let (first, second) = (g.reserve().await.unwrap(), g.reserve().await.unwrap());
    rounds.let_one_through();
    until(|| done.get() == 2).await;
    drop(first);
    let first = tokio::spawn(g.reserve());
    until(|| g.queued() == 1).await;
    rounds.let_one_through();
    let first = first.await.unwrap().unwrap();
    until(|| done.get() == 3).await;
    let mut end = Box::pin(g.close_and_wait());
    assert!(futures::poll!(&mut end).is_pending());
    rounds.open();
    until(|| done.get() == 4).await;
    drop(first);
    yields(10).await;
    assert!(futures::poll!(&mut end).is_pending() && !ctx.is_done());
    drop(second);
    assert_eq!(end.await, OK);
}

async fn a_task_polled_inside_a_background_task_reserves_for_itself() {
    let (g, ctx) = group();
    g.set_limit(3);
    let (spawner, permits) = (g.spawner(), Log::<usize>::new());
    let (send, receive) = tokio::sync::oneshot::channel();
    let outer = tokio::task::LocalSet::new();
    let (inside, log) = (outer.enter(), permits.clone());
    g.task().background().go_local(async move {
        let ctx = spawner.context();
        let (set, reserves) = (tokio::task::LocalSet::new(), spawner.clone());
        let entered = set.enter();
        spawner.go_local(async move {
            let permit = reserves.reserve().await.unwrap();
            log.add(1);
            let _ = send.send(permit);
            OK
        });
        drop(entered);
        set.run_until(ctx.done()).await;
        OK
    });
    drop(inside);
    let ends = async {
        let permit = receive.await.unwrap();
        until(|| g.running() == 1).await;
        let mut end = Box::pin(g.close_and_wait());
        assert!(futures::poll!(&mut end).is_pending());
        yields(10).await;
        assert!(!ctx.is_done());
        drop(permit);
        end.await
    };
    assert_eq!(outer.run_until(ends).await, OK);
    assert_eq!(permits.get(), [1]);
}
