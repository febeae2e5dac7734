//! `Group::new`, Go's zero group: it waits for all tasks, returns the first error, and cancels no
//! task.

use crate::group_support::*;

both_flavours![
    no_failure_ends_its_context,
    no_panic_ends_its_context,
    wait_still_gives_the_first_error,
    wait_still_resumes_the_panic,
    a_queued_task_starts_after_a_failure,
    cancel_ends_its_context,
    the_end_of_wait_ends_its_context,
    default_is_new,
];

async fn no_failure_ends_its_context() {
    let (g, finished) = (G::new(), Count::default());
    let ctx = g.context();
    g.go(async { Err("boom".to_owned()) });
    until(|| g.running() == 0).await;
    assert!(!ctx.is_done());
    for _ in 0..10 {
        let finished = finished.clone();
        g.go(async move {
            finished.add();
            Ok(())
        });
    }
    assert_eq!(g.wait().await.unwrap_err(), "boom");
    assert_eq!(finished.get(), 10);
}

async fn no_panic_ends_its_context() {
    let g = G::new();
    g.go(async { panic!("boom") });
    until(|| g.running() == 0).await;
    assert!(!g.context().is_done());
    assert_eq!(text(panic_of(g.wait()).await), "boom");
}

async fn wait_still_gives_the_first_error() {
    let g = G::new();
    for error in ["first", "second", "third"] {
        g.go(async move { Err(error.to_owned()) });
        until(|| g.running() == 0).await;
    }
    assert_eq!(g.wait().await.unwrap_err(), "first");
}

async fn wait_still_resumes_the_panic() {
    let g = G::new();
    g.go(async { Err("an error".to_owned()) });
    until(|| g.running() == 0).await;
    for panic in ["first", "second"] {
        g.go(async move { panic!("{panic}") });
        until(|| g.running() == 0).await;
    }
    assert_eq!(text(panic_of(g.wait()).await), "first");
}

async fn a_queued_task_starts_after_a_failure() {
    let (g, started) = (G::new(), Count::default());
    g.set_limit(1);
    g.go(async { Err("boom".to_owned()) });
    let counted = started.clone();
    let admission = g.go(async move {
        counted.add();
        Ok(())
    });
    assert!(admission.await.is_started());
    assert_eq!(g.wait().await.unwrap_err(), "boom");
    assert_eq!(started.get(), 1);
}

async fn cancel_ends_its_context() {
    let g = G::new();
    g.go_with(|ctx| async move { Err(ctx.done().await.cause().unwrap().to_string()) });
    g.cancel_with("enough");
    assert_eq!(g.wait().await.unwrap_err(), "enough");
}

async fn the_end_of_wait_ends_its_context() {
    let g = G::new();
    let ctx = g.context();
    assert_eq!(g.wait().await, OK);
    assert!(ctx.is_done());
}

async fn default_is_new() {
    let g = G::default();
    g.go(async { Err("boom".to_owned()) });
    until(|| g.running() == 0).await;
    assert!(!g.context().is_done());
    assert_eq!(g.limit(), None);
    assert_eq!(g.wait().await.unwrap_err(), "boom");
}
