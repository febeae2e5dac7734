//! The order of the effects of a failure: the error is set, the context is cancelled, the permit is
//! released, and the task counts as done.

use std::sync::Arc;

use errgroup::Context;

use crate::group_support::*;

both_flavours![
    when_the_context_ends_the_error_is_set,
    when_the_context_ends_its_cause_reads_as_the_error_does,
    when_the_context_ends_the_permit_is_not_yet_released,
    the_permit_is_released_when_the_task_has_been_dropped,
    a_permit_released_after_a_failure_starts_no_queued_task,
    when_wait_returns_every_destructor_has_run,
    a_task_that_obeys_a_failure_fails_after_it,
];

/// Calls `look` when the context is cancelled, in the middle of a failure.
fn at_the_end_of(ctx: &Context, look: impl Fn() + Send + Sync + 'static) -> impl Sized {
    let mut done = Box::pin(ctx.done_owned());
    assert!(poll_with(&mut done, &waker(look)).is_pending());
    done
}

async fn when_the_context_ends_the_error_is_set() {
    let (g, ctx) = group();
    let spawner = g.spawner();
    let here = tokio::runtime::Handle::current();
    let _done = at_the_end_of(&ctx, move || {
        let _inside = here.enter();
        // Refused, and so a failure of its own: the second.
        spawner.go(async { Ok(()) });
    });
    g.go(async { Err("boom".to_owned()) });
    assert_eq!(g.wait().await.unwrap_err(), "boom");
}

async fn when_the_context_ends_its_cause_reads_as_the_error_does() {
    let (g, ctx) = group();
    let seen = Log::new();
    let (log, asked) = (seen.clone(), ctx.clone());
    let _done = at_the_end_of(&ctx, move || log.add(asked.cause().unwrap().to_string()));
    g.go(async { Err("boom".to_owned()) });
    assert!(g.wait().await.is_err());
    assert_eq!(seen.get(), ["boom"]);
}

async fn when_the_context_ends_the_permit_is_not_yet_released() {
    let (g, ctx) = group();
    let g = Arc::new(g);
    let running = Log::new();
    let (log, asked) = (running.clone(), Arc::downgrade(&g));
    let _done = at_the_end_of(&ctx, move || log.add(asked.upgrade().unwrap().running()));
    g.go(async { Err("boom".to_owned()) });
    until(|| g.running() == 0).await;
    assert_eq!(running.get(), [1]);
}

async fn the_permit_is_released_when_the_task_has_been_dropped() {
    let g = limited(1);
    let log = Log::new();
    for _ in 0..20 {
        let log = log.clone();
        g.go(async move {
            log.add("runs");
            let log = log.clone();
            let _gone = OnDrop(move || log.add("dropped"));
            tokio::task::yield_now().await;
            Ok(())
        });
    }
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get(), ["runs", "dropped"].repeat(20));
}

async fn a_permit_released_after_a_failure_starts_no_queued_task() {
    for _ in 0..200 {
        let g = limited(1);
        let started = Count::default();
        let counted = started.clone();
        g.go(async { Err("boom".to_owned()) });
        g.go(async move {
            counted.add();
            Ok(())
        });
        assert_eq!(g.wait().await.unwrap_err(), "boom");
        assert_eq!(started.get(), 0);
    }
}

async fn when_wait_returns_every_destructor_has_run() {
    for _ in 0..200 {
        let (g, _ctx) = group();
        let probe = Probe::default();
        for task in 0..8 {
            g.go(probe.wrap(async move {
                yields(task % 3).await;
                if task == 5 {
                    Err("boom".to_owned())
                } else {
                    Ok(())
                }
            }));
        }
        assert_eq!(g.wait().await.unwrap_err(), "boom");
        probe.assert_all_dropped();
    }
}

async fn a_task_that_obeys_a_failure_fails_after_it() {
    for _ in 0..1_000 {
        let (g, _ctx) = group();
        g.go_with(|ctx| async move {
            while !ctx.is_done() {
                tokio::task::yield_now().await;
            }
            Err("obeyed".to_owned())
        });
        g.go(async { Err("boom".to_owned()) });
        assert_eq!(g.wait().await.unwrap_err(), "boom");
    }
}
