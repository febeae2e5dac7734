//! Which error `wait` returns, and what a failure does to the other tasks.

use std::sync::Arc;

use errgroup::{Cause, Context, ContextError, Group};

use crate::group_support::*;

both_flavours![
    wait_of_an_empty_group_is_ok,
    wait_gives_the_first_error_in_order_of_completion,
    the_error_is_returned_by_value_as_the_task_made_it,
    a_failure_cancels_the_context_with_the_text_of_the_error,
    of_two_failures_at_once_the_returned_error_is_the_cause,
    a_failure_cancels_the_siblings_and_drops_none,
    a_task_that_obeys_does_not_hide_the_error_that_caused_it,
    a_cancel_does_not_hide_an_earlier_error,
    an_error_whose_display_panics_is_an_error_like_any_other,
    if_the_parent_ends_and_every_task_returns_ok_wait_is_ok,
    if_any_was_never_started_wait_is_err,
    if_any_was_aborted_wait_is_err,
    the_context_ends_when_wait_ends,
    the_context_ends_with_the_parent,
    cancel_reaches_every_task,
    cancel_with_says_why,
    the_end_of_the_group_ends_neither_parent_nor_siblings,
];

async fn wait_of_an_empty_group_is_ok() {
    assert_eq!(group().0.wait().await, OK);
}

async fn wait_gives_the_first_error_in_order_of_completion() {
    let (g, ctx) = group();
    let gate = Gate::new();
    let slow = gate.clone();
    g.go(async move {
        slow.pass().await;
        Err("started first, failed second".to_owned())
    });
    g.go(async { Err("started second, failed first".to_owned()) });
    ctx.done().await;
    gate.open();
    assert_eq!(g.wait().await.unwrap_err(), "started second, failed first");
}

async fn the_error_is_returned_by_value_as_the_task_made_it() {
    #[derive(Debug, thiserror::Error)]
    enum Mine {
        #[error("the task's own")]
        Own(Arc<str>),
        #[error(transparent)]
        Context(#[from] ContextError),
    }

    let (g, _ctx) = Group::with_context(Context::background());
    let text: Arc<str> = "kept".into();
    let theirs = text.clone();
    g.go(async move { Err(Mine::Own(theirs)) });
    match g.wait().await {
        Err(Mine::Own(own)) => assert!(Arc::ptr_eq(&own, &text)),
        other => panic!("{other:?}"),
    }
}

async fn a_failure_cancels_the_context_with_the_text_of_the_error() {
    let (g, ctx) = group();
    g.go(async { Err("disk full".to_owned()) });
    let end = ctx.done().await;
    assert!(end.is_cancelled());
    assert_eq!(end.cause().unwrap().to_string(), "disk full");
    assert_eq!(g.wait().await.unwrap_err(), "disk full");
    assert_eq!(ctx.cause().unwrap().to_string(), "disk full");
}

async fn of_two_failures_at_once_the_returned_error_is_the_cause() {
    for _ in 0..500 {
        let (g, ctx) = group();
        for task in 0..4 {
            g.go(async move { Err(format!("task {task}")) });
        }
        let error = g.wait().await.unwrap_err();
        assert_eq!(ctx.cause().unwrap().to_string(), error);
    }
}

async fn a_failure_cancels_the_siblings_and_drops_none() {
    let (g, ctx) = group();
    let finished = Count::default();
    for _ in 0..10 {
        let finished = finished.clone();
        g.go_with(|ctx| async move {
            ctx.done().await;
            yields(10).await;
            finished.add();
            Ok(())
        });
    }
    g.go(async { Err("boom".to_owned()) });
    assert_eq!(g.wait().await.unwrap_err(), "boom");
    assert_eq!(finished.get(), 10);
    assert!(ctx.is_done());
}

async fn a_task_that_obeys_does_not_hide_the_error_that_caused_it() {
    let (g, _ctx) = group();
    for _ in 0..10 {
        g.go_with(|ctx| async move { Err(ctx.done().await.into()) });
    }
    g.go(async { Err("boom".to_owned()) });
    assert_eq!(g.wait().await.unwrap_err(), "boom");
}

async fn a_cancel_does_not_hide_an_earlier_error() {
    let (g, ctx) = group();
    g.go(async { Err("boom".to_owned()) });
    ctx.done().await;
    g.cancel_with("too late");
    assert_eq!(ctx.cause().unwrap().to_string(), "boom");
    assert_eq!(g.wait().await.unwrap_err(), "boom");
}

async fn an_error_whose_display_panics_is_an_error_like_any_other() {
    struct Rude;

    impl std::fmt::Display for Rude {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no text")
        }
    }

    impl From<ContextError> for Rude {
        fn from(_: ContextError) -> Rude {
            Rude
        }
    }

    let (g, ctx) = Group::<Rude>::with_context(Context::background());
    g.go(async { Err(Rude) });
    assert!(g.wait().await.is_err());
    let cause = ctx.cause().unwrap().to_string();
    assert!(cause.contains("displaying its error panicked"), "{cause}");
}

async fn if_the_parent_ends_and_every_task_returns_ok_wait_is_ok() {
    let (parent, guard) = Context::background().with_cancel();
    let (g, _ctx) = G::with_context(&parent);
    for _ in 0..10 {
        g.go_with(|ctx| async move {
            ctx.done().await;
            Ok(())
        });
    }
    guard.cancel();
    assert_eq!(g.wait().await, OK);
}

async fn if_any_was_never_started_wait_is_err() {
    let (parent, guard) = Context::background().with_cancel();
    let (g, _ctx) = G::with_context(&parent);
    g.set_limit(1);
    g.go_with(|ctx| async move {
        ctx.done().await;
        Ok(())
    });
    g.go(async { Ok(()) });
    guard.cancel();
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
}

async fn if_any_was_aborted_wait_is_err() {
    let (g, _ctx) = group();
    g.go(std::future::pending());
    g.abort();
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
}

async fn the_context_ends_when_wait_ends() {
    let (g, ctx) = group();
    g.go(async { Ok(()) });
    assert!(!ctx.is_done());
    assert_eq!(g.wait().await, OK);
    assert!(ctx.err().unwrap().is_cancelled());
    assert_eq!(
        ctx.cause().unwrap().to_string(),
        "the group's wait has finished"
    );
}

async fn the_context_ends_with_the_parent() {
    let (parent, guard) = Context::background().with_cancel();
    let (g, ctx) = G::with_context(&parent);
    guard.cancel_with("shutting down");
    assert_eq!(ctx.cause().unwrap().to_string(), "shutting down");
    assert_eq!(g.wait().await, OK);
}

async fn cancel_reaches_every_task() {
    let (g, ctx) = group();
    let stopped = Count::default();
    for _ in 0..10 {
        let stopped = stopped.clone();
        g.go_with(|ctx| async move {
            ctx.done().await;
            stopped.add();
            Ok(())
        });
    }
    g.cancel();
    assert!(ctx.is_done());
    assert_eq!(ctx.cause().unwrap().to_string(), "context cancelled");
    assert_eq!(g.wait().await, OK);
    assert_eq!(stopped.get(), 10);
}

async fn cancel_with_says_why() {
    let (g, ctx) = group();
    g.go_with(|ctx| async move {
        let why: Cause = ctx.done().await.cause().unwrap().clone();
        Err(why.to_string())
    });
    g.cancel_with("the user pressed stop");
    assert_eq!(ctx.cause().unwrap().to_string(), "the user pressed stop");
    assert_eq!(g.wait().await.unwrap_err(), "the user pressed stop");
}

async fn the_end_of_the_group_ends_neither_parent_nor_siblings() {
    let (parent, _guard) = Context::background().with_cancel();
    let (sibling, _ctx) = G::with_context(&parent);
    let (g, _ctx) = G::with_context(&parent);
    g.go(async { Err("boom".to_owned()) });
    assert!(g.wait().await.is_err());
    assert!(!parent.is_done());
    assert!(!sibling.context().is_done());
    assert_eq!(sibling.wait().await, OK);
}
