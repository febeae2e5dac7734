//! Linking and unlinking in chains and fans of 100,000 contexts. There, recursion would overflow
//! the stack, and a search in a list would be quadratic.

use errgroup::{CancelGuard, Context, DoneOwned};
use tokio_test::task::Spawn;

use crate::support::{
    Drops, GOING_ON, HOUR, ROUNDS, has_resolved, ms, race, returns, state, waiting,
};

const MANY: usize = 100_000;

/// Each context is a child of the one before.
fn chain() -> (Vec<Context>, CancelGuard) {
    let (top, guard) = Context::background().with_cancel();
    let mut chain = vec![top];
    while let (Some(parent), true) = (chain.last(), chain.len() < MANY) {
        let (child, guard) = parent.with_cancel();
        guard.disarm();
        chain.push(child);
    }
    (chain, guard)
}

/// All contexts but the first are children of the first.
fn fan() -> (Vec<Context>, CancelGuard) {
    let (top, guard) = Context::background().with_cancel();
    let leaves = (1..MANY).map(|leaf| top.with_value(leaf));
    (std::iter::once(top.clone()).chain(leaves).collect(), guard)
}

/// A chain, each of whose contexts has one more child.
fn comb() -> (Vec<Context>, CancelGuard) {
    let (mut spine, guard) = Context::background().with_cancel();
    let mut comb = vec![spine.clone()];
    while comb.len() < MANY {
        let tooth = spine.with_value("tooth");
        spine = spine.with_value("spine");
        comb.extend([tooth, spine.clone()]);
    }
    (comb, guard)
}

/// The items in an order that is neither up nor down.
fn shuffled<T>(items: Vec<T>) -> Vec<T> {
    let len = items.len();
    let mut items: Vec<_> = items.into_iter().map(Some).collect();
    // A step that has no factor in common with the length meets each index once.
    let step = (7_919..).find(|step| len % step != 0).unwrap_or(1);
    (0..len)
        .filter_map(|at| items[at * step % len].take())
        .collect()
}

fn wait_on_all(contexts: &[Context]) -> Vec<Spawn<DoneOwned>> {
    contexts.iter().map(waiting).collect()
}

/// Cancels a tree with a waiter on every context, and drops it.
fn is_cancelled_in_linear_time((contexts, guard): (Vec<Context>, CancelGuard)) {
    returns(move || {
        let mut waiters = wait_on_all(&contexts);
        guard.cancel_with("stop");
        assert!(waiters.iter_mut().all(has_resolved));
        for ctx in &contexts {
            assert!(ctx.is_done());
        }
        assert_eq!(state(&contexts[MANY - 1]), "context cancelled: stop");
    });
}

fn is_dropped_in_linear_time((contexts, guard): (Vec<Context>, CancelGuard)) {
    returns(move || {
        let waiters = wait_on_all(&contexts);
        drop(contexts);
        drop(shuffled(waiters));
        guard.disarm();
    });
}

#[test]
fn a_chain_of_100_000_is_cancelled_in_linear_time() {
    is_cancelled_in_linear_time(chain());
}

#[test]
fn a_fan_of_100_000_is_cancelled_in_linear_time() {
    is_cancelled_in_linear_time(fan());
}

#[test]
fn a_comb_of_100_000_is_cancelled_in_linear_time() {
    is_cancelled_in_linear_time(comb());
}

#[test]
fn a_chain_of_100_000_waited_on_from_the_bottom_is_linear() {
    let (mut contexts, guard) = chain();
    contexts.reverse();
    is_cancelled_in_linear_time((contexts, guard));
}

#[test]
fn a_chain_of_100_000_is_dropped_in_linear_time() {
    is_dropped_in_linear_time(chain());
}

#[test]
fn a_fan_of_100_000_is_dropped_in_linear_time() {
    is_dropped_in_linear_time(fan());
}

#[test]
fn a_comb_of_100_000_is_dropped_in_linear_time() {
    is_dropped_in_linear_time(comb());
}

#[test]
fn a_chain_of_100_000_held_by_its_leaf_drops_without_recursion() {
    for waited_on in [false, true] {
        returns(move || {
            let (mut contexts, guard) = chain();
            let last = contexts.pop();
            let waiter = last.as_ref().filter(|_| waited_on).map(waiting);
            drop((contexts, guard));
            drop(waiter);
            drop(last);
        });
    }
}

#[test]
fn a_chain_of_100_000_is_queried_in_linear_time() {
    returns(|| {
        let (contexts, guard) = chain();
        assert_eq!(state(&contexts[MANY - 1]), GOING_ON);
        guard.cancel_with("stop");
        for ctx in contexts.iter().rev() {
            assert!(ctx.is_done());
        }
        assert_eq!(state(&contexts[MANY - 1]), "context cancelled: stop");
    });
}

#[test]
fn a_chain_of_100_000_deadlines_is_derived_in_linear_time() {
    returns(|| {
        let (top, guard) = Context::background().with_cancel();
        let last = (0..MANY).fold(top, |ctx, depth| {
            ctx.with_timeout(2 * HOUR - ms(depth as u64))
        });
        assert_eq!(state(&last), GOING_ON);
        guard.cancel_with("stop");
        assert_eq!(state(&last), "context cancelled: stop");
    });
}

#[test]
fn a_chain_of_100_000_values_is_printed_without_recursion() {
    returns(|| {
        let first = Context::background().with_value("first");
        let last = (0..MANY).fold(first, |ctx, depth| ctx.with_value(depth));
        assert_eq!(last.value(), Some(&"first"));
        assert!(last.to_string().len() > MANY * ".WithValue()".len());
    });
}

#[test]
fn each_of_100_000_siblings_is_cancelled_in_constant_time() {
    returns(|| {
        let (top, _guard) = Context::background().with_cancel();
        let siblings: Vec<_> = (0..MANY).map(|_| top.with_cancel()).collect();
        let mut waiters: Vec<_> = siblings.iter().map(|(ctx, _)| waiting(ctx)).collect();
        for (_, guard) in shuffled(siblings) {
            guard.cancel();
        }
        assert!(waiters.iter_mut().all(has_resolved));
        assert_eq!(state(&top), GOING_ON);
    });
}

#[test]
fn each_of_100_000_waiters_is_added_in_constant_time() {
    returns(|| {
        let (ctx, guard) = Context::background().with_cancel();
        let mut waiters: Vec<_> = (0..MANY).map(|_| waiting(&ctx)).collect();
        waiters = shuffled(waiters);
        waiters.truncate(MANY / 2);
        waiters.extend((0..MANY / 2).map(|_| waiting(&ctx)));
        guard.cancel();
        assert!(waiters.iter_mut().all(has_resolved));
    });
}

#[test]
fn a_dropped_ancestor_still_cancels_its_descendants() {
    let (top, guard) = Context::background().with_cancel();
    let leaf = top.with_value("not held").with_value("leaf");
    drop(top);
    let mut waiter = waiting(&leaf);
    guard.cancel_with("stop");
    assert!(has_resolved(&mut waiter));
    assert_eq!(state(&leaf), "context cancelled: stop");
}

#[test]
fn a_dropped_child_unlinks_no_sibling() {
    let (top, guard) = Context::background().with_cancel();
    let mut children: Vec<_> = (0..10).map(|child| top.with_value(child)).collect();
    let mut waiters = wait_on_all(&children);
    drop(children.drain(3..6));
    drop(waiters.drain(3..6));
    let more: Vec<_> = (10..20).map(|child| top.with_value(child)).collect();
    waiters.extend(wait_on_all(&more));
    guard.cancel();
    assert!(waiters.iter_mut().all(has_resolved));
}

#[test]
fn a_child_cancelled_and_dropped_later_unlinks_no_sibling() {
    let (top, guard) = Context::background().with_cancel();
    let (child, of_child) = top.with_cancel();
    let mut at_child = waiting(&child);
    of_child.cancel();
    assert!(has_resolved(&mut at_child));
    let sibling = top.with_value("linked in the place of the child");
    let mut at_sibling = waiting(&sibling);
    drop((child, of_child, at_child));
    guard.cancel();
    assert!(has_resolved(&mut at_sibling));
}

#[test]
fn a_child_dropped_during_a_cancel_unlinks_no_sibling() {
    for round in 0..ROUNDS {
        let drops = Drops::default();
        let (top, guard) = Context::background().with_cancel();
        let leaving: Vec<_> = (0..4).map(|_| top.with_value(drops.counted())).collect();
        let staying = top.with_value("staying");
        let at_leaving = wait_on_all(&leaving);
        let mut waiter = waiting(&staying);
        race(round, || guard.cancel(), || drop((at_leaving, leaving)));
        assert_eq!(drops.count(), 4, "round {round}");
        assert!(has_resolved(&mut waiter));
    }
}

#[test]
fn a_chain_dropped_while_its_top_is_cancelled_is_dropped_once() {
    for round in 0..ROUNDS {
        let drops = Drops::default();
        let (top, guard) = Context::background().with_cancel();
        let leaf = (0..4).fold(top, |ctx, _| ctx.with_value(drops.counted()));
        let waiter = waiting(&leaf);
        race(round, || drop(guard), || drop((waiter, leaf)));
        assert_eq!(drops.count(), 4, "round {round}");
    }
}

#[test]
fn a_context_that_is_queried_often_is_linked() {
    for asked in [0, 1, 15, 16, 17, 1_000] {
        let (top, guard) = Context::background().with_cancel();
        let child = top.with_value(1).with_value(2).with_timeout(HOUR);
        let sibling = top.with_value(3);
        for _ in 0..asked {
            assert!(!child.is_done() && child.err().is_none() && child.check().is_ok());
            assert!(!sibling.is_done());
        }
        guard.cancel_with("enough");
        for ctx in [&child, &sibling, &child.with_value(4)] {
            assert!(ctx.is_done());
            assert_eq!(ctx.cause().unwrap().to_string(), "enough");
        }
    }
}

#[test]
fn a_context_queried_during_a_cancel_never_misses_it() {
    for _ in 0..ROUNDS {
        let (top, guard) = Context::background().with_cancel();
        let child = top.with_value(1).with_value(2);
        let asks = child.clone();
        let asker = std::thread::spawn(move || while !asks.is_done() {});
        guard.cancel();
        assert!(child.is_done());
        asker.join().unwrap();
    }
}
