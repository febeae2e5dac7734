//! `try_go`, which starts a task at once or not at all.

use std::error::Error;

use errgroup::TryGoError;

use crate::group_support::*;

both_flavours![
    it_starts_now_if_there_is_a_permit,
    full_returns_the_future,
    it_does_not_overtake_queued_tasks,
    ended_returns_the_future,
    a_refusal_is_no_failure_of_the_group,
    a_returned_future_may_be_started_later,
    its_error_says_why_without_a_debug_of_the_future,
];

async fn it_starts_now_if_there_is_a_permit() {
    let (g, ended) = (limited(1), Count::default());
    for round in 1..=10 {
        let counted = ended.clone();
        let started = g.try_go(async move {
            counted.add();
            Ok(())
        });
        assert!(started.is_ok());
        until(|| g.running() == 0).await;
        assert_eq!(ended.get(), round);
    }
    assert_eq!(g.wait().await, OK);
}

/// A group whose one permit is taken until its context is done.
fn full() -> G {
    let g = limited(1);
    g.go_with(|ctx| async move {
        ctx.done().await;
        Ok(())
    });
    g
}

async fn full_returns_the_future() {
    let (g, probe) = (full(), Probe::default());
    match g.try_go(probe.wrap(async { Ok(()) })) {
        Err(TryGoError::Full(future)) => assert_eq!(future.await, OK),
        other => panic!("{other:?}"),
    }
    assert_eq!((g.running(), g.queued()), (1, 0));
    g.cancel();
    assert_eq!(g.wait().await, OK);
    assert_eq!((probe.polled(), probe.dropped()), (1, 1));
}

async fn it_does_not_overtake_queued_tasks() {
    let g = limited(0);
    g.go(async { Ok(()) });
    let refused = g.try_go(async { Ok(()) });
    assert!(matches!(refused, Err(TryGoError::Full(_))));
    g.set_limit(1);
    assert_eq!(g.wait().await, OK);
}

async fn ended_returns_the_future() {
    let (g, _ctx) = group();
    g.cancel();
    match g.try_go(async { Ok(()) }) {
        Err(TryGoError::Ended(future)) => assert_eq!(future.await, OK),
        other => panic!("{other:?}"),
    }
    assert_eq!(g.wait().await, OK);
}

async fn a_refusal_is_no_failure_of_the_group() {
    let g = full();
    assert!(g.try_go(async { Err("not started".to_owned()) }).is_err());
    assert!(!g.context().is_done());
    g.cancel();
    assert!(g.try_go(async { Err("not started".to_owned()) }).is_err());
    assert_eq!(g.wait().await, OK);
}

async fn a_returned_future_may_be_started_later() {
    let (g, ended) = (limited(0), Count::default());
    let counted = ended.clone();
    let refused = g.try_go(async move {
        counted.add();
        Ok(())
    });
    let future = refused.unwrap_err().into_inner();
    g.set_limit(1);
    assert!(g.try_go(future).is_ok());
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), 1);
}

async fn its_error_says_why_without_a_debug_of_the_future() {
    let g = full();
    let full = g.try_go(async { Ok(()) }).unwrap_err();
    assert_eq!(format!("{full:?}"), "Full(..)");
    assert_eq!(full.to_string(), "every permit of the group is taken");
    assert!(full.source().is_none());
    g.cancel();
    let ended = g.try_go(async { Ok(()) }).unwrap_err();
    assert_eq!(format!("{ended:?}"), "Ended(..)");
    assert_eq!(
        ended.to_string(),
        "the group starts no more tasks: its context is done, or it was closed"
    );
    assert_eq!(g.wait().await, OK);
}
