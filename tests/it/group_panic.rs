//! A panic is never lost: it cancels the context at once, wins over errors, and is resumed by
//! `wait`.

use std::panic::panic_any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use crate::group_support::*;

both_flavours![
    wait_resumes_the_panic_with_its_payload,
    at_the_instant_of_the_panic_the_context_ends,
    the_cause_has_the_site_of_the_task_and_the_panic_text,
    the_cause_of_a_payload_that_is_no_text_says_so,
    siblings_wind_down_and_wait_returns_when_they_have,
    a_panic_wins_over_an_earlier_error,
    the_first_panic_wins,
    a_panic_in_a_drop_is_the_tasks_panic,
    a_panic_in_poll_and_in_drop_is_the_first_of_them,
    a_panic_in_the_closure_of_go_with_is_the_tasks_panic,
    a_panic_in_the_drop_of_a_queued_future_is_its_panic,
    a_panic_in_the_drop_of_an_aborted_task_is_its_panic,
    a_later_payload_that_panics_when_it_is_dropped_is_discarded,
    a_payload_that_panics_in_a_dropped_group_is_discarded,
    a_later_error_that_panics_when_it_is_dropped_is_discarded,
    an_error_that_a_panic_beats_may_panic_when_it_is_dropped,
    an_admission_waker_that_panics_loses_no_other_wakeup,
    a_panic_releases_its_permit,
    the_panic_is_the_cause_in_a_group_dropped_without_a_wait,
    many_panics_at_once_are_one_panic,
];

async fn wait_resumes_the_panic_with_its_payload() {
    #[derive(Debug, PartialEq)]
    struct Payload(u32);

    let (g, _ctx) = group();
    g.go(async { panic_any(Payload(7)) });
    let payload = panic_of(g.wait()).await;
    assert_eq!(payload.downcast_ref(), Some(&Payload(7)));
}

async fn at_the_instant_of_the_panic_the_context_ends() {
    let (g, ctx) = group();
    g.go(async { panic!("boom") });
    assert!(ctx.done().await.is_cancelled());
    assert_eq!(text(panic_of(g.wait()).await), "boom");
}

async fn the_cause_has_the_site_of_the_task_and_the_panic_text() {
    let (g, ctx) = group();
    let line = line!() + 1;
    g.go(async { panic!("at step {}", 3) });
    assert_eq!(text(panic_of(g.wait()).await), "at step 3");
    let cause = ctx.cause().unwrap().to_string();
    let site = format!("{}:{line}:", file!());
    assert!(cause.contains(&site), "{cause} does not name {site}");
    assert!(cause.ends_with("panicked: at step 3"), "{cause}");
}

async fn the_cause_of_a_payload_that_is_no_text_says_so() {
    let (g, ctx) = group();
    g.go(async { panic_any(7) });
    panic_of(g.wait()).await;
    let cause = ctx.cause().unwrap().to_string();
    assert!(cause.ends_with("(a panic whose payload is not text)"));
}

async fn siblings_wind_down_and_wait_returns_when_they_have() {
    let (g, _ctx) = group();
    let (finished, probe) = (Count::default(), Probe::default());
    for _ in 0..10 {
        let finished = finished.clone();
        let context = g.context();
        g.go(probe.wrap(async move {
            context.done().await;
            yields(10).await;
            finished.add();
            Ok(())
        }));
    }
    g.go(probe.wrap(async { panic!("boom") }));
    assert_eq!(text(panic_of(g.wait()).await), "boom");
    assert_eq!(finished.get(), 10);
    probe.assert_all_dropped();
}

async fn a_panic_wins_over_an_earlier_error() {
    let (g, ctx) = group();
    g.go_with(|ctx| async move {
        ctx.done().await;
        panic!("a bug")
    });
    g.go(async { Err("an error".to_owned()) });
    assert_eq!(text(panic_of(g.wait()).await), "a bug");
    assert_eq!(ctx.cause().unwrap().to_string(), "an error");
}

async fn the_first_panic_wins() {
    let (g, ctx) = group();
    g.go_with(|ctx| async move {
        ctx.done().await;
        panic!("second")
    });
    g.go(async { panic!("first") });
    assert_eq!(text(panic_of(g.wait()).await), "first");
    assert!(ctx.cause().unwrap().to_string().ends_with("first"));
}

/// A future that panics when it is dropped, and not when it ends.
struct Bomb {
    poll: fn() -> Poll<Result<(), String>>,
    _drop: PanicsOnDrop,
}

impl Future for Bomb {
    type Output = Result<(), String>;

    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Self::Output> {
        (self.poll)()
    }
}

fn bomb(text: &'static str, poll: fn() -> Poll<Result<(), String>>) -> Bomb {
    let _drop = PanicsOnDrop(text);
    Bomb { poll, _drop }
}

async fn a_panic_in_a_drop_is_the_tasks_panic() {
    let (g, ctx) = group();
    g.go(bomb("in drop", || Poll::Ready(Ok(()))));
    assert_eq!(text(panic_of(g.wait()).await), "in drop");
    assert!(ctx.cause().unwrap().to_string().ends_with("in drop"));
}

async fn a_panic_in_poll_and_in_drop_is_the_first_of_them() {
    let (g, ctx) = group();
    g.go(bomb("in drop", || panic!("in poll")));
    assert_eq!(text(panic_of(g.wait()).await), "in poll");
    assert!(ctx.cause().unwrap().to_string().ends_with("in poll"));
}

async fn a_panic_in_the_closure_of_go_with_is_the_tasks_panic() {
    let (g, ctx) = group();
    g.go_with(|_| -> std::future::Ready<Result<(), String>> { panic!("in the closure") });
    assert_eq!(text(panic_of(g.wait()).await), "in the closure");
    assert!(ctx.cause().unwrap().to_string().contains(file!()));
}

async fn a_panic_in_the_drop_of_a_queued_future_is_its_panic() {
    let (g, gone) = (limited(0), Probe::default());
    for _ in 0..3 {
        g.go(gone.wrap(bomb("in the queue", || unreachable!())));
    }
    g.cancel();
    assert_eq!(text(panic_of(g.wait()).await), "in the queue");
    gone.assert_all_dropped();
}

async fn a_panic_in_the_drop_of_an_aborted_task_is_its_panic() {
    let (g, _ctx) = group();
    let started = Count::default();
    let counted = started.clone();
    g.go(async move {
        let _bomb = PanicsOnDrop("aborted");
        counted.add();
        std::future::pending().await
    });
    until(|| started.get() == 1).await;
    g.abort();
    assert_eq!(text(panic_of(g.wait()).await), "aborted");
}

async fn a_later_payload_that_panics_when_it_is_dropped_is_discarded() {
    let (g, _ctx) = group();
    g.go(async { panic!("first") });
    for _ in 0..5 {
        g.go_with(|ctx| async move {
            ctx.done().await;
            panic_any(PanicsOnDrop("payload"))
        });
    }
    assert_eq!(text(panic_of(g.wait()).await), "first");
}

async fn a_payload_that_panics_in_a_dropped_group_is_discarded() {
    let (g, ctx) = group();
    let later = Count::default();
    let counted = later.clone();
    g.go_with(|ctx| async move {
        let _counts = OnDrop(move || _ = counted.add());
        ctx.done().await;
        panic_any(PanicsOnDrop("payload"))
    })
    .await;
    g.go(async { panic!("first") });
    ctx.done().await;
    until(|| later.get() == 1).await;
    drop(g);
}

async fn a_later_error_that_panics_when_it_is_dropped_is_discarded() {
    let g = errgroup::Group::<Armed>::new();
    for number in 0..5 {
        g.go(async move { Err(Armed(number > 0)) });
        until(|| g.running() == 0).await;
    }
    assert!(g.wait().await.is_err());
}

async fn an_error_that_a_panic_beats_may_panic_when_it_is_dropped() {
    let g = errgroup::Group::<Armed>::new();
    g.go(async { Err(Armed(true)) });
    g.go(async { panic!("the panic") });
    assert_eq!(text(panic_of(g.wait()).await), "the panic");
}

/// An error that panics in its destructor, if it is armed.
struct Armed(bool);

impl std::fmt::Display for Armed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("armed")
    }
}

impl From<errgroup::ContextError> for Armed {
    fn from(_: errgroup::ContextError) -> Armed {
        Armed(false)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        assert!(!self.0, "an error dropped");
    }
}

async fn an_admission_waker_that_panics_loses_no_other_wakeup() {
    let g = limited(0);
    let woken = Count::default();
    let mut admissions: Vec<_> = (0..3).map(|_| g.go(async { Ok(()) })).collect();
    for admission in &mut admissions {
        let woken = woken.clone();
        let rude = waker(move || {
            woken.add();
            panic!("a waker")
        });
        assert!(poll_with(admission, &rude).is_pending());
    }
    g.set_limit(None);
    assert_eq!(woken.get(), 3);
    assert_eq!(g.wait().await, OK);
}

async fn a_panic_releases_its_permit() {
    let g = G::new();
    g.set_limit(1);
    let ran = Count::default();
    for task in 0..10 {
        let ran = ran.clone();
        g.go(async move {
            ran.add();
            assert!(task % 2 == 0, "odd");
            Ok(())
        });
    }
    assert_eq!(text(panic_of(g.wait()).await), "odd");
    assert_eq!(ran.get(), 10);
}

async fn the_panic_is_the_cause_in_a_group_dropped_without_a_wait() {
    let (g, ctx) = group();
    g.go(async { panic!("unseen") });
    ctx.done().await;
    drop(g);
    assert!(ctx.cause().unwrap().to_string().ends_with("unseen"));
}

async fn many_panics_at_once_are_one_panic() {
    for _ in 0..20 {
        let (g, ctx) = group();
        let payload = Arc::new(());
        for _ in 0..8 {
            let payload = payload.clone();
            g.go(async move { panic_any(payload) });
        }
        panic_of(g.wait()).await;
        assert!(ctx.is_done());
        assert_eq!(Arc::strong_count(&payload), 1, "a payload was not dropped");
    }
}
