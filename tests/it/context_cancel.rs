//! Which contexts a cancel reaches, in which order, and with which cause.

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use errgroup::{CancelHandle, Context, ContextError};

use crate::support::{
    Down, GOING_ON, GUARD_DROPPED, HOUR, ROUNDS, err, has_resolved, ms, race, state, waiting,
};

#[test]
fn the_roots_never_end() {
    for root in [Context::background(), Context::todo(), Context::default()] {
        assert_eq!(state(&root), GOING_ON);
        assert!(root.deadline().is_none());
        assert!(root.remaining().is_none());
        assert!(root.value::<u32>().is_none());
    }
}

#[test]
fn the_default_is_background() {
    assert_eq!(
        Context::default().to_string(),
        Context::background().to_string()
    );
}

#[test]
fn with_cancel_gives_a_child_and_its_guard() {
    let (ctx, guard) = Context::background().with_cancel();
    assert_eq!(state(&ctx), GOING_ON);
    guard.cancel();
    assert_eq!(state(&ctx), "context cancelled");
    assert!(err(&ctx).is_cancelled());
    assert!(!err(&ctx).is_deadline_exceeded());
}

#[test]
fn a_cancel_without_a_cause_has_the_error_as_its_cause() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    let cause = ctx.cause().unwrap();
    assert_eq!(cause.to_string(), "context cancelled");
    assert!(cause.downcast_ref::<ContextError>().is_some());
    assert!(ctx.caused_by::<ContextError>());
    assert!(err(&ctx).cause().is_none());
    assert!(err(&ctx).source().is_none());
}

#[test]
fn caused_by_finds_the_cause_and_its_sources() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot save")]
    struct CannotSave(#[source] io::Error);

    let (ctx, guard) = Context::background().with_cancel();
    assert!(!ctx.caused_by::<Down>());
    guard.cancel_with(CannotSave(io::Error::other(Down("eu-1"))));
    for found in [
        ctx.caused_by::<CannotSave>(),
        ctx.caused_by::<io::Error>(),
        ctx.caused_by::<Down>(),
        err(&ctx).caused_by::<Down>(),
        // The error itself is not its cause.
        !ctx.caused_by::<ContextError>(),
        !err(&ctx).caused_by::<std::fmt::Error>(),
    ] {
        assert!(found);
    }
    // Another context, with the error that this one had.
    let (other, guard) = Context::background().with_cancel();
    guard.cancel_with(ctx.cause().unwrap().into_error());
    assert!(other.caused_by::<Down>());
}

#[tokio::test]
async fn until_done_resolves_with_the_context() {
    let (ctx, guard) = Context::background().with_cancel();
    let waits = tokio::spawn(ctx.until_done());
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    guard.cancel();
    waits.await.unwrap();
}

#[test]
fn cancel_with_says_why() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with(Down("eu-1"));
    assert_eq!(state(&ctx), "context cancelled: eu-1 is down");
    assert_eq!(
        ctx.cause().unwrap().downcast_ref::<Down>(),
        Some(&Down("eu-1"))
    );
}

#[test]
fn a_context_that_has_not_ended_has_no_cause() {
    let (ctx, _guard) = Context::background().with_cancel();
    assert!(ctx.cause().is_none());
}

#[test]
fn a_dropped_guard_cancels_and_its_cause_says_so() {
    let (ctx, guard) = Context::background().with_cancel();
    drop(guard);
    assert_eq!(state(&ctx), format!("context cancelled: {GUARD_DROPPED}"));
}

#[test]
fn a_context_whose_guard_is_not_kept_is_cancelled_at_once() {
    let (ctx, _) = Context::background().with_cancel();
    assert_eq!(state(&ctx), format!("context cancelled: {GUARD_DROPPED}"));
}

#[test]
fn a_guard_that_a_panic_drops_cancels() {
    let (ctx, guard) = Context::background().with_cancel();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _guard = guard;
        panic!("boom");
    }));
    assert!(panicked.is_err());
    assert!(ctx.is_done());
}

#[test]
fn a_handle_cancels_too_and_has_no_effect_when_dropped() {
    let (ctx, guard) = Context::background().with_cancel();
    let handle = guard.handle();
    drop(handle.clone());
    assert_eq!(state(&ctx), GOING_ON);
    handle.cancel_with("stop");
    assert_eq!(state(&ctx), "context cancelled: stop");
}

#[test]
fn a_handle_cancels_without_a_cause_too() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.handle().cancel();
    assert_eq!(state(&ctx), "context cancelled");
}

#[test]
fn a_disarmed_guard_does_not_cancel_but_its_handle_does() {
    let (ctx, guard) = Context::background().with_cancel();
    let handle: CancelHandle = guard.disarm();
    assert_eq!(state(&ctx), GOING_ON);
    drop(handle.clone());
    assert_eq!(state(&ctx), GOING_ON);
    handle.cancel_with("stop");
    assert_eq!(state(&ctx), "context cancelled: stop");
}

#[test]
fn a_clone_is_the_same_context() {
    let (ctx, guard) = Context::background().with_cancel();
    let clone = ctx.clone();
    guard.cancel_with("stop");
    assert_eq!(state(&clone), "context cancelled: stop");
}

#[test]
fn the_first_end_wins_and_is_final_with_its_cause() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with("first");
    guard.cancel_with("second");
    guard.cancel();
    guard.handle().cancel_with("third");
    drop(guard);
    assert_eq!(state(&ctx), "context cancelled: first");
}

#[test]
fn the_first_end_wins_and_is_final_without_a_cause() {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    guard.cancel_with("second");
    drop(guard);
    assert_eq!(state(&ctx), "context cancelled");
}

#[test]
fn the_first_end_wins_from_the_parent_or_from_itself() {
    let (parent, of_parent) = Context::background().with_cancel();
    let (early, of_early) = parent.with_cancel();
    let (late, of_late) = parent.with_cancel();
    of_early.cancel_with("own");
    of_parent.cancel_with("parent's");
    of_late.cancel_with("own");
    assert_eq!(state(&early), "context cancelled: own");
    assert_eq!(state(&late), "context cancelled: parent's");
}

#[test]
fn cancelling_a_child_touches_neither_parent_nor_siblings() {
    let (parent, _of_parent) = Context::background().with_cancel();
    let (child, guard) = parent.with_cancel();
    let (sibling, _of_sibling) = parent.with_cancel();
    let mut at_parent = waiting(&parent);
    let mut at_sibling = waiting(&sibling);
    let mut at_child = waiting(&child);

    guard.cancel_with("child's");

    assert!(has_resolved(&mut at_child));
    assert!(!has_resolved(&mut at_parent));
    assert!(!has_resolved(&mut at_sibling));
    assert_eq!(state(&parent), GOING_ON);
    assert_eq!(state(&sibling), GOING_ON);
}

/// One context of every kind, each a child of the one before. A cancel of the first reaches all of
/// them.
fn lineage(parent: &Context) -> Vec<Context> {
    let (cancel, guard) = parent.with_cancel();
    guard.disarm();
    let timeout = cancel.with_timeout(HOUR);
    let later = timeout.with_deadline_cause(tokio::time::Instant::now() + 2 * HOUR, "never");
    let value = later.with_value(7_u32);
    let merged = value.merge(&Context::background());
    let other = Context::todo().merge(&merged);
    let (leaf, guard) = other.with_cancel();
    guard.disarm();
    vec![cancel, timeout, later, value, merged, other, leaf]
}

#[tokio::test(start_paused = true)]
async fn when_cancel_returns_every_descendant_has_the_same_cause() {
    let (parent, guard) = Context::background().with_cancel();
    let asked = lineage(&parent);
    let told = lineage(&parent);
    let mut waiters: Vec<_> = told.iter().map(waiting).collect();

    guard.cancel_with("stop");

    for ctx in asked.iter().chain(&told) {
        assert_eq!(state(ctx), "context cancelled: stop", "{ctx}");
    }
    assert!(waiters.iter_mut().all(has_resolved));
}

#[test]
fn a_descendant_has_the_same_cause_whichever_is_queried_first() {
    for bottom_up in [false, true] {
        let (parent, guard) = Context::background().with_cancel();
        let mut lineage = lineage(&parent);
        guard.cancel_with("stop");
        if bottom_up {
            lineage.reverse();
        }
        for ctx in &lineage {
            assert_eq!(state(ctx), "context cancelled: stop", "{ctx}");
        }
    }
}

#[test]
fn the_cause_is_shared_and_not_copied() {
    let (parent, guard) = Context::background().with_cancel();
    let leaf = parent.with_value(1).with_value(2);
    guard.cancel_with(Down("eu-1"));
    let (above, below) = (parent.cause().unwrap(), leaf.cause().unwrap());
    assert!(std::ptr::eq(
        above.downcast_ref::<Down>().unwrap(),
        below.downcast_ref::<Down>().unwrap()
    ));
}

#[test]
fn a_descendant_that_had_ended_by_itself_keeps_its_own_end() {
    let (parent, guard) = Context::background().with_cancel();
    let (child, of_child) = parent.with_cancel();
    let grandchild = child.with_value("below");
    of_child.cancel_with("own");
    guard.cancel_with("parent's");
    assert_eq!(state(&grandchild), "context cancelled: own");
    assert_eq!(state(&child), "context cancelled: own");
}

#[test]
fn a_child_cancelled_by_itself_keeps_its_cause_when_waited_on() {
    let (parent, guard) = Context::background().with_cancel();
    let (child, of_child) = parent.with_cancel();
    let grandchild = child.with_value("below");
    let mut waiter = waiting(&grandchild);
    of_child.cancel_with("own");
    guard.cancel_with("parent's");
    assert!(has_resolved(&mut waiter));
    assert_eq!(state(&grandchild), "context cancelled: own");
}

#[test]
fn a_child_of_a_done_parent_has_its_error_and_cause_at_once() {
    let (parent, guard) = Context::background().with_cancel();
    guard.cancel_with("stop");
    for child in lineage(&parent) {
        assert_eq!(state(&child), "context cancelled: stop", "{child}");
    }
    let (late, guard) = parent.with_cancel();
    guard.cancel_with("too late");
    assert_eq!(state(&late), "context cancelled: stop");
    let past = tokio::time::Instant::now() - ms(1);
    assert_eq!(
        state(&parent.with_deadline_cause(past, "past")),
        "context cancelled: stop"
    );
}

#[test]
fn a_child_of_a_cancelled_but_unqueried_parent_is_done() {
    let (grandparent, guard) = Context::background().with_cancel();
    let parent = grandparent.with_value(1);
    guard.cancel_with("stop");
    let past = tokio::time::Instant::now() - ms(1);
    assert_eq!(
        state(&parent.with_deadline_cause(past, "past")),
        "context cancelled: stop"
    );
    assert_eq!(
        state(&parent.merge(&Context::todo())),
        "context cancelled: stop"
    );
    assert_eq!(state(&parent.with_cancel().0), "context cancelled: stop");
}

#[test]
fn a_child_derived_during_a_cancel_is_done_when_it_returns() {
    for round in 0..ROUNDS {
        let (top, guard) = Context::background().with_cancel();
        let parent = top.with_value(round);
        let waiter = (round % 3 == 0).then(|| waiting(&parent));
        let ((), children) = race(round, || guard.cancel_with("stop"), || lineage(&parent));
        for child in &children {
            assert_eq!(state(child), "context cancelled: stop", "{child}");
        }
        drop(waiter);
    }
}

#[test]
fn two_racing_cancels_leave_one_cause_and_a_done_tree() {
    for round in 0..ROUNDS {
        let (top, guard) = Context::background().with_cancel();
        let tree: Vec<Context> = (0..4)
            .flat_map(|_| {
                let (child, guard) = top.with_cancel();
                guard.disarm();
                let value = child.with_value(round);
                [child, value.clone(), value.merge(&top)]
            })
            .collect();
        // A cancel is propagated to one half of the tree, and the other half queries for it.
        let mut waiters: Vec<_> = tree[..6].iter().map(waiting).collect();
        let cancel = |cause: &'static str| {
            guard.handle().cancel_with(cause);
            assert!(top.is_done());
            let undone = tree.iter().filter(|ctx| !ctx.is_done()).count();
            assert_eq!(undone, 0, "round {round}");
        };
        race(round, || cancel("a"), || cancel("b"));

        let end = state(&top);
        assert!(end == "context cancelled: a" || end == "context cancelled: b");
        for ctx in &tree {
            assert_eq!(state(ctx), end, "round {round}: {ctx}");
        }
        assert!(waiters.iter_mut().all(has_resolved));
    }
}

#[test]
fn a_cancel_waits_for_a_child_that_another_thread_cancels() {
    for round in 0..ROUNDS {
        let (parent, of_parent) = Context::background().with_cancel();
        let (child, of_child) = parent.with_cancel();
        let leaves: Vec<Context> = (0..8).map(|leaf| child.with_value(leaf)).collect();
        let waiters: Vec<_> = leaves.iter().map(waiting).collect();
        race(
            round,
            || {
                of_parent.cancel_with("parent's");
                let undone = leaves.iter().filter(|leaf| !leaf.is_done()).count();
                assert_eq!(undone, 0, "round {round}");
            },
            || of_child.cancel_with("child's"),
        );
        let end = state(&child);
        assert!(leaves.iter().all(|leaf| state(leaf) == end));
        assert_eq!(state(&parent), "context cancelled: parent's");
        drop(waiters);
    }
}

#[test]
fn a_parent_ends_before_its_children() {
    for round in 0..ROUNDS / 10 {
        let (top, guard) = Context::background().with_cancel();
        let mut line = vec![top];
        for depth in 0..50 {
            line.push(line[depth].with_value(depth));
        }
        let waiter = waiting(&line[50]);
        let over = AtomicBool::new(false);
        race(
            round,
            || {
                guard.cancel();
                over.store(true, Ordering::SeqCst);
            },
            || {
                while !over.load(Ordering::SeqCst) {
                    let ended = line.iter().rposition(Context::is_done).unwrap_or(0);
                    for ancestor in &line[..ended] {
                        assert!(ancestor.is_done(), "round {round}");
                    }
                }
            },
        );
        drop(waiter);
    }
}
