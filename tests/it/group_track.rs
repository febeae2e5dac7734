//! Tracked futures: their caller polls them, and the group waits for them and has their failures.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use errgroup::{Spawner, Tracked};
use futures::FutureExt;
use tokio::sync::oneshot;

use crate::group_support::*;

both_flavours![
    the_wait_waits_until_it_has_finished,
    the_wait_waits_until_it_is_dropped,
    dropped_half_way_it_is_no_failure,
    dropped_before_its_first_poll_it_is_no_failure,
    its_error_is_the_groups_and_cancels_the_context,
    its_error_is_listed_with_its_site,
    in_a_new_group_its_error_cancels_nothing,
    its_panic_is_resumed_by_the_wait_and_not_by_its_caller,
    a_panic_of_its_destructor_is_the_groups,
    a_panic_when_it_is_dropped_half_way_is_the_groups,
    it_takes_no_permit_and_counts_in_no_limit,
    an_abort_does_not_touch_it,
    a_grace_period_does_not_touch_it,
    after_the_end_of_the_context_it_is_still_counted,
    after_an_abort_it_is_still_counted,
    after_the_wait_it_is_only_polled,
    after_the_wait_its_panic_is_its_callers,
    a_spawner_tracks,
    a_spawner_of_a_dropped_group_only_polls,
    a_dropped_group_leaves_it_to_its_caller,
    it_need_not_be_send_and_may_borrow,
    once_finished_it_stays_ready,
    it_ends_before_the_wait_returns,
];

/// Polls a wait once. It must not be over.
macro_rules! assert_waits {
    ($wait:expr) => {
        assert_eq!(
            poll_fn(|cx| Poll::Ready($wait.poll_unpin(cx))).await,
            Poll::Pending
        )
    };
}

async fn the_wait_waits_until_it_has_finished() {
    let (g, _) = group();
    let (send, receive) = oneshot::channel();
    let tracked = g.track(async { receive.await.map_err(|_| "lost".to_owned()) });
    let tracked = tokio::spawn(tracked);
    let mut wait = Box::pin(g.wait());
    assert_waits!(wait);
    yields(20).await;
    assert_waits!(wait);
    send.send(()).unwrap();
    assert_eq!(wait.await, OK);
    tracked.await.unwrap();
}

async fn the_wait_waits_until_it_is_dropped() {
    let (g, _) = group();
    let mut tracked = Box::pin(g.track(pending::<Result<(), String>>()));
    let mut wait = Box::pin(g.wait());
    assert_waits!(wait);
    assert_waits!(tracked);
    yields(5).await;
    assert_waits!(wait);
    drop(tracked);
    assert_eq!(wait.await, OK);
}

async fn dropped_half_way_it_is_no_failure() {
    let (g, ctx) = group();
    let dropped = Count::default();
    let on_drop = dropped.clone();
    let mut tracked = Box::pin(g.track(async move {
        let _on_drop = OnDrop(move || _ = on_drop.add());
        pending().await
    }));
    assert_waits!(tracked);
    drop(tracked);
    assert_eq!(dropped.get(), 1);
    assert!(!ctx.is_done());
    assert!(g.wait_all().await.is_ok());
}

async fn dropped_before_its_first_poll_it_is_no_failure() {
    let (g, ctx) = group();
    drop(g.track(async { Err("never polled".to_owned()) }));
    assert!(!ctx.is_done());
    assert!(g.wait_all().await.is_ok());
}

async fn its_error_is_the_groups_and_cancels_the_context() {
    let (g, ctx) = group();
    let stopped = g.spawn(async move {
        let why = ctx.done().await;
        assert!(why.is_cancelled());
        Ok(ctx.cause().unwrap().to_string())
    });
    g.track(async { Err("reset".to_owned()) }).await;
    assert!(g.context().is_done());
    assert_eq!(g.wait().await, Err("reset".to_owned()));
    assert_eq!(stopped.take().unwrap(), "reset");
}

async fn its_error_is_listed_with_its_site() {
    let (g, _) = group();
    let line = line!() + 1;
    g.track(async { Err("reset".to_owned()) }).await;
    let errors = g.wait_all().await.unwrap_err();
    let error = errors.iter().next().unwrap();
    assert_eq!((error.name(), error.site().line()), (None, line));
    assert!(error.site().file().ends_with("group_track.rs"));
    assert_eq!(errors.causes().count(), 1);
}

async fn in_a_new_group_its_error_cancels_nothing() {
    let g = G::new();
    g.track(async { Err("reset".to_owned()) }).await;
    assert!(!g.context().is_done());
    assert_eq!(g.wait().await, Err("reset".to_owned()));
}

async fn its_panic_is_resumed_by_the_wait_and_not_by_its_caller() {
    let (g, ctx) = group();
    g.track(async { panic!("torn") }).await;
    assert!(ctx.is_done());
    assert!(ctx.cause().unwrap().to_string().contains("torn"));
    let payload = AssertUnwindSafe(g.wait()).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"torn"));
}

async fn a_panic_of_its_destructor_is_the_groups() {
    let (g, ctx) = group();
    g.track(async {
        let _bomb = OnDrop(|| panic!("torn"));
        Ok(())
    })
    .await;
    assert!(ctx.is_done());
    let payload = AssertUnwindSafe(g.wait()).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"torn"));
}

async fn a_panic_when_it_is_dropped_half_way_is_the_groups() {
    let (g, ctx) = group();
    let mut tracked = Box::pin(g.track(async {
        let _bomb = OnDrop(|| panic!("torn"));
        pending().await
    }));
    assert_waits!(tracked);
    drop(tracked);
    assert!(ctx.is_done());
    let payload = AssertUnwindSafe(g.wait()).catch_unwind().await.unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"torn"));
}

async fn it_takes_no_permit_and_counts_in_no_limit() {
    for limit in [0, 1] {
        let g = limited(limit);
        let mut tracked: Vec<_> = (0..5)
            .map(|_| Box::pin(g.track(pending::<Result<(), String>>())))
            .collect();
        for tracked in &mut tracked {
            assert_waits!(tracked);
        }
        assert_eq!((g.running(), g.queued()), (0, 0));
        assert_eq!(g.try_go(async { Ok(()) }).is_ok(), limit == 1);
        drop(tracked);
        assert_eq!(g.wait().await, OK);
    }
}

async fn an_abort_does_not_touch_it() {
    let (g, _) = group();
    let (send, receive) = oneshot::channel();
    let mut tracked = Box::pin(g.track(async {
        receive.await.unwrap();
        Ok(())
    }));
    assert_waits!(tracked);
    g.abort();
    let mut wait = Box::pin(g.wait());
    assert_waits!(wait);
    send.send(()).unwrap();
    tracked.await;
    assert_eq!(wait.await, OK);
}

async fn a_grace_period_does_not_touch_it() {
    let (g, _) = group();
    g.set_grace(Duration::from_millis(5));
    let (send, receive) = oneshot::channel::<()>();
    let mut tracked = Box::pin(g.track(async {
        receive.await.unwrap();
        Ok(())
    }));
    assert_waits!(tracked);
    let task = g.go(pending());
    assert!(task.await.is_started());
    g.cancel();
    let mut wait = Box::pin(g.wait_all());
    tokio::time::timeout(Duration::from_millis(20), &mut wait)
        .await
        .expect_err("the wait must not be over");
    send.send(()).unwrap();
    tracked.await;
    let errors = wait.await.unwrap_err();
    assert_eq!(errors.iter().count(), 1, "only the task was aborted");
}

async fn after_the_end_of_the_context_it_is_still_counted() {
    let (g, _) = group();
    g.cancel();
    let mut tracked = Box::pin(g.track(async {
        yields(3).await;
        Err("late".to_owned())
    }));
    let mut wait = Box::pin(g.wait());
    assert_waits!(wait);
    tracked.as_mut().await;
    assert_eq!(wait.await, Err("late".to_owned()));
}

async fn after_an_abort_it_is_still_counted() {
    let (g, _) = group();
    g.abort();
    let tracked = g.track(async { Err("late".to_owned()) });
    let mut wait = Box::pin(g.wait());
    assert_waits!(wait);
    tracked.await;
    assert_eq!(wait.await, Err("late".to_owned()));
}

/// Runs `check` with a spawner of a group whose wait is over: one that still exists, and one that
/// does not.
async fn after_the_wait(check: impl AsyncFn(&Spawner<String>)) {
    for keeps in [true, false] {
        let (g, _) = group();
        let (spawner, keeper) = (g.spawner(), g.named("keeps the state of the group alive"));
        let keeper = Some(keeper).filter(|_| keeps);
        assert_eq!(g.wait().await, OK);
        check(&spawner).await;
        drop(keeper);
    }
}

async fn after_the_wait_it_is_only_polled() {
    after_the_wait(async |spawner| {
        spawner.track(async { Err("late".to_owned()) }).await;
        drop(spawner.track(pending::<Result<(), String>>()));
    })
    .await;
}

async fn after_the_wait_its_panic_is_its_callers() {
    after_the_wait(async |spawner| {
        let tracked = spawner.track(async { panic!("torn") });
        let payload = AssertUnwindSafe(tracked).catch_unwind().await.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"torn"));
    })
    .await;
}

async fn a_spawner_tracks() {
    let (g, _) = group();
    let spawner = g.spawner();
    let tracked = spawner.track(async { Err("reset".to_owned()) });
    let mut wait = Box::pin(g.wait());
    assert_waits!(wait);
    tracked.await;
    assert_eq!(wait.await, Err("reset".to_owned()));
}

async fn a_spawner_of_a_dropped_group_only_polls() {
    let (g, _) = group();
    let spawner = g.spawner();
    drop(g);
    spawner.track(async { Err("late".to_owned()) }).await;
}

async fn a_dropped_group_leaves_it_to_its_caller() {
    let (g, ctx) = group();
    let seen = Rc::new(Cell::new(false));
    let set = seen.clone();
    let tracked = g.track(async move {
        ctx.done().await;
        set.set(true);
        Ok(())
    });
    drop(g);
    tracked.await;
    assert!(seen.get());
}

async fn it_need_not_be_send_and_may_borrow() {
    let (g, _) = group();
    let count = Rc::new(Cell::new(0));
    let text = String::from("borrowed");
    let tracked = g.track(async {
        yields(2).await;
        count.set(text.len());
        Ok(())
    });
    tracked.await;
    assert_eq!(count.get(), 8);
    assert_eq!(g.wait().await, OK);
}

async fn once_finished_it_stays_ready() {
    let (g, _) = group();
    let mut tracked = Box::pin(g.track(async { Ok(()) }));
    assert!(format!("{tracked:?}").contains("ended: false"));
    tracked.as_mut().await;
    tracked.as_mut().await;
    assert!(format!("{tracked:?}").contains("ended: true"));
    drop(tracked);
    assert_eq!(g.wait().await, OK);
}

async fn it_ends_before_the_wait_returns() {
    let (g, _) = group();
    let dropped = Count::default();
    let on_drop = dropped.clone();
    let tracked = g.track(async move {
        let _on_drop = OnDrop(move || _ = on_drop.add());
        yields(3).await;
        Ok(())
    });
    drop(tokio::spawn(tracked));
    assert_eq!(g.wait().await, OK);
    assert_eq!(dropped.get(), 1);
}

#[test]
fn it_is_send_if_its_future_is() {
    fn is_send<T: Send>(_: &T) {}
    let tracked: Tracked<_> = G::new().track(async { Ok(()) });
    is_send(&tracked);
}

#[test]
fn it_needs_no_runtime() {
    let (g, _) = group();
    let tracked = g.track(async { Err("reset".to_owned()) });
    assert_eq!(tracked.now_or_never(), Some(()));
    assert_eq!(g.wait().now_or_never(), Some(Err("reset".to_owned())));
}
