//! Conversions between contexts and cancellation tokens, both ways.

use std::time::Duration;

use errgroup::Context;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Drops, GOING_ON, HOUR, ROUNDS, has_resolved, ms, race, returns, state, tasks_end, waiting,
};

const TOKEN_CANCELLED: &str = "context cancelled: the context's CancellationToken was cancelled";

#[test]
fn a_token_is_cancelled_when_cancel_returns_without_a_runtime() {
    let (ctx, guard) = Context::background().with_cancel();
    let token = ctx.to_cancellation_token();
    let below = ctx.with_value("below").to_cancellation_token();
    assert!(!token.is_cancelled() && !below.is_cancelled());
    guard.cancel();
    assert!(token.is_cancelled() && below.is_cancelled());
}

#[test]
fn a_token_of_a_done_context_is_cancelled_at_once() {
    let (ctx, guard) = Context::background().with_cancel();
    let unseen = ctx.with_value("not queried yet");
    guard.cancel();
    assert!(ctx.to_cancellation_token().is_cancelled());
    assert!(unseen.to_cancellation_token().is_cancelled());
    let past = Context::background().with_timeout(Duration::ZERO);
    assert!(past.to_cancellation_token().is_cancelled());
}

#[test]
fn cancelling_a_token_cancels_no_context_and_no_other_token() {
    let (ctx, _guard) = Context::background().with_cancel();
    let (token, other) = (ctx.to_cancellation_token(), ctx.to_cancellation_token());
    let below = ctx.with_value("below").to_cancellation_token();
    token.cancel();
    assert_eq!(state(&ctx), GOING_ON);
    assert!(!other.is_cancelled() && !below.is_cancelled());
}

#[test]
fn a_token_of_a_child_is_cancelled_by_the_child_or_an_ancestor() {
    let (parent, of_parent) = Context::background().with_cancel();
    let (child, of_child) = parent.with_cancel();
    let (of_one, sibling) = (child.to_cancellation_token(), parent.with_cancel());
    let of_sibling = sibling.0.to_cancellation_token();
    of_child.cancel();
    assert!(of_one.is_cancelled());
    assert!(!of_sibling.is_cancelled());
    of_parent.cancel();
    assert!(of_sibling.is_cancelled());
}

#[test]
fn a_token_without_its_context_is_cancelled_by_an_ancestor() {
    let (parent, guard) = Context::background().with_cancel();
    let token = parent
        .with_value("not held")
        .with_value("nor this")
        .to_cancellation_token();
    drop(parent);
    assert!(!token.is_cancelled());
    guard.cancel();
    assert!(token.is_cancelled());
}

#[test]
fn a_guard_that_is_the_last_to_hold_a_context_cancels_its_token() {
    let (ctx, guard) = Context::background().with_cancel();
    let token = ctx.to_cancellation_token();
    drop(ctx);
    assert!(!token.is_cancelled());
    drop(guard);
    assert!(token.is_cancelled());
}

#[test]
fn a_token_of_a_context_that_is_never_done_is_never_cancelled() {
    let (parent, guard) = Context::background().with_cancel();
    let token = parent.without_cancel().to_cancellation_token();
    guard.cancel();
    assert!(!token.is_cancelled());
    assert!(!Context::background().to_cancellation_token().is_cancelled());
}

#[test]
fn a_token_keeps_nothing_alive() {
    let drops = Drops::default();
    let (parent, _guard) = Context::background().with_cancel();
    let ctx = parent.with_value(drops.counted());
    let token = ctx.to_cancellation_token();
    drop(ctx);
    assert_eq!(drops.count(), 1);
    assert!(!token.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_context_is_cancelled_at_its_deadline() {
    let ctx = Context::background().with_timeout(ms(10));
    let token = ctx.to_cancellation_token();
    time::sleep(ms(9)).await;
    assert!(!token.is_cancelled());
    time::sleep(ms(1)).await;
    token.cancelled().await;
    tasks_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_with_a_deadline_is_cancelled_by_the_parent() {
    let (parent, guard) = Context::background().with_cancel();
    let token = parent.with_timeout(HOUR).to_cancellation_token();
    guard.cancel();
    token.cancelled().await;
    tasks_end().await;
}

#[test]
fn a_token_of_a_merged_context_is_cancelled_when_cancel_returns() {
    for other_first in [false, true] {
        let (ctx, guard) = Context::background().with_cancel();
        let (other, of_other) = Context::background().with_cancel();
        let merged = ctx.merge(&other);
        let below = merged.with_value("below");
        let (token, of_below) = (
            merged.to_cancellation_token(),
            below.to_cancellation_token(),
        );
        let end = if other_first { of_other } else { guard };
        assert!(!token.is_cancelled() && !of_below.is_cancelled());
        end.cancel();
        assert!(token.is_cancelled() && of_below.is_cancelled());
    }
}

/// A context that lives as long as a server, and one call after another below it.
#[tokio::test(start_paused = true)]
async fn a_token_of_a_merged_context_keeps_no_task() {
    let (server, _stop) = Context::background().with_cancel();
    let (pool, _close) = Context::background().with_cancel();
    let mut tokens = Vec::new();
    for call in 0..100 {
        let ctx = server.merge(&pool).with_value(call);
        tokens.push(ctx.to_cancellation_token());
        yield_now().await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    }
    assert!(tokens.iter().all(|token| !token.is_cancelled()));
}

#[test]
fn a_token_without_its_merged_context_follows_the_first_parent() {
    let (ctx, guard) = Context::background().with_cancel();
    let (other, of_other) = Context::background().with_cancel();
    let token = ctx.merge(&other).to_cancellation_token();
    of_other.cancel();
    assert!(!token.is_cancelled());
    guard.cancel();
    assert!(token.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_merged_context_is_cancelled_at_either_deadline() {
    for (mine, theirs) in [(ms(10), HOUR), (HOUR, ms(10))] {
        let began = time::Instant::now();
        let other = Context::background().with_timeout(theirs);
        let merged = Context::background().with_timeout(mine).merge(&other);
        let token = merged.to_cancellation_token();
        drop((merged, other));
        token.cancelled().await;
        assert_eq!(began.elapsed(), ms(10));
        tasks_end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_behind_a_token_does_not_keep_its_context() {
    let drops = Drops::default();
    let (parent, _guard) = Context::background().with_cancel();
    let ctx = parent.with_value(drops.counted()).with_timeout(ms(10));
    let token = ctx.to_cancellation_token();
    yield_now().await;
    drop(ctx);
    assert_eq!(drops.count(), 1);
    assert!(!token.is_cancelled());
    token.cancelled().await;
    tasks_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_with_a_deadline_is_cancelled_when_cancel_returns() {
    let (parent, guard) = Context::background().with_cancel();
    let token = parent.with_timeout(HOUR).to_cancellation_token();
    yield_now().await;
    guard.cancel();
    assert!(token.is_cancelled());
    tasks_end().await;
}

#[tokio::test(start_paused = true)]
async fn the_task_behind_a_token_ends_when_its_drop_guard_is_dropped() {
    let ctx = Context::background().with_timeout(HOUR);
    for _ in 0..100 {
        let _guard = ctx.to_cancellation_token().drop_guard();
    }
    tasks_end().await;
    assert_eq!(state(&ctx), GOING_ON);
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_merged_context_is_cancelled_by_either() {
    for other_first in [false, true] {
        let (ctx, guard) = Context::background().with_cancel();
        let (other, of_other) = Context::background().with_cancel();
        let merged = ctx.merge(&other);
        let token = merged.with_value(1).to_cancellation_token();
        if other_first {
            of_other.cancel();
        } else {
            guard.cancel();
        }
        token.cancelled().await;
        tasks_end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_task_behind_a_token_ends_when_the_token_is_cancelled() {
    let ctx = Context::background().with_timeout(HOUR);
    let token = ctx.to_cancellation_token();
    yield_now().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
    token.cancel();
    tasks_end().await;
    assert_eq!(state(&ctx), GOING_ON);
}

#[test]
fn a_cancelled_token_cancels_its_context_and_is_the_cause() {
    let token = CancellationToken::new();
    let ctx = Context::from_cancellation_token(token.clone());
    let below = ctx.with_value("below");
    let mut waiter = waiting(&below);
    assert_eq!(state(&ctx), GOING_ON);
    token.cancel();
    assert!(has_resolved(&mut waiter));
    assert_eq!(state(&ctx), TOKEN_CANCELLED);
    assert_eq!(state(&below), TOKEN_CANCELLED);
}

#[test]
fn a_context_from_a_child_token_ends_with_the_parent_token() {
    let token = CancellationToken::new();
    let ctx = Context::from_cancellation_token(token.child_token());
    token.cancel();
    assert_eq!(state(&ctx), TOKEN_CANCELLED);
}

#[test]
fn a_context_from_a_cancelled_token_is_done_at_once() {
    let token = CancellationToken::new();
    token.cancel();
    let ctx = Context::from_cancellation_token(token);
    assert_eq!(state(&ctx), TOKEN_CANCELLED);
}

#[test]
fn a_context_from_a_token_that_is_only_dropped_is_not_done() {
    let ctx = Context::from_cancellation_token(CancellationToken::new());
    assert_eq!(state(&ctx), GOING_ON);
}

#[test]
fn a_dropped_context_leaves_its_token_alone() {
    let token = CancellationToken::new();
    drop(Context::from_cancellation_token(token.clone()));
    assert!(!token.is_cancelled());
    token.cancel();
}

#[test]
fn a_context_dropped_during_a_tokens_cancel_does_not_deadlock() {
    returns(|| {
        for round in 0..ROUNDS {
            let token = CancellationToken::new();
            let ctx = Context::from_cancellation_token(token.child_token());
            race(round, || token.cancel(), || drop(ctx));
        }
    });
}

#[test]
fn a_cancel_propagates_through_a_token_into_a_context() {
    let (ctx, guard) = Context::background().with_cancel();
    let through = Context::from_cancellation_token(ctx.to_cancellation_token());
    let mut waiter = waiting(&through);
    guard.cancel_with("stop");
    assert!(has_resolved(&mut waiter));
    assert_eq!(state(&through), TOKEN_CANCELLED);
}

#[test]
fn a_token_made_during_a_cancel_is_cancelled_when_it_returns() {
    for round in 0..ROUNDS {
        let (top, guard) = Context::background().with_cancel();
        let leaf = top.with_value("between").with_value("leaf");
        let ((), token) = race(round, || guard.cancel(), || leaf.to_cancellation_token());
        assert!(token.is_cancelled(), "round {round}");
    }
}

#[test]
fn two_tokens_made_at_once_are_both_cancelled() {
    for round in 0..ROUNDS {
        let (top, guard) = Context::background().with_cancel();
        let leaf = top.with_value("between").with_value("leaf");
        let token = || leaf.to_cancellation_token();
        let (one, two) = race(round, token, token);
        guard.cancel();
        assert!(one.is_cancelled() && two.is_cancelled(), "round {round}");
    }
}

#[test]
fn a_bridge_whose_context_is_dropped_still_propagates() {
    let (top, guard) = Context::background().with_cancel();
    let mut ctx = top.clone();
    for _ in 0..10 {
        ctx = Context::from_cancellation_token(ctx.to_cancellation_token());
    }
    let mut waiter = waiting(&ctx);
    guard.cancel();
    assert!(has_resolved(&mut waiter));
    assert_eq!(state(&ctx), TOKEN_CANCELLED);
}

/// Cancels contexts that are bridged through tokens, one behind another, and drops them from the
/// first or from the last one on. The stack of the thread is too small for a recursion of that
/// depth.
fn bridged(many: usize, bridge: fn(&Context) -> Context) {
    returns(move || {
        let small = std::thread::Builder::new().stack_size(128 * 1024);
        let thread = small.spawn(move || {
            for first_first in [false, true] {
                let (top, guard) = Context::background().with_cancel();
                let mut chain = vec![top];
                for at in 0..many {
                    chain.push(bridge(&chain[at]));
                }
                let mut waiter = waiting(&chain[many]);
                guard.cancel_with("stop");
                assert!(has_resolved(&mut waiter));
                assert!(chain.iter().all(Context::is_done));
                drop(waiter);
                if !first_first {
                    chain.reverse();
                }
                chain.into_iter().for_each(drop);
            }
            // Dropped without a cancel.
            let (mut ctx, guard) = Context::background().with_cancel();
            let handle = guard.disarm();
            for _ in 0..many {
                ctx = bridge(&ctx);
            }
            drop((ctx, handle));
        });
        thread.unwrap().join().unwrap();
    });
}

fn through_a_token(ctx: &Context) -> Context {
    Context::from_cancellation_token(ctx.to_cancellation_token())
}

#[test]
fn bridges_of_20_000_are_cancelled_without_recursion() {
    bridged(20_000, through_a_token);
}

#[test]
fn bridges_of_100_000_are_cancelled_without_recursion() {
    bridged(100_000, through_a_token);
}

#[test]
fn merged_bridged_contexts_are_cancelled_without_recursion() {
    bridged(20_000, |ctx| {
        let (server, guard) = Context::background().with_cancel();
        drop(guard.disarm());
        server.merge(&through_a_token(ctx))
    });
}

#[test]
fn bridged_contexts_with_values_are_cancelled_without_recursion() {
    bridged(20_000, |ctx| {
        through_a_token(&ctx.with_value(7)).with_value(7)
    });
}

#[test]
fn a_panic_of_a_waker_does_not_stop_a_bridge() {
    let (top, guard) = Context::background().with_cancel();
    let one = through_a_token(&top);
    let two = Context::background().merge(&through_a_token(&one));
    let three = through_a_token(&two);
    let mut panics = std::pin::pin!(one.done_owned());
    let waker = crate::support::waker(|| std::panic::resume_unwind(Box::new("a waker's")));
    assert!(crate::support::poll_with(&mut panics, &waker).is_pending());
    let mut waiter = waiting(&three);
    let cancel = std::panic::AssertUnwindSafe(|| guard.cancel());
    std::panic::catch_unwind(cancel).unwrap_err();
    assert!(has_resolved(&mut waiter));
    // The next bridge on this thread works, too.
    let (next, guard) = Context::background().with_cancel();
    let through = through_a_token(&next);
    guard.cancel();
    assert!(through.is_done());
}
