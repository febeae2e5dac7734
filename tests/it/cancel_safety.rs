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
    of_wait_the_group_is_dropped,
    of_wait_all_the_group_is_dropped,
    of_scope_the_body_and_the_group_are_dropped,
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
    assert_eq!(in_time(handle).await, Some(7));
    assert_eq!(g.wait().await, OK);
}

async fn of_start_an_ordinary_task_is_left() {
    let (g, gate) = (G::new(), Gate::new());
    let gated = gate.clone();
    let start = g.start(|_ready: errgroup::Ready<()>| async move {
        gated.pass().await;
        Err("the group's own".to_owned())
    });
    assert!(start.now_or_never().is_none());
    gate.open();
    assert_eq!(in_time(g.wait()).await, Err("the group's own".to_owned()));
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
