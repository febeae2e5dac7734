//! `run` and `sleep`: a context that is done cuts a future short.

use std::cell::Cell;
use std::future::{pending, poll_fn, ready};
use std::rc::Rc;
use std::task::Poll;

use errgroup::Context;
use tokio::sync::oneshot;
use tokio::time::{self, Instant};
use tokio_test::task;

use crate::support::{Drops, HOUR, chain, ms};

#[tokio::test(start_paused = true)]
async fn run_gives_the_output_of_a_future_that_is_ready_first() {
    let ctx = Context::background().with_timeout(ms(100));
    let output = ctx.run(async {
        time::sleep(ms(50)).await;
        "output"
    });
    assert_eq!(output.await.unwrap(), "output");
}

#[tokio::test(start_paused = true)]
async fn run_gives_the_error_of_a_context_that_ends_first() {
    let began = Instant::now();
    let ctx = Context::background().with_timeout_cause(ms(100), "too slow");
    let error = ctx.run(time::sleep(HOUR)).await.unwrap_err();
    assert_eq!(chain(&error), "context deadline exceeded: too slow");
    assert_eq!(Instant::now() - began, ms(100));
}

#[test]
fn a_cancel_wakes_run_which_drops_the_future_first() {
    let drops = Drops::default();
    let counted = drops.counted();
    let (ctx, guard) = Context::background().with_cancel();
    let mut run = task::spawn(ctx.run(async move {
        let _counted = counted;
        pending::<()>().await;
    }));
    assert!(run.poll().is_pending());
    assert_eq!(drops.count(), 0);
    guard.cancel_with("stop");
    assert!(run.is_woken());
    match run.poll() {
        Poll::Ready(Err(error)) => assert_eq!(chain(&error), "context cancelled: stop"),
        other => panic!("{other:?}"),
    }
    assert_eq!(drops.count(), 1);
}

#[test]
fn run_drops_a_ready_future_before_it_returns() {
    let drops = Drops::default();
    let counted = drops.counted();
    let (ctx, _guard) = Context::background().with_cancel();
    let mut run = task::spawn(ctx.run(poll_fn(move |_| {
        let _ = &counted;
        Poll::Ready(())
    })));
    assert!(run.poll().is_ready());
    assert_eq!(drops.count(), 1);
}

#[test]
fn an_ended_context_never_polls_the_future() {
    let (ctx, guard) = Context::background().with_cancel();
    let unseen = ctx.with_value("not queried yet");
    guard.cancel();
    for ctx in [&ctx, &unseen] {
        let drops = Drops::default();
        let counted = drops.counted();
        let mut run = task::spawn(ctx.run(poll_fn(move |_| -> Poll<()> {
            let _ = &counted;
            panic!("it was polled");
        })));
        assert!(matches!(run.poll(), Poll::Ready(Err(error)) if error.is_cancelled()));
        assert_eq!(drops.count(), 1);
    }
}

#[test]
fn a_context_done_before_the_first_poll_never_polls_the_future() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut run = task::spawn(ctx.run(ready("output")));
    guard.cancel();
    assert!(matches!(run.poll(), Poll::Ready(Err(_))));
}

#[tokio::test(start_paused = true)]
async fn a_context_whose_deadline_has_passed_never_polls_the_future() {
    let ctx = Context::background().with_timeout(ms(10));
    let run = ctx.run(ready("output"));
    time::advance(ms(10)).await;
    assert!(run.await.unwrap_err().is_deadline_exceeded());
}

#[test]
fn if_both_are_ready_in_one_poll_the_output_wins() {
    let (ctx, guard) = Context::background().with_cancel();
    let (sender, receiver) = oneshot::channel();
    let mut run = task::spawn(ctx.run(receiver));
    assert!(run.poll().is_pending());
    guard.cancel();
    sender.send("output").unwrap();
    assert!(matches!(run.poll(), Poll::Ready(Ok(Ok("output")))));
}

#[tokio::test(start_paused = true)]
async fn if_the_deadline_passes_in_the_ready_poll_the_output_wins() {
    let ctx = Context::background().with_timeout(ms(10));
    assert!(ctx.run(time::sleep(ms(10))).await.is_ok());
}

#[test]
fn a_future_that_cancels_its_context_is_dropped_in_that_poll() {
    let drops = Drops::default();
    let counted = drops.counted();
    let (ctx, guard) = Context::background().with_cancel();
    let mut run = task::spawn(ctx.run(async move {
        let _counted = counted;
        guard.cancel_with("by itself");
        pending::<()>().await;
    }));
    assert!(matches!(run.poll(), Poll::Ready(Err(_))));
    assert_eq!(drops.count(), 1);
}

#[test]
fn run_on_a_context_that_is_never_done_only_runs() {
    let mut run = task::spawn(async { Context::background().run(ready("output")).await });
    assert!(matches!(run.poll(), Poll::Ready(Ok("output"))));
}

#[test]
fn a_dropped_run_drops_the_future_and_leaves_no_waker() {
    let drops = Drops::default();
    let counted = drops.counted();
    let (ctx, guard) = Context::background().with_cancel();
    let run = ctx.run(async move {
        let _counted = counted;
        pending::<()>().await;
    });
    let mut task = task::spawn(Some(run));
    assert!(task.enter(|cx, run| run.as_pin_mut().unwrap().poll(cx).is_pending()));
    assert!(task.waker_ref_count() > 1);
    task.enter(|_, mut run| run.set(None));
    assert_eq!(drops.count(), 1);
    assert_eq!(task.waker_ref_count(), 1);
    guard.cancel();
}

#[test]
fn run_takes_futures_that_borrow_and_are_not_send() {
    let (ctx, _guard) = Context::background().with_cancel();
    let calls = Cell::new(0);
    let local = Rc::new("local");
    let mut run = task::spawn(ctx.run(async {
        calls.set(calls.get() + 1);
        local.len()
    }));
    assert!(matches!(run.poll(), Poll::Ready(Ok(5))));
    assert_eq!(calls.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn runs_nest_and_the_end_of_the_inner_is_an_output_of_the_outer() {
    let outer = Context::background().with_timeout(ms(20));
    let inner = outer.with_timeout_cause(ms(10), "inner");
    let output = outer.run(inner.run(pending::<()>())).await;
    let error = output.unwrap().unwrap_err();
    assert_eq!(chain(&error), "context deadline exceeded: inner");
}

#[test]
#[should_panic = "polled after it resolved"]
fn a_run_that_is_polled_after_it_resolved_panics() {
    let ctx = Context::background();
    let mut run = task::spawn(ctx.run(ready(())));
    assert!(run.poll().is_ready());
    let _ = run.poll();
}

#[tokio::test(start_paused = true)]
async fn sleep_waits_for_its_time() {
    let began = Instant::now();
    let (ctx, _guard) = Context::background().with_cancel();
    ctx.sleep(ms(100)).await.unwrap();
    assert_eq!(Instant::now() - began, ms(100));
}

#[tokio::test(start_paused = true)]
async fn sleep_is_cut_short_by_the_end_of_the_context() {
    let began = Instant::now();
    let ctx = Context::background().with_timeout(ms(10));
    assert!(ctx.sleep(HOUR).await.unwrap_err().is_deadline_exceeded());
    assert_eq!(Instant::now() - began, ms(10));

    let (ctx, guard) = Context::background().with_cancel();
    let sleeper = tokio::spawn(async move { ctx.sleep(HOUR).await });
    time::sleep(ms(10)).await;
    guard.cancel_with("stop");
    let error = sleeper.await.unwrap().unwrap_err();
    assert_eq!(chain(&error), "context cancelled: stop");
    assert_eq!(Instant::now() - began, ms(20));
}

#[tokio::test(start_paused = true)]
async fn sleep_in_an_ended_context_does_not_sleep() {
    let began = Instant::now();
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    assert!(ctx.sleep(HOUR).await.unwrap_err().is_cancelled());
    assert_eq!(Instant::now(), began);
}
