//! Futures that wait for a context: none misses a cancel, whatever the interleaving, and none
//! leaves memory behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use errgroup::Context;
use tokio_test::task;

use crate::support::{
    HOUR, ROUNDS, chain, has_resolved, ms, poll_with, race, state, waiting, waker,
};

#[tokio::test(start_paused = true)]
async fn done_resolves_to_the_error_of_the_end() {
    let (ctx, guard) = Context::background().with_cancel();
    let (borrowed, owned) = (ctx.done(), ctx.done_owned());
    guard.cancel_with("stop");
    assert_eq!(chain(&borrowed.await), "context cancelled: stop");
    assert_eq!(chain(&owned.await), "context cancelled: stop");
    let late = Context::background().with_timeout(ms(10));
    assert_eq!(chain(&late.done().await), "context deadline exceeded");
}

#[tokio::test(start_paused = true)]
async fn done_owned_can_be_spawned() {
    let (ctx, guard) = Context::background().with_cancel();
    let task = tokio::spawn(ctx.done_owned());
    drop(ctx);
    tokio::task::yield_now().await;
    guard.cancel_with("stop");
    assert_eq!(chain(&task.await.unwrap()), "context cancelled: stop");
}

#[test]
fn done_of_an_ended_context_is_ready_at_once() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    assert!(task::spawn(ctx.done()).poll().is_ready());
    assert!(
        task::spawn(ctx.with_value("below").done())
            .poll()
            .is_ready()
    );
}

#[test]
fn done_sees_an_end_between_its_creation_and_its_first_poll() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut done = task::spawn(ctx.done());
    guard.cancel();
    assert!(done.poll().is_ready());
}

#[test]
fn done_of_a_context_that_is_never_done_keeps_no_waker() {
    let (parent, guard) = Context::background().with_cancel();
    let root = Context::background();
    for endless in [
        root.clone(),
        root.with_value("below"),
        parent.without_cancel(),
    ] {
        let mut done = task::spawn(endless.done());
        assert!(done.poll().is_pending());
        assert_eq!(done.waker_ref_count(), 1);
    }
    guard.cancel();
}

#[test]
fn one_cancel_wakes_each_waiter() {
    let (parent, guard) = Context::background().with_cancel();
    let child = parent.with_value("below");
    let mut waiters: Vec<_> = [&parent, &child, &child, &parent].map(waiting).into();
    assert!(!waiters.iter_mut().any(has_resolved));
    guard.cancel();
    assert!(waiters.iter_mut().all(has_resolved));
}

#[test]
fn a_waiter_is_woken_from_any_height() {
    for height in 0..5 {
        let (mut ctx, guard) = Context::background().with_cancel();
        let mut guards = vec![guard];
        for _ in 0..4 {
            let (child, guard) = ctx.with_cancel();
            ctx = child.with_value("in between");
            guards.push(guard);
        }
        let mut waiter = waiting(&ctx);
        guards[height].cancel();
        assert!(has_resolved(&mut waiter));
    }
}

#[test]
fn the_whole_tree_has_ended_before_the_first_waker_runs() {
    let (parent, guard) = Context::background().with_cancel();
    let children = [1, 2].map(|value| parent.with_value(value));
    let leaves = children.clone().map(|child| child.with_value("leaf"));
    let tree = [children, leaves].concat();
    let seen = Arc::new(AtomicUsize::new(0));
    let mut waiters: Vec<_> = tree.iter().map(Context::done).collect();
    for waiter in &mut waiters {
        let (tree, seen) = (tree.clone(), seen.clone());
        let waker = waker(move || {
            assert!(tree.iter().all(Context::is_done));
            seen.fetch_add(1, Ordering::SeqCst);
        });
        assert!(poll_with(waiter, &waker).is_pending());
    }
    guard.cancel();
    assert_eq!(seen.load(Ordering::SeqCst), 4);
}

#[test]
fn the_waker_of_the_last_poll_is_woken_and_no_earlier_one() {
    let (ctx, guard) = Context::background().with_cancel();
    let woken = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut done = ctx.done();
    for count in &woken {
        let count = count.clone();
        let waker = waker(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        assert!(poll_with(&mut done, &waker).is_pending());
        assert!(poll_with(&mut done, &waker).is_pending());
    }
    guard.cancel();
    assert_eq!(woken.map(|count| count.load(Ordering::SeqCst)), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_done_leaves_no_waker_behind() {
    let (parent, guard) = Context::background().with_cancel();
    let timed = parent.with_timeout(HOUR);
    for ctx in [&parent, &timed, &parent.with_value("below")] {
        let mut task = task::spawn(Some(ctx.done_owned()));
        let polled = task.enter(|cx, mut done| {
            let done = done.as_mut().as_pin_mut().expect("it is there");
            done.poll(cx).is_pending()
        });
        assert!(polled);
        assert!(task.waker_ref_count() > 1);
        task.enter(|_, mut done| done.set(None));
        assert_eq!(task.waker_ref_count(), 1);
    }
    guard.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_resolved_done_leaves_no_waker_behind() {
    let (parent, guard) = Context::background().with_cancel();
    let mut waiters = [&parent, &parent.with_timeout(HOUR)].map(waiting);
    guard.cancel();
    for done in &mut waiters {
        assert!(has_resolved(done));
        assert_eq!(done.waker_ref_count(), 1);
    }
}

#[test]
fn a_dropped_done_leaves_the_other_waiters_registered() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut waiters: Vec<_> = (0..10).map(|_| waiting(&ctx)).collect();
    drop(waiters.drain(2..5));
    waiters.extend((0..5).map(|_| waiting(&ctx)));
    drop(waiters.drain(..3));
    guard.cancel();
    assert!(waiters.iter_mut().all(has_resolved));
}

#[test]
fn a_waker_that_panics_loses_no_other_wakeup() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut before = waiting(&ctx);
    let mut bomb = ctx.done();
    assert!(poll_with(&mut bomb, &waker(|| panic!("boom"))).is_pending());
    let mut after = waiting(&ctx.with_value("below"));
    let panicked = catch_unwind(AssertUnwindSafe(|| guard.cancel_with("stop")));
    assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"boom"));
    assert!(has_resolved(&mut before));
    assert!(has_resolved(&mut after));
    assert_eq!(state(&ctx), "context cancelled: stop");
}

#[test]
fn a_done_registered_while_an_ancestor_is_cancelled_is_woken() {
    for round in 0..ROUNDS {
        let (top, guard) = Context::background().with_cancel();
        let leaf = (0..round % 5).fold(top.with_value("top"), |ctx, depth| ctx.with_value(depth));
        let mut done = task::spawn(leaf.done_owned());
        let ((), polled) = race(round, || guard.cancel(), || done.poll());
        assert!(polled.is_ready() || done.is_woken(), "round {round}");
        assert!(done.poll().is_ready(), "round {round}");
    }
}

#[test]
fn a_waker_replaced_while_the_context_is_cancelled_is_woken() {
    for round in 0..ROUNDS {
        let (ctx, guard) = Context::background().with_cancel();
        let mut done = ctx.done();
        assert!(poll_with(&mut done, &waker(|| ())).is_pending());
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        let last = waker(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let ((), polled) = race(
            round,
            || guard.cancel(),
            || poll_with(&mut done, &last).is_ready(),
        );
        assert!(polled || woken.load(Ordering::SeqCst) == 1, "round {round}");
    }
}

#[test]
fn two_that_begin_to_wait_on_one_context_at_once_are_both_woken() {
    for round in 0..ROUNDS {
        let (top, guard) = Context::background().with_cancel();
        let leaf = top.with_value("between").with_value("leaf");
        let (mut one, mut two) = race(round, || waiting(&leaf), || waiting(&leaf));
        if round % 2 == 0 {
            drop(leaf);
        }
        guard.cancel();
        assert!(has_resolved(&mut one));
        assert!(has_resolved(&mut two));
    }
}

#[test]
fn a_wait_that_begins_while_another_is_dropped_is_woken() {
    for round in 0..ROUNDS {
        let (top, guard) = Context::background().with_cancel();
        let leaf = top.with_value("leaf");
        let leaving = waiting(&leaf);
        let ((), mut staying) = race(round, || drop(leaving), || waiting(&leaf));
        guard.cancel();
        assert!(has_resolved(&mut staying), "round {round}");
    }
}
