//! A cancel of a context in a race with a registration, a derivation, or a drop.

use std::pin::Pin;
use std::task;

use errgroup::{Context, DoneOwned};
use loom::thread;

use crate::{block_on, check};

/// A future that has begun to wait, so the context is linked.
fn waiting_on(ctx: &Context) -> Pin<Box<DoneOwned>> {
    let mut done = Box::pin(ctx.done_owned());
    let mut cx = task::Context::from_waker(task::Waker::noop());
    assert!(done.as_mut().poll(&mut cx).is_pending());
    done
}

#[test]
fn a_waiter_that_registers_while_the_context_ends_is_woken() {
    check(3, || {
        let (ctx, guard) = Context::background().with_cancel();
        let cancels = thread::spawn(move || guard.cancel_with("enough"));
        let error = block_on(ctx.done());
        assert_eq!(error.cause().unwrap().to_string(), "enough");
        cancels.join().unwrap();
    });
}

#[test]
fn a_waiter_below_is_woken_by_an_end_further_up() {
    check(2, || {
        let (top, guard) = Context::background().with_cancel();
        let (_middle, _kept) = top.with_cancel();
        let (ctx, _keeps) = _middle.with_cancel();
        let cancels = thread::spawn(move || guard.cancel());
        block_on(ctx.done());
        cancels.join().unwrap();
    });
}

#[test]
fn a_waiter_far_below_is_woken_by_an_end_further_up() {
    check(2, || {
        let (top, guard) = Context::background().with_cancel();
        let mut ctx = top;
        let mut guards = Vec::new();
        for _ in 0..4 {
            let (child, guard) = ctx.with_cancel();
            guards.push(guard);
            ctx = child;
        }
        let cancels = thread::spawn(move || guard.cancel());
        block_on(ctx.done());
        cancels.join().unwrap();
    });
}

#[test]
fn when_cancel_returns_every_child_has_ended() {
    check(2, || {
        let (ctx, guard) = Context::background().with_cancel();
        let waits = ctx.clone();
        let waiter = thread::spawn(move || {
            let (child, _guard) = waits.with_cancel();
            block_on(child.done()).to_string()
        });
        let (child, _child_guard) = ctx.with_cancel();
        guard.cancel_with("enough");
        assert!(child.is_done() && ctx.is_done());
        assert_eq!(child.cause().unwrap().to_string(), "enough");
        assert_eq!(waiter.join().unwrap(), "context cancelled");
    });
}

#[test]
fn a_second_canceller_returns_no_earlier_than_the_tree_is_done() {
    check(2, || {
        let (ctx, guard) = Context::background().with_cancel();
        let (child, _child_guard) = ctx.with_cancel();
        // Linked, so the cancel is propagated to it, without a query.
        let _done = waiting_on(&child);
        let (handle, same) = (guard.handle(), child.clone());
        let other = thread::spawn(move || {
            handle.cancel();
            assert!(same.is_done());
        });
        guard.cancel();
        assert!(child.is_done());
        other.join().unwrap();
    });
}

#[test]
fn a_child_that_is_derived_while_the_context_ends_ends_with_it() {
    check(3, || {
        let (ctx, guard) = Context::background().with_cancel();
        let cancels = thread::spawn(move || guard.cancel_with("enough"));
        let (child, child_guard) = ctx.with_cancel();
        let error = block_on(child.done());
        assert_eq!(error.cause().unwrap().to_string(), "enough");
        // Too late: the first end is final.
        child_guard.cancel_with("late");
        assert_eq!(child.cause().unwrap().to_string(), "enough");
        cancels.join().unwrap();
    });
}

#[test]
fn a_child_dropped_during_a_cancel_harms_no_sibling() {
    check(2, || {
        let (ctx, guard) = Context::background().with_cancel();
        let (goes, goes_guard) = ctx.with_cancel();
        let done = waiting_on(&goes);
        let drops = thread::spawn(move || drop((done, goes, goes_guard)));
        let stays = ctx.clone();
        let waits = thread::spawn(move || block_on(stays.done()).is_cancelled());
        guard.cancel();
        drops.join().unwrap();
        assert!(waits.join().unwrap());
    });
}

/// A guard that is dropped does not cancel if it has the last handle and nothing waits.
#[test]
fn a_guard_dropped_while_a_child_begins_to_wait_ends_the_child() {
    check(3, || {
        let (ctx, guard) = Context::background().with_cancel();
        drop(waiting_on(&ctx));
        let waits = thread::spawn(move || {
            let (child, _child_guard) = ctx.with_cancel();
            drop(ctx);
            block_on(child.done()).is_cancelled()
        });
        drop(guard);
        assert!(waits.join().unwrap());
    });
}

#[test]
fn a_cancelled_child_that_is_dropped_removes_only_its_entry() {
    check(2, || {
        let (ctx, guard) = Context::background().with_cancel();
        let (goes, goes_guard) = ctx.with_cancel();
        let done = waiting_on(&goes);
        let stays = ctx.clone();
        let waits = thread::spawn(move || block_on(stays.done()).is_cancelled());
        goes_guard.cancel();
        drop((done, goes, goes_guard));
        guard.cancel();
        assert!(waits.join().unwrap());
    });
}

#[test]
fn of_two_ends_one_is_final_for_all() {
    check(2, || {
        let (ctx, guard) = Context::background().with_cancel();
        let (child, _child_guard) = ctx.with_cancel();
        let handle = guard.handle();
        let other = thread::spawn(move || handle.cancel_with("one"));
        guard.cancel_with("two");
        let seen = ctx.cause().unwrap().to_string();
        other.join().unwrap();
        assert_eq!(ctx.cause().unwrap().to_string(), seen);
        assert_eq!(child.cause().unwrap().to_string(), seen);
    });
}

#[test]
fn either_of_two_ends_a_merged_context() {
    check(2, || {
        let (one, one_guard) = Context::background().with_cancel();
        let (two, two_guard) = Context::background().with_cancel();
        let cancels = thread::spawn(move || two_guard.cancel());
        let merged = one.merge(&two);
        block_on(merged.done());
        cancels.join().unwrap();
        drop(one_guard);
    });
}

#[test]
fn a_child_that_is_queried_often_is_linked_and_cancelled() {
    check(2, || {
        let (ctx, guard) = Context::background().with_cancel();
        let (child, _child_guard) = ctx.with_cancel();
        let cancels = thread::spawn(move || guard.cancel());
        // More queries than a context makes before it is linked. The loop stops when the context is
        // done, or loom would not terminate.
        let _ended = (0..18).any(|_| child.is_done());
        cancels.join().unwrap();
        assert!(child.is_done());
    });
}

#[test]
fn a_query_sees_an_earlier_cancel_while_another_thread_links() {
    check(3, || {
        let (ctx, guard) = Context::background().with_cancel();
        let (child, _child_guard) = ctx.with_cancel();
        let same = child.clone();
        let waits = thread::spawn(move || {
            let mut done = Box::pin(same.done_owned());
            let mut cx = task::Context::from_waker(task::Waker::noop());
            let _ = done.as_mut().poll(&mut cx);
        });
        guard.cancel();
        assert!(child.is_done());
        waits.join().unwrap();
    });
}
