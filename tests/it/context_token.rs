//! Both ways between contexts and cancellation tokens.

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
fn a_token_is_cancelled_when_cancel_returns_and_needs_no_runtime() {
    let (ctx, guard) = Context::background().with_cancel();
    let token = ctx.to_cancellation_token();
    let below = ctx.with_value("below").to_cancellation_token();
    assert!(!token.is_cancelled() && !below.is_cancelled());
    guard.cancel();
    assert!(token.is_cancelled() && below.is_cancelled());
}

#[test]
fn a_token_of_an_ended_context_is_born_cancelled() {
    let (ctx, guard) = Context::background().with_cancel();
    let unseen = ctx.with_value("nobody has asked this one");
    guard.cancel();
    assert!(ctx.to_cancellation_token().is_cancelled());
    assert!(unseen.to_cancellation_token().is_cancelled());
    let past = Context::background().with_timeout(Duration::ZERO);
    assert!(past.to_cancellation_token().is_cancelled());
}

#[test]
fn cancelling_a_token_touches_neither_its_context_nor_other_tokens() {
    let (ctx, _guard) = Context::background().with_cancel();
    let (token, other) = (ctx.to_cancellation_token(), ctx.to_cancellation_token());
    let below = ctx.with_value("below").to_cancellation_token();
    token.cancel();
    assert_eq!(state(&ctx), GOING_ON);
    assert!(!other.is_cancelled() && !below.is_cancelled());
}

#[test]
fn a_token_of_a_child_is_cancelled_by_the_child_alone_or_by_an_ancestor() {
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
fn a_token_outlives_every_handle_of_its_context_and_still_hears_of_its_ancestors() {
    let (parent, guard) = Context::background().with_cancel();
    let token = parent
        .with_value("held by nobody")
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
fn a_token_of_a_context_that_can_never_end_is_never_cancelled() {
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
async fn a_token_of_a_context_with_a_deadline_is_cancelled_when_it_passes() {
    let ctx = Context::background().with_timeout(ms(10));
    let token = ctx.to_cancellation_token();
    time::sleep(ms(9)).await;
    assert!(!token.is_cancelled());
    time::sleep(ms(1)).await;
    token.cancelled().await;
    tasks_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_context_with_a_deadline_is_cancelled_by_a_cancel() {
    let (parent, guard) = Context::background().with_cancel();
    let token = parent.with_timeout(HOUR).to_cancellation_token();
    guard.cancel();
    token.cancelled().await;
    tasks_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_merged_context_is_cancelled_by_either() {
    for other_first in [false, true] {
        let (ctx, guard) = Context::background().with_cancel();
        let (other, of_other) = Context::background().with_cancel();
        let token = ctx.merge(&other).with_value(1).to_cancellation_token();
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
fn a_context_from_a_token_ends_when_the_token_is_cancelled_with_a_cause_that_says_so() {
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
fn a_context_from_a_cancelled_token_is_born_ended() {
    let token = CancellationToken::new();
    token.cancel();
    let ctx = Context::from_cancellation_token(token);
    assert_eq!(state(&ctx), TOKEN_CANCELLED);
}

#[test]
fn a_context_from_a_token_that_is_only_dropped_goes_on() {
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
fn a_context_dropped_while_its_token_is_cancelled_stops_nobody() {
    returns(|| {
        for round in 0..ROUNDS {
            let token = CancellationToken::new();
            let ctx = Context::from_cancellation_token(token.child_token());
            race(round, || token.cancel(), || drop(ctx));
        }
    });
}

#[test]
fn an_end_goes_through_a_token_and_back_into_a_context() {
    let (ctx, guard) = Context::background().with_cancel();
    let through = Context::from_cancellation_token(ctx.to_cancellation_token());
    let mut waiter = waiting(&through);
    guard.cancel_with("stop");
    assert!(has_resolved(&mut waiter));
    assert_eq!(state(&through), TOKEN_CANCELLED);
}

#[test]
fn a_token_made_while_an_ancestor_is_cancelled_is_cancelled_once_cancel_has_returned() {
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
