//! Chains of contexts that grow by one context at each step, and are queried at each step. The work
//! is linear. It would be quadratic if each query went up to the top.
//!
//! Nothing is measured. The chains are so long that quadratic work would take minutes, and the
//! timeout of `returns` would fail the test.

use std::time::Duration;

use errgroup::{Context, ContextError};

use crate::support::{HOUR, returns};

const STEPS: usize = 200_000;

/// Derives a context at each step from the one before. Keeps what `step` returns besides until the
/// end.
fn grows<K>(mut step: impl FnMut(usize, &Context) -> (Context, K) + Send + 'static) {
    returns(move || {
        let (mut ctx, _guard) = Context::background().with_cancel();
        let kept: Vec<K> = (0..STEPS)
            .map(|at| {
                let (next, kept) = step(at, &ctx);
                ctx = next;
                kept
            })
            .collect();
        // The last one first, as when callers return.
        kept.into_iter().rev().for_each(drop);
    });
}

fn go_on(ctx: &Context) -> Result<(), ContextError> {
    ctx.check()
}

#[test]
fn a_chain_of_values_that_is_checked_at_each_step_is_linear() {
    grows(|at, ctx| {
        let next = ctx.with_value(at);
        go_on(&next).unwrap();
        (next, ())
    });
}

#[test]
fn a_chain_that_is_queried_in_any_way_at_each_step_is_linear() {
    grows(|at, ctx| {
        let next = ctx.with_value(at);
        match at % 3 {
            0 => assert!(!next.is_done()),
            1 => assert!(next.err().is_none()),
            _ => assert!(next.cause().is_none()),
        }
        (next, ())
    });
}

#[test]
fn a_chain_of_guards_that_is_checked_at_each_step_is_linear() {
    grows(|_, ctx| {
        let (next, guard) = ctx.with_cancel();
        go_on(&next).unwrap();
        (next, guard)
    });
}

/// There is no query on the way down. On the way back, each cancel has to find out whether an
/// ancestor is done.
#[test]
fn a_chain_of_guards_dropped_from_the_last_one_on_is_linear() {
    grows(|_, ctx| {
        let (next, guard) = ctx.with_cancel();
        (next.clone(), (guard, next))
    });
}

#[test]
fn a_chain_of_timeouts_that_is_checked_at_each_step_is_linear() {
    grows(|at, ctx| {
        let left = HOUR - Duration::from_millis(at as u64);
        let next = ctx.with_timeout(left);
        go_on(&next).unwrap();
        (next, ())
    });
}

/// Each of the timeouts passes, and each has to find out whether an ancestor was done before.
#[test]
fn a_chain_with_a_timeout_that_passes_at_each_step_is_linear() {
    grows(|at, ctx| {
        let next = ctx.with_value(at);
        let passed = next.with_timeout(Duration::ZERO);
        assert!(go_on(&passed).unwrap_err().is_deadline_exceeded());
        let below = passed.with_value(at);
        assert!(go_on(&below).unwrap_err().is_deadline_exceeded());
        (next, ())
    });
}

#[test]
fn a_chain_with_a_child_cancelled_at_each_step_is_linear() {
    grows(|at, ctx| {
        let next = ctx.with_value(at);
        let (child, guard) = next.with_cancel();
        guard.cancel_with("stop");
        assert!(go_on(&child).unwrap_err().is_cancelled());
        (next, ())
    });
}

#[test]
fn a_mixed_chain_that_is_checked_at_each_step_is_linear() {
    let (other, stop) = Context::background().with_cancel();
    grows(move |at, ctx| {
        let _ = &stop;
        let (next, guard) = match at % 4 {
            0 => (ctx.with_value(at), None),
            1 => {
                let (next, guard) = ctx.with_cancel();
                (next, Some(guard))
            }
            2 => (ctx.with_timeout(HOUR), None),
            _ => (ctx.merge(&other), None),
        };
        go_on(&next).unwrap();
        (next, guard)
    });
}

#[cfg(feature = "tokio-util")]
#[test]
fn a_chain_with_a_token_made_at_each_step_is_linear() {
    grows(|at, ctx| {
        let next = ctx.with_value(at);
        assert!(!next.to_cancellation_token().is_cancelled());
        (next, ())
    });
}

/// All contexts of the chain are queried, and all are cancelled with the top, including those that
/// were linked by the query of a descendant.
#[test]
fn every_context_of_a_queried_chain_is_cancelled() {
    let (top, guard) = Context::background().with_cancel();
    let mut chain = vec![top.clone()];
    for at in 0..1_000 {
        let next = chain[at].with_value(at);
        assert!(!next.is_done());
        chain.push(next);
    }
    guard.cancel_with("stop");
    for ctx in &chain {
        assert!(ctx.is_done());
        assert_eq!(ctx.cause().unwrap().to_string(), "stop");
    }
    assert!(chain[500].with_value("late").is_done());
}
