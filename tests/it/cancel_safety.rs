//! Checks each `# Cancel safety` section of the documentation: what is lost when a future is
//! dropped before it is ready.

use std::time::Duration;

use errgroup::{Context, Group, fan_out, fetch_all};
use futures::{FutureExt, StreamExt};

use crate::group_support::*;

const HOUR: Duration = Duration::from_secs(3600);

both_flavours! {
    of_done_nothing_is_lost,
    of_run_no_more_is_lost_than_its_future_loses,
    of_sleep_nothing_is_lost,
    of_an_admission_nothing_changes_for_the_task,
    of_a_handle_nothing_is_lost_when_it_is_awaited_by_reference,
    of_start_an_ordinary_task_is_left,
    of_reserve_only_its_own_position_is_lost,
    of_reserve_a_granted_permit_is_given_back,
    of_reserve_in_a_task_nothing_is_lost_at_any_poll,
    of_a_tracked_future_nothing_is_lost_when_it_is_awaited_by_reference,
    of_wait_the_group_is_dropped,
    of_wait_all_the_group_is_dropped,
    of_scope_the_body_and_the_group_are_dropped,
    of_scope_all_the_body_and_the_group_are_dropped,
    of_idle_nothing_changes,
    of_close_and_wait_nothing_is_aborted_or_lost,
    of_drain_the_group_is_dropped,
    of_a_drain_the_groups_are_dropped,
    of_fetch_all_what_is_in_flight_is_aborted,
    of_stop_the_stream_is_dropped,
}

async fn of_done_nothing_is_lost() {
    let (ctx, guard) = Context::background().with_cancel();
    assert!(ctx.done().now_or_never().is_none());
    assert!(ctx.done_owned().now_or_never().is_none());
    guard.cancel_with("late");
    assert_eq!(ctx.done().await.cause().unwrap().to_string(), "late");
    assert_eq!(ctx.done_owned().await.cause().unwrap().to_string(), "late");
}

async fn of_run_no_more_is_lost_than_its_future_loses() {
    let ctx = Context::background();
    let probe = Probe::default();
    let run = ctx.run(probe.wrap(std::future::pending::<()>()));
    assert!(run.now_or_never().is_none());
    assert_eq!((probe.polled(), probe.dropped()), (1, 1));
}

async fn of_sleep_nothing_is_lost() {
    let ctx = Context::background();
    assert!(ctx.sleep(HOUR).now_or_never().is_none());
    assert!(ctx.sleep(Duration::ZERO).await.is_ok());
}

async fn of_an_admission_nothing_changes_for_the_task() {
    let (g, ran) = (limited(0), Count::default());
    let runs = ran.clone();
    let admission = g.go(async move {
        runs.add();
        Ok(())
    });
    assert!(admission.now_or_never().is_none());
    g.set_limit(1);
    assert_eq!(in_time(g.wait()).await, OK);
    assert_eq!(ran.get(), 1);
}

async fn of_a_handle_nothing_is_lost_when_it_is_awaited_by_reference() {
    let (g, gate) = (G::new(), Gate::new());
    let gated = gate.clone();
    let mut handle = g.spawn(async move {
        gated.pass().await;
        Ok(7)
    });
    assert!((&mut handle).now_or_never().is_none());
    gate.open();
    assert_eq!(in_time(handle).await.unwrap(), 7);
    assert_eq!(g.wait().await, OK);
}

async fn of_start_an_ordinary_task_is_left() {
    let (g, gate) = (G::new(), Gate::new());
    let gated = gate.clone();
    let start = g.start(|_, _ready: errgroup::Ready<()>| async move {
        gated.pass().await;
        Err("the group's own".to_owned())
    });
    assert!(start.now_or_never().is_none());
    gate.open();
    assert_eq!(in_time(g.wait()).await, Err("the group's own".to_owned()));
}

async fn of_reserve_only_its_own_position_is_lost() {
    let (g, log) = (limited(0), Log::new());
    for number in 0..3 {
        let log = log.clone();
        g.go(async move {
            log.add(number);
            Ok(())
        });
        assert!(g.reserve().now_or_never().is_none());
    }
    assert_eq!(g.queued(), 3);
    g.set_limit(1);
    assert_eq!(in_time(g.wait()).await, OK);
    assert_eq!(log.get(), [0, 1, 2]);
}

async fn of_reserve_a_granted_permit_is_given_back() {
    let g = limited(0);
    let mut reserve = Box::pin(g.reserve());
    assert!(futures::poll!(&mut reserve).is_pending());
    g.set_limit(1);
    assert_eq!(g.running(), 1);
    drop(reserve);
    assert_eq!(g.running(), 0);
    assert!(g.reserve().now_or_never().unwrap().is_ok());
    assert_eq!(g.wait().await, OK);
}

/// Drops the reservation of a task after each number of polls, in a crowded group.
async fn of_reserve_in_a_task_nothing_is_lost_at_any_poll() {
    for limit in [1, 4] {
        for polls in 0..6 {
            let (g, ran) = (limited(limit), Count::default());
            for _ in 0..6 {
                let (spawner, ran) = (g.spawner(), ran.clone());
                g.go(async move {
                    let mut reserve = Box::pin(spawner.reserve());
                    for _ in 0..polls {
                        if let std::task::Poll::Ready(permit) = futures::poll!(&mut reserve) {
                            let ran = ran.clone();
                            permit.unwrap().go(async move {
                                ran.add();
                                Ok(())
                            });
                            return Ok(());
                        }
                        yields(1).await;
                    }
                    drop(reserve);
                    ran.add();
                    Ok(())
                });
            }
            assert_eq!(in_time(g.wait()).await, OK);
            assert_eq!(ran.get(), 6);
        }
    }
}

async fn of_a_tracked_future_nothing_is_lost_when_it_is_awaited_by_reference() {
    let (g, gate) = (G::new(), Gate::new());
    let gated = gate.clone();
    let mut tracked = Box::pin(g.track(async move {
        gated.pass().await;
        Err("the group's own".to_owned())
    }));
    assert!((&mut tracked).now_or_never().is_none());
    gate.open();
    in_time(&mut tracked).await;
    assert_eq!(g.wait().await, Err("the group's own".to_owned()));
}

async fn of_wait_the_group_is_dropped() {
    let (g, ctx) = group();
    let probe = Probe::default();
    g.go(probe.wrap(std::future::pending()));
    assert!(g.wait().now_or_never().is_none());
    assert_eq!(ctx.cause().unwrap().to_string(), "the group was dropped");
    until(|| probe.dropped() == 1).await;
}

async fn of_wait_all_the_group_is_dropped() {
    let (g, ctx) = group();
    let probe = Probe::default();
    g.go(probe.wrap(std::future::pending()));
    assert!(g.wait_all().now_or_never().is_none());
    assert_eq!(ctx.cause().unwrap().to_string(), "the group was dropped");
    until(|| probe.dropped() == 1).await;
}

async fn of_scope_the_body_and_the_group_are_dropped() {
    let (body, task) = (Probe::default(), Probe::default());
    let scope = Group::scope(&Context::background(), async |g, _| {
        g.go(task.wrap(std::future::pending()));
        body.wrap(std::future::pending::<Result<(), String>>())
            .await
    });
    assert!(scope.now_or_never().is_none());
    assert_eq!(body.dropped(), 1);
    until(|| task.dropped() == 1).await;
}

async fn of_scope_all_the_body_and_the_group_are_dropped() {
    let (body, task) = (Probe::default(), Probe::default());
    let scope = Group::scope_all(&Context::background(), async |g, _| {
        g.go(task.wrap(std::future::pending()));
        body.wrap(std::future::pending::<Result<(), String>>())
            .await
    });
    assert!(scope.now_or_never().is_none());
    assert_eq!(body.dropped(), 1);
    until(|| task.dropped() == 1).await;
}

async fn of_idle_nothing_changes() {
    let (g, ctx) = group();
    let (probe, gate) = (Probe::default(), Gate::new());
    let gated = gate.clone();
    g.go(probe.wrap(async move {
        gated.pass().await;
        Err("kept".to_owned())
    }));
    assert!(g.idle().now_or_never().is_none());
    assert!(!ctx.is_done());
    gate.open();
    in_time(g.idle()).await;
    assert_eq!(probe.dropped(), 1);
    assert_eq!(in_time(g.wait()).await, Err("kept".to_owned()));
}

async fn of_close_and_wait_nothing_is_aborted_or_lost() {
    let (g, ctx) = group();
    let (probe, gate) = (Probe::default(), Gate::new());
    let gated = gate.clone();
    g.go(probe.wrap(async move {
        gated.pass().await;
        Err("kept".to_owned())
    }));
    assert!(g.close_and_wait().now_or_never().is_none());
    assert!(!ctx.is_done());
    gate.open();
    until(|| probe.dropped() == 1).await;
    assert_eq!(in_time(g.close_and_wait()).await, Err("kept".to_owned()));
}

async fn of_drain_the_group_is_dropped() {
    let (g, ctx) = group();
    let probe = Probe::default();
    g.go(probe.wrap(std::future::pending()));
    assert!(g.drain(HOUR).now_or_never().is_none());
    assert_eq!(ctx.cause().unwrap().to_string(), "the group was dropped");
    until(|| probe.dropped() == 1).await;
}

async fn of_a_drain_the_groups_are_dropped() {
    let (one, two, probe) = (G::new(), G::new(), Probe::default());
    one.go(probe.wrap(std::future::pending()));
    two.go(probe.wrap(std::future::pending()));
    let drain = errgroup::Drain::within(HOUR)
        .phase("one", one)
        .phase("two", two);
    assert!(drain.run().now_or_never().is_none());
    until(|| probe.dropped() == 2).await;
}

async fn of_fetch_all_what_is_in_flight_is_aborted() {
    let probe = Probe::default();
    let wraps = probe.clone();
    let mut all = Box::pin(fetch_all(&Context::background(), 3, 0.., move |_, _| {
        wraps.wrap(std::future::pending::<Result<(), String>>())
    }));
    assert!(futures::poll!(&mut all).is_pending());
    until(|| probe.polled() == 3).await;
    drop(all);
    until(|| probe.dropped() == 3).await;
    assert_eq!(probe.polled(), 3);
}

async fn of_stop_the_stream_is_dropped() {
    let probe = Probe::default();
    let wraps = probe.clone();
    let mut stream = fan_out(&Context::background(), 0.., move |_, _| {
        wraps.wrap(std::future::pending::<Result<(), String>>())
    })
    .limit(3)
    .grace(HOUR)
    .stream();
    assert!(stream.next().now_or_never().is_none());
    until(|| probe.polled() == 3).await;
    assert!(stream.stop().now_or_never().is_none());
    until(|| probe.dropped() == 3).await;
}
