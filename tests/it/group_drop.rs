//! The group, or the future of its `wait`, is dropped half-way: no task is polled again.

use std::sync::{Arc, Mutex};

use errgroup::Context;

use crate::group_support::*;

both_flavours![
    dropping_the_group_ends_its_context_and_says_why,
    dropping_the_group_drops_every_task_in_every_state,
    dropping_the_group_keeps_the_first_cause,
    dropping_waits_future_before_its_first_poll_aborts_the_tasks,
    dropping_waits_future_at_each_of_its_polls_aborts_the_tasks,
    dropping_a_group_inside_its_own_task_ends_it,
    a_task_in_its_poll_when_the_group_is_dropped_ends_that_poll,
    a_group_that_is_dropped_at_once_gives_a_done_context,
    an_admission_outlives_its_group,
];

/// A group with a limit and tasks in every state: ended, running at an await, started and not
/// polled, queued.
fn in_every_state(parent: &Context) -> (G, Context, Probe) {
    let (g, ctx) = G::with_context(parent);
    let probe = Probe::default();
    g.set_limit(6);
    for _ in 0..3 {
        g.go(probe.wrap(async { Ok(()) }));
    }
    for _ in 0..3 {
        g.go(probe.wrap(async {
            std::future::pending::<()>().await;
            Ok(())
        }));
    }
    for _ in 0..10 {
        g.go(probe.wrap(std::future::pending()));
    }
    (g, ctx, probe)
}

/// Asserts that all tasks are dropped and that none is polled after that.
async fn assert_none_is_polled_again(probe: &Probe) {
    until(|| probe.dropped() == probe.made()).await;
    let polled = probe.polled();
    yields(100).await;
    assert_eq!(probe.polled(), polled);
    probe.assert_all_dropped();
}

async fn dropping_the_group_ends_its_context_and_says_why() {
    let (g, ctx, _probe) = in_every_state(&Context::background());
    drop(g);
    assert!(ctx.err().unwrap().is_cancelled());
    assert_eq!(ctx.cause().unwrap().to_string(), "the group was dropped");
}

async fn dropping_the_group_drops_every_task_in_every_state() {
    for turns in 0..20 {
        let (g, _ctx, probe) = in_every_state(&Context::background());
        yields(turns).await;
        drop(g);
        assert_none_is_polled_again(&probe).await;
    }
}

async fn dropping_the_group_keeps_the_first_cause() {
    let (g, ctx, _probe) = in_every_state(&Context::background());
    g.cancel_with("first");
    drop(g);
    assert_eq!(ctx.cause().unwrap().to_string(), "first");
}

async fn dropping_waits_future_before_its_first_poll_aborts_the_tasks() {
    let (g, ctx, probe) = in_every_state(&Context::background());
    drop(g.wait());
    assert_eq!(ctx.cause().unwrap().to_string(), "the group was dropped");
    assert_none_is_polled_again(&probe).await;
}

async fn dropping_waits_future_at_each_of_its_polls_aborts_the_tasks() {
    for polls in 1..8 {
        let (g, ctx, probe) = in_every_state(&Context::background());
        let mut wait = Box::pin(g.wait());
        for _ in 0..polls {
            assert!(futures::poll!(&mut wait).is_pending());
            tokio::task::yield_now().await;
        }
        drop(wait);
        assert_eq!(ctx.cause().unwrap().to_string(), "the group was dropped");
        assert_none_is_polled_again(&probe).await;
    }

    // The same when the tasks have begun to be dropped, at each poll.
    for polls in 0..8 {
        let (g, ctx, probe) = in_every_state(&Context::background());
        g.abort();
        let mut wait = Box::pin(g.wait());
        for _ in 0..polls {
            if futures::poll!(&mut wait).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(wait);
        assert!(ctx.is_done());
        assert_none_is_polled_again(&probe).await;
    }
}

async fn dropping_a_group_inside_its_own_task_ends_it() {
    let (g, ctx, probe) = in_every_state(&Context::background());
    g.set_limit(None);
    let holds: Arc<Mutex<Option<G>>> = Arc::default();
    let (held, polled) = (holds.clone(), Count::default());
    let (entered, left) = (polled.clone(), Count::default());
    let out = left.clone();
    g.go(probe.wrap(async move {
        until(|| held.lock().unwrap().is_some()).await;
        let g = held.lock().unwrap().take();
        drop(g);
        entered.add();
        tokio::task::yield_now().await;
        out.add();
        Ok(())
    }));
    *holds.lock().unwrap() = Some(g);
    ctx.done().await;
    assert_none_is_polled_again(&probe).await;
    assert_eq!((polled.get(), left.get()), (1, 0));
}

async fn a_task_in_its_poll_when_the_group_is_dropped_ends_that_poll() {
    let (g, ctx) = group();
    let probe = Probe::default();
    g.go(probe.wrap(async move {
        while !ctx.is_done() {
            tokio::task::yield_now().await;
        }
        std::future::pending().await
    }));
    until(|| probe.polled() > 0).await;
    drop(g);
    assert_none_is_polled_again(&probe).await;
}

async fn a_group_that_is_dropped_at_once_gives_a_done_context() {
    let (_, ctx) = G::with_context(Context::background());
    assert!(ctx.is_done());
    assert_eq!(ctx.cause().unwrap().to_string(), "the group was dropped");
}

async fn an_admission_outlives_its_group() {
    let g = limited(1);
    let started = g.go(std::future::pending());
    let queued = g.go(async { Ok(()) });
    drop(g);
    assert!(started.await.is_started());
    assert!(!queued.await.is_started());
}
