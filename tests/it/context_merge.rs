//! Merged contexts, which are done as soon as either of their two parents is.

use errgroup::{CancelGuard, Context};
use tokio::time;

use crate::support::{GOING_ON, HOUR, ROUNDS, has_resolved, ms, race, returns, state, waiting};

fn two() -> ((Context, CancelGuard), (Context, CancelGuard)) {
    let root = Context::background();
    (root.with_cancel(), root.with_cancel())
}

#[test]
fn a_merged_context_ends_with_the_first_of_the_two() {
    for other_first in [false, true] {
        let ((ctx, guard), (other, of_other)) = two();
        let merged = ctx.merge(&other);
        assert_eq!(state(&merged), GOING_ON);
        if other_first {
            of_other.cancel_with("other's");
            assert_eq!(state(&merged), "context cancelled: other's");
            guard.cancel_with("own");
            assert_eq!(state(&merged), "context cancelled: other's");
        } else {
            guard.cancel_with("own");
            assert_eq!(state(&merged), "context cancelled: own");
            of_other.cancel_with("other's");
            assert_eq!(state(&merged), "context cancelled: own");
        }
    }
}

#[test]
fn the_first_of_the_two_is_the_cause_without_a_query_in_between() {
    for other_first in [false, true] {
        for waited_on in [false, true] {
            let ((ctx, guard), (other, of_other)) = two();
            let merged = ctx.merge(&other);
            let waiter = waited_on.then(|| waiting(&merged));
            if other_first {
                of_other.cancel_with("first");
                guard.cancel_with("second");
            } else {
                guard.cancel_with("first");
                of_other.cancel_with("second");
            }
            assert_eq!(state(&merged), "context cancelled: first");
            drop(waiter);
        }
    }
}

#[test]
fn a_waiter_on_a_merged_context_is_woken_by_either() {
    for other_first in [false, true] {
        let ((ctx, guard), (other, of_other)) = two();
        let below = ctx.merge(&other).with_value("below");
        let mut waiter = waiting(&below);
        if other_first {
            of_other.cancel_with("other's");
        } else {
            guard.cancel_with("own");
        }
        assert!(has_resolved(&mut waiter));
    }
}

#[test]
fn an_ancestor_of_either_ends_a_merged_context() {
    for other_first in [false, true] {
        let ((top, guard), (other_top, of_other)) = two();
        let (ctx, _guard) = top.with_value(1).with_cancel();
        let (other, _other_guard) = other_top.with_value(2).with_cancel();
        let merged = ctx.merge(&other);
        if other_first {
            of_other.cancel_with("other's");
            assert_eq!(state(&merged), "context cancelled: other's");
        } else {
            guard.cancel_with("own");
            assert_eq!(state(&merged), "context cancelled: own");
        }
    }
}

#[test]
fn a_merged_context_has_the_values_of_self_alone() {
    let ctx = Context::background().with_value(1_u8).with_value("own");
    let other = Context::background().with_value(2_u8).with_value(2_u16);
    let merged = ctx.merge(&other);
    assert_eq!(merged.value(), Some(&1_u8));
    assert_eq!(merged.value(), Some(&"own"));
    assert_eq!(merged.value::<u16>(), None);
}

#[tokio::test(start_paused = true)]
async fn a_merged_context_has_the_earlier_deadline_and_its_cause() {
    let early = Context::background().with_timeout_cause(ms(10), "early");
    let late = Context::background().with_timeout_cause(ms(20), "late");
    let none = Context::background();
    let merged = [
        early.merge(&late),
        late.merge(&early),
        early.merge(&none),
        none.merge(&early.with_timeout_cause(HOUR, "not this one")),
    ];
    let mut waiters: Vec<_> = merged.iter().map(waiting).collect();
    for ctx in &merged {
        assert_eq!(ctx.deadline(), early.deadline());
        assert_eq!(state(ctx), GOING_ON);
    }
    time::advance(ms(10)).await;
    assert!(waiters.iter_mut().all(has_resolved));
    time::advance(ms(10)).await;
    for ctx in &merged {
        assert_eq!(state(ctx), "context deadline exceeded: early");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_does_not_undo_a_passed_deadline_of_other() {
    for other_first in [false, true] {
        let ((ctx, guard), (top, of_top)) = two();
        let other = top.with_timeout_cause(ms(10), "too slow");
        let merged = ctx.merge(&other);
        let below = merged.with_value("below");
        time::advance(ms(10)).await;
        if other_first {
            of_top.cancel_with("late");
        }
        guard.cancel_with("late");
        assert_eq!(state(&below), "context deadline exceeded: too slow");
        assert_eq!(state(&merged), "context deadline exceeded: too slow");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_does_not_undo_a_passed_deadline_of_self() {
    let ((top, _guard), (other, of_other)) = two();
    let ctx = top.with_timeout_cause(ms(10), "too slow");
    let merged = ctx.merge(&other);
    time::advance(ms(10)).await;
    of_other.cancel_with("late");
    assert_eq!(state(&merged), "context deadline exceeded: too slow");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_before_the_deadline_of_either_is_the_end() {
    let ((ctx, guard), (other, of_other)) = two();
    let timed = Context::background().with_timeout(ms(10));
    let merged = [ctx.merge(&timed), timed.merge(&ctx)];
    let with_timed = [
        timed.merge(&other),
        Context::background().merge(&other.with_timeout(ms(10))),
    ];
    time::advance(ms(5)).await;
    guard.cancel_with("stop");
    of_other.cancel_with("stop");
    time::advance(ms(10)).await;
    for ctx in merged.iter().chain(&with_timed) {
        assert_eq!(state(ctx), "context cancelled: stop");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_below_a_merged_context_knows_what_came_before_it() {
    for (other_first, after) in [(false, 5), (true, 5), (false, 15), (true, 15)] {
        let ((ctx, guard), (other, of_other)) = two();
        let merged = ctx.merge(&other.with_value("in between"));
        let below = merged.with_timeout(ms(10));
        time::advance(ms(after)).await;
        let first = if other_first { of_other } else { guard };
        first.cancel_with("stop");
        time::advance(ms(20)).await;
        let end = match after {
            5 => "context cancelled: stop",
            _ => "context deadline exceeded",
        };
        assert_eq!(state(&below), end);
        assert_eq!(state(&merged), "context cancelled: stop");
    }
}

#[test]
fn merging_with_a_done_context_gives_a_done_context() {
    let ((ctx, _guard), (ended, of_ended)) = two();
    of_ended.cancel_with("stop");
    assert_eq!(state(&ctx.merge(&ended)), "context cancelled: stop");
    assert_eq!(state(&ended.merge(&ctx)), "context cancelled: stop");
    let unseen = ended.with_value("not queried yet");
    assert_eq!(state(&ctx.merge(&unseen)), "context cancelled: stop");
}

#[test]
fn merging_two_that_have_ended_gives_the_end_of_self() {
    let ((ctx, guard), (other, of_other)) = two();
    of_other.cancel_with("other's");
    guard.cancel_with("own");
    assert_eq!(state(&ctx.merge(&other)), "context cancelled: own");
    assert_eq!(state(&other.merge(&ctx)), "context cancelled: other's");
}

#[test]
fn merging_touches_neither_of_the_two() {
    let ((ctx, _guard), (other, of_other)) = two();
    let merged = ctx.merge(&other);
    let (child, of_child) = merged.with_cancel();
    of_child.cancel();
    assert!(child.is_done());
    assert_eq!(state(&merged), GOING_ON);
    of_other.cancel();
    assert!(merged.is_done());
    assert_eq!(state(&ctx), GOING_ON);
}

#[test]
fn a_merged_context_outlives_the_handles_of_both() {
    let ((ctx, guard), (other, of_other)) = two();
    let merged = ctx.merge(&other);
    drop((ctx, other));
    let _handle = guard.disarm();
    assert_eq!(state(&merged), GOING_ON);
    of_other.cancel_with("other's");
    assert_eq!(state(&merged), "context cancelled: other's");
}

#[test]
fn two_roots_merged_never_end() {
    let merged = Context::background().merge(&Context::todo());
    assert_eq!(state(&merged), GOING_ON);
    assert!(!has_resolved(&mut waiting(&merged)));
}

#[test]
fn a_context_merged_with_itself_or_its_child_ends_once() {
    let (ctx, guard) = Context::background().with_cancel();
    let twice = ctx.merge(&ctx);
    let (child, _of_child) = ctx.with_cancel();
    let with_child = ctx.merge(&child);
    let with_parent = child.merge(&ctx);
    let mut waiters = [&twice, &with_child, &with_parent].map(waiting);
    guard.cancel_with("stop");
    assert!(waiters.iter_mut().all(has_resolved));
    assert_eq!(state(&twice), "context cancelled: stop");
}

#[test]
fn two_parents_that_are_cancelled_at_once_leave_one_end() {
    for round in 0..ROUNDS {
        let ((ctx, guard), (other, of_other)) = two();
        let merged = ctx.merge(&other);
        let below = [merged.with_value("told"), merged.with_value("asks")];
        let mut waiter = (round % 2 == 0).then(|| waiting(&below[0]));
        race(
            round,
            || {
                guard.cancel_with("own");
                assert!(merged.is_done() && below[0].is_done() && below[1].is_done());
            },
            || {
                of_other.cancel_with("other's");
                assert!(merged.is_done() && below[0].is_done() && below[1].is_done());
            },
        );
        let end = state(&merged);
        assert!(end == "context cancelled: own" || end == "context cancelled: other's");
        assert_eq!(state(&below[0]), end);
        assert_eq!(state(&below[1]), end);
        if let Some(waiter) = &mut waiter {
            assert!(has_resolved(waiter));
        }
    }
}

#[test]
fn a_context_merged_during_a_cancel_is_done_when_it_returns() {
    for round in 0..ROUNDS {
        let ((ctx, _guard), (top, of_top)) = two();
        let other = top.with_value(round);
        let ((), merged) = race(
            round,
            || of_top.cancel_with("other's"),
            || ctx.merge(&other),
        );
        assert_eq!(state(&merged), "context cancelled: other's");
    }
}

/// Each rung is `c = c.merge(&child_of_c)`, so the number of paths from the top doubles with every
/// rung.
fn ladder(rungs: usize) -> (Vec<Context>, CancelGuard) {
    let (mut ctx, top) = Context::background().with_cancel();
    let mut kept = vec![ctx.clone()];
    for _ in 0..rungs {
        let (side, guard) = ctx.with_cancel();
        guard.disarm();
        ctx = ctx.merge(&side);
        kept.extend([side, ctx.clone()]);
    }
    (kept, top)
}

#[test]
fn a_ladder_of_merges_is_linear() {
    returns(|| {
        let (rungs, guard) = ladder(64);
        let last = &rungs[rungs.len() - 1];
        assert_eq!(state(last), GOING_ON);
        assert_eq!(last.value::<u8>(), None);
        assert!(last.to_string().len() < 1_000);
        let mut waiters: Vec<_> = rungs.iter().map(waiting).collect();
        guard.cancel_with("stop");
        assert!(waiters.iter_mut().all(has_resolved));
        assert!(
            rungs
                .iter()
                .all(|ctx| state(ctx) == "context cancelled: stop")
        );
    });
}

#[tokio::test(start_paused = true)]
async fn a_ladder_of_merges_below_a_deadline_is_linear() {
    let (rungs, _guard) = ladder(1);
    let mut ctx = rungs[0].with_timeout_cause(ms(10), "too slow");
    let mut kept = Vec::new();
    for _ in 0..64 {
        let side = ctx.with_timeout(HOUR);
        ctx = ctx.merge(&side);
        kept.push(side);
    }
    assert_eq!(state(&ctx), GOING_ON);
    time::advance(ms(10)).await;
    assert_eq!(state(&ctx), "context deadline exceeded: too slow");
}

#[test]
fn a_chain_of_merges_by_the_other_side_is_flat_and_linear() {
    returns(|| {
        let (top, guard) = Context::background().with_cancel();
        let mut ctx = top.clone();
        for _ in 0..100_000 {
            ctx = Context::background().merge(&ctx);
        }
        let mut waiter = waiting(&ctx);
        guard.cancel_with("stop");
        assert!(has_resolved(&mut waiter));
        assert_eq!(state(&ctx), "context cancelled: stop");

        let (mut ctx, guard) = Context::background().with_cancel();
        for _ in 0..100_000 {
            ctx = Context::background().merge(&ctx);
        }
        drop(ctx);
        drop(guard);
    });
}

#[test]
fn a_chain_of_merges_by_the_own_side_is_not_quadratic() {
    returns(|| {
        let (top, guard) = Context::background().with_cancel();
        let ctx = (0..100_000).fold(top, |ctx, _| ctx.merge(&Context::background()));
        assert_eq!(state(&ctx), GOING_ON);
        guard.cancel_with("stop");
        assert_eq!(state(&ctx), "context cancelled: stop");
    });
}
