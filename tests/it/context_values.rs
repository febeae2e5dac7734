//! The values of a context, and which contexts see them.

use errgroup::Context;
use tokio::time;

use crate::support::{Drops, GOING_ON, HOUR, has_resolved, ms, state, waiting};

#[derive(Debug, PartialEq)]
struct RequestId(u64);

#[test]
fn a_value_is_found_by_its_type_and_no_other() {
    let ctx = Context::background().with_value(RequestId(7));
    assert_eq!(ctx.value(), Some(&RequestId(7)));
    assert_eq!(ctx.value::<u64>(), None);
}

#[test]
fn the_nearest_value_towards_the_root_is_found() {
    let outer = Context::background().with_value(RequestId(1));
    let between = outer.with_value("of another type");
    let inner = between.with_value(RequestId(2));
    assert_eq!(between.value(), Some(&RequestId(1)));
    assert_eq!(inner.value(), Some(&RequestId(2)));
    assert_eq!(inner.value(), Some(&"of another type"));
    assert_eq!(outer.value(), Some(&RequestId(1)));
}

#[test]
fn private_newtypes_cannot_collide() {
    mod theirs {
        pub(super) struct RequestId(pub(super) u64);
    }
    let ctx = Context::background()
        .with_value(RequestId(1))
        .with_value(theirs::RequestId(2));
    assert_eq!(ctx.value(), Some(&RequestId(1)));
    assert_eq!(ctx.value::<theirs::RequestId>().map(|id| id.0), Some(2));
}

#[test]
fn every_kind_of_child_has_the_values_of_its_parent() {
    let parent = Context::background().with_value(RequestId(7));
    let (cancel, _guard) = parent.with_cancel();
    for child in [
        cancel,
        parent.clone(),
        parent.with_timeout(HOUR),
        parent.with_value("another"),
        parent.without_cancel(),
        parent.merge(&Context::background()),
    ] {
        assert_eq!(child.value(), Some(&RequestId(7)), "{child}");
    }
}

#[test]
fn a_value_is_seen_by_neither_parent_nor_sibling() {
    let parent = Context::background().with_value("parent's");
    let _child = parent.with_value(RequestId(1));
    assert_eq!(parent.value::<RequestId>(), None);
    assert_eq!(parent.with_value("sibling's").value::<RequestId>(), None);
}

#[test]
fn a_context_that_has_ended_still_has_its_values() {
    let (parent, guard) = Context::background().with_value(RequestId(7)).with_cancel();
    let ctx = parent.with_value("own");
    guard.cancel();
    assert!(ctx.is_done());
    assert_eq!(ctx.value(), Some(&RequestId(7)));
    assert_eq!(ctx.value(), Some(&"own"));
}

#[test]
fn a_value_is_dropped_once_with_the_last_context_that_sees_it() {
    let drops = Drops::default();
    let ctx = Context::background().with_value(drops.counted());
    let (child, guard) = ctx.with_cancel();
    drop(ctx);
    drop(child.clone());
    assert_eq!(drops.count(), 0);
    drop(child);
    assert_eq!(drops.count(), 0, "the guard keeps it");
    drop(guard);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_value_with_a_drop_that_panics_leaves_the_tree_in_order() {
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("boom");
        }
    }

    let (parent, guard) = Context::background().with_cancel();
    let child = parent.with_value(Bomb);
    let waiter = waiting(&child);
    drop(child);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(waiter)));
    assert!(panicked.is_err());
    let mut at_parent = waiting(&parent);
    guard.cancel();
    assert!(has_resolved(&mut at_parent));
}

#[tokio::test(start_paused = true)]
async fn without_cancel_keeps_only_the_values() {
    let (parent, guard) = Context::background()
        .with_value(RequestId(7))
        .with_timeout_cause(ms(100), "too slow")
        .with_cancel();
    let before = parent.without_cancel();
    let mut waiter = waiting(&before);
    guard.cancel_with("stop");
    let after = parent.without_cancel();
    time::advance(ms(200)).await;
    for ctx in [&before, &after] {
        assert_eq!(state(ctx), GOING_ON);
        assert_eq!(ctx.deadline(), None);
        assert_eq!(ctx.remaining(), None);
        assert!(ctx.cause().is_none());
        assert_eq!(ctx.value(), Some(&RequestId(7)));
    }
    assert!(!has_resolved(&mut waiter));
}

#[tokio::test(start_paused = true)]
async fn what_is_derived_from_without_cancel_has_ends_of_its_own_only() {
    let (parent, of_parent) = Context::background().with_timeout(ms(50)).with_cancel();
    let cleanup = parent.without_cancel();
    let (cancel, of_cancel) = cleanup.with_cancel();
    let timeout = cleanup.with_timeout(ms(100));
    let mut waiter = waiting(&cancel);
    of_parent.cancel();
    time::advance(ms(99)).await;
    assert_eq!(state(&cancel), GOING_ON);
    assert_eq!(state(&timeout), GOING_ON);
    assert!(!has_resolved(&mut waiter));
    time::advance(ms(1)).await;
    of_cancel.cancel_with("clean");
    assert_eq!(state(&timeout), "context deadline exceeded");
    assert_eq!(state(&cancel), "context cancelled: clean");
    assert!(has_resolved(&mut waiter));
}
