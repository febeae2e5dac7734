//! Deadlines are instants: a query compares them with the clock, and a timer exists only while a
//! future waits.

use std::time::Duration;

use errgroup::Context;
use tokio::time::{self, Instant};

use crate::support::{GOING_ON, HOUR, err, has_resolved, ms, state, waiting};

const EXCEEDED: &str = "context deadline exceeded";

#[tokio::test(start_paused = true)]
async fn with_timeout_ends_after_its_time_and_not_before() {
    let ctx = Context::background().with_timeout(ms(100));
    time::advance(ms(99)).await;
    assert_eq!(state(&ctx), GOING_ON);
    time::advance(ms(1)).await;
    assert_eq!(state(&ctx), EXCEEDED);
    assert!(err(&ctx).is_deadline_exceeded());
    assert!(!err(&ctx).is_cancelled());
    assert_eq!(ctx.cause().unwrap().to_string(), EXCEEDED);
}

#[tokio::test(start_paused = true)]
async fn with_deadline_ends_at_its_instant_and_takes_std_instants_too() {
    let at = Instant::now() + ms(100);
    let both = [
        Context::background().with_deadline(at),
        Context::background().with_deadline(at.into_std()),
    ];
    for ctx in &both {
        assert_eq!(ctx.deadline(), Some(at));
        assert_eq!(state(ctx), GOING_ON);
    }
    time::advance(ms(100)).await;
    for ctx in &both {
        assert_eq!(state(ctx), EXCEEDED);
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_has_the_earlier_of_its_and_its_parents_deadline() {
    let now = Instant::now();
    let parent = Context::background().with_timeout(ms(100));
    let earlier = parent.with_timeout(ms(50));
    let later = parent.with_timeout(ms(150));
    assert_eq!(earlier.deadline(), Some(now + ms(50)));
    assert_eq!(later.deadline(), Some(now + ms(100)));

    time::advance(ms(50)).await;
    assert_eq!(state(&earlier), EXCEEDED);
    assert_eq!(state(&later), GOING_ON);
    assert_eq!(state(&parent), GOING_ON);

    time::advance(ms(50)).await;
    assert_eq!(state(&later), EXCEEDED);
    assert_eq!(state(&parent), EXCEEDED);
}

#[tokio::test(start_paused = true)]
async fn every_child_has_its_parents_deadline() {
    let parent = Context::background().with_timeout(ms(100));
    let (child, _guard) = parent.with_value(1).with_cancel();
    assert_eq!(child.deadline(), parent.deadline());
    time::advance(ms(100)).await;
    assert_eq!(state(&child), EXCEEDED);
}

#[tokio::test(start_paused = true)]
async fn a_past_or_zero_deadline_gives_a_done_context() {
    let root = Context::background();
    assert_eq!(state(&root.with_timeout(Duration::ZERO)), EXCEEDED);
    assert_eq!(state(&root.with_deadline(Instant::now())), EXCEEDED);
    assert_eq!(state(&root.with_deadline(Instant::now() - ms(1))), EXCEEDED);
    assert_eq!(
        state(&root.with_timeout_cause(Duration::ZERO, "no time")),
        "context deadline exceeded: no time"
    );
    let past = root.with_timeout(Duration::ZERO).with_value("below");
    assert_eq!(state(&past), EXCEEDED);
}

#[tokio::test(start_paused = true)]
async fn a_past_deadline_does_not_hide_the_cancel_of_the_parent() {
    let (parent, guard) = Context::background().with_cancel();
    // With a deadline below it, the parent remembers when it ended.
    let _timed = parent.with_timeout(HOUR);
    let past = Instant::now();
    time::advance(ms(10)).await;
    guard.cancel_with("stop");
    for child in [
        parent.with_deadline_cause(past, "past"),
        parent.with_value("between").with_deadline(past),
    ] {
        assert_eq!(state(&child), "context cancelled: stop");
    }
}

#[tokio::test(start_paused = true)]
async fn a_past_deadline_below_a_live_parent_ends_the_child_alone() {
    let (parent, _guard) = Context::background().with_cancel();
    assert_eq!(state(&parent.with_timeout(Duration::ZERO)), EXCEEDED);
    assert_eq!(state(&parent), GOING_ON);
}

#[tokio::test(start_paused = true)]
async fn the_longest_duration_saturates_and_never_panics() {
    let ctx = Context::background().with_timeout(Duration::MAX);
    let caused = ctx.with_timeout_cause(Duration::MAX, "never");
    let year = 365 * 24 * HOUR;
    for ctx in [&ctx, &caused] {
        assert_eq!(state(ctx), GOING_ON);
        assert!(ctx.remaining().unwrap() > 20 * year);
        assert!(!has_resolved(&mut waiting(ctx)));
    }
    time::advance(year).await;
    assert_eq!(state(&caused), GOING_ON);
}

#[tokio::test(start_paused = true)]
async fn an_instant_that_no_timer_reaches_may_be_waited_for() {
    let millennium = Instant::now() + 1_000 * 365 * 24 * HOUR;
    let (parent, guard) = Context::background().with_cancel();
    let mut done = waiting(&parent.with_deadline(millennium));
    guard.cancel();
    assert!(has_resolved(&mut done));
}

#[tokio::test(start_paused = true)]
async fn deadline_and_remaining_are_there_after_the_deadline() {
    let ctx = Context::background().with_timeout(ms(100));
    let at = ctx.deadline();
    assert_eq!(ctx.remaining(), Some(ms(100)));
    time::advance(ms(30)).await;
    assert_eq!(ctx.remaining(), Some(ms(70)));
    time::advance(ms(200)).await;
    assert_eq!(state(&ctx), EXCEEDED);
    assert_eq!(ctx.remaining(), Some(Duration::ZERO));
    assert_eq!(ctx.deadline(), at);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_there_after_a_cancel_and_no_time_remains() {
    let (parent, guard) = Context::background().with_cancel();
    let ctx = parent.with_timeout(ms(100));
    let at = ctx.deadline();
    guard.cancel();
    assert_eq!(ctx.deadline(), at);
    assert_eq!(ctx.remaining(), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_gives_its_cause_if_it_ends_the_context() {
    let root = Context::background();
    let by_timeout = root.with_timeout_cause(ms(10), "too slow");
    let by_deadline = root.with_deadline_cause(Instant::now() + ms(10), "too slow");
    let below = by_timeout.with_timeout(HOUR).with_value("below");
    assert!(by_timeout.cause().is_none());
    time::advance(ms(10)).await;
    for ctx in [below, by_timeout, by_deadline] {
        assert_eq!(state(&ctx), "context deadline exceeded: too slow");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_gives_no_cause_if_an_earlier_one_passes() {
    let plain = Context::background().with_timeout(ms(10));
    let caused = Context::background().with_timeout_cause(ms(10), "the parent's");
    let contexts = [
        (plain.with_timeout_cause(ms(20), "own"), EXCEEDED),
        (
            plain.with_deadline_cause(Instant::now() + ms(20), "own"),
            EXCEEDED,
        ),
        (
            caused.with_timeout_cause(ms(20), "own"),
            "context deadline exceeded: the parent's",
        ),
    ];
    time::advance(ms(30)).await;
    for (ctx, end) in contexts {
        assert_eq!(state(&ctx), end);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_gives_no_cause_if_the_context_is_cancelled() {
    let (parent, guard) = Context::background().with_cancel();
    let ctx = parent.with_timeout_cause(ms(10), "too slow");
    guard.cancel();
    time::advance(ms(20)).await;
    assert_eq!(state(&ctx), "context cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_child_keeps_the_cause_of_its_own_earlier_deadline() {
    let parent = Context::background().with_timeout_cause(ms(20), "the parent's");
    let child = parent.with_timeout_cause(ms(10), "own");
    let grandchild = child.with_value("below");
    time::advance(ms(30)).await;
    assert_eq!(state(&grandchild), "context deadline exceeded: own");
    assert_eq!(state(&child), "context deadline exceeded: own");
    assert_eq!(state(&parent), "context deadline exceeded: the parent's");
}

/// A context with a deadline in 100 ms, and what is below it.
fn below_a_deadline(parent: &Context) -> Vec<Context> {
    let top = parent.with_timeout_cause(ms(100), "too slow");
    let (cancel, guard) = top.with_cancel();
    guard.disarm();
    let later = cancel.with_timeout_cause(HOUR, "later");
    let merged = later.merge(&Context::background());
    let other = Context::background().merge(&merged);
    vec![top, cancel, later, merged, other]
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passes_for_every_descendant_at_once() {
    for first in 0..5 {
        let tree = below_a_deadline(&Context::background());
        time::advance(ms(100)).await;
        assert_eq!(state(&tree[first]), "context deadline exceeded: too slow");
        for ctx in &tree {
            assert_eq!(state(ctx), "context deadline exceeded: too slow", "{ctx}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_after_the_deadline_changes_nothing_observed_or_not() {
    for observed in [false, true] {
        for waited_on in [false, true] {
            let (above, of_above) = Context::background().with_cancel();
            let tree = below_a_deadline(&above);
            let (own, of_own) = tree[4].with_cancel();
            let waiters: Vec<_> = tree.iter().filter(|_| waited_on).map(waiting).collect();

            time::advance(ms(100)).await;
            if observed {
                assert!(tree.iter().all(Context::is_done));
            }
            of_own.cancel_with("late");
            of_above.cancel_with("late");
            time::advance(ms(100)).await;

            assert_eq!(state(&own), "context deadline exceeded: too slow");
            for ctx in &tree {
                assert_eq!(state(ctx), "context deadline exceeded: too slow", "{ctx}");
            }
            assert_eq!(state(&above), "context cancelled: late");
            drop(waiters);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_before_the_deadline_is_still_one_after_it() {
    for waited_on in [false, true] {
        let (above, guard) = Context::background().with_cancel();
        let tree = below_a_deadline(&above);
        let waiters: Vec<_> = tree.iter().filter(|_| waited_on).map(waiting).collect();
        time::advance(ms(99)).await;
        guard.cancel_with("early");
        time::advance(ms(100)).await;
        for ctx in tree.iter().rev() {
            assert_eq!(state(ctx), "context cancelled: early", "{ctx}");
        }
        drop(waiters);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_between_two_deadlines_cancels_what_is_not_done() {
    let (above, guard) = Context::background().with_cancel();
    let middle = above.with_value("a node in between");
    let early = middle.with_timeout_cause(ms(10), "early");
    let late = middle.with_timeout_cause(ms(30), "late");
    let below_early = early.with_timeout_cause(ms(30), "below");
    time::advance(ms(20)).await;
    guard.cancel_with("stop");
    time::advance(ms(20)).await;
    assert_eq!(state(&below_early), "context deadline exceeded: early");
    assert_eq!(state(&early), "context deadline exceeded: early");
    assert_eq!(state(&late), "context cancelled: stop");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_at_the_instant_of_the_deadline_is_too_late() {
    let (above, guard) = Context::background().with_cancel();
    let below = above.with_timeout(ms(10));
    let (own, of_own) = below.with_cancel();
    time::advance(ms(10)).await;
    guard.cancel();
    of_own.cancel();
    assert_eq!(state(&below), EXCEEDED);
    assert_eq!(state(&own), EXCEEDED);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_deadline_obeys_the_paused_clock() {
    let began = Instant::now();
    let ctx = Context::background().with_timeout_cause(HOUR, "too slow");
    let error = ctx.done().await;
    assert!(error.is_deadline_exceeded());
    assert_eq!(error.cause().unwrap().to_string(), "too slow");
    assert_eq!(Instant::now() - began, HOUR);
}

#[tokio::test(start_paused = true)]
async fn every_waiter_below_a_deadline_is_woken_when_it_passes() {
    let tree = below_a_deadline(&Context::background());
    let mut waiters: Vec<_> = tree.iter().map(waiting).collect();
    time::advance(ms(99)).await;
    assert!(!waiters.iter_mut().any(has_resolved));
    time::advance(ms(1)).await;
    assert!(waiters.iter_mut().all(has_resolved));
}

#[test]
fn a_context_with_a_deadline_needs_no_runtime_until_awaited() {
    let (parent, guard) = Context::background().with_cancel();
    let ctx = parent.with_timeout(HOUR);
    let past = parent.with_timeout_cause(Duration::ZERO, "no time");
    assert_eq!(state(&ctx), GOING_ON);
    assert_eq!(state(&past), "context deadline exceeded: no time");
    assert!(ctx.remaining().unwrap() > ms(1));
    let merged = Context::background().merge(&ctx);
    guard.cancel();
    assert_eq!(state(&ctx), "context cancelled");
    assert_eq!(state(&merged), "context cancelled");
    assert!(tokio_test::task::spawn(ctx.done()).poll().is_ready());
}

#[test]
#[should_panic = "there is no reactor running"]
fn awaiting_a_deadline_outside_a_runtime_panics() {
    let ctx = Context::background().with_timeout(HOUR);
    let _ = tokio_test::task::spawn(ctx.done()).poll();
}

#[test]
fn awaiting_a_context_without_a_deadline_needs_no_runtime() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut done = waiting(&ctx);
    guard.cancel();
    assert!(has_resolved(&mut done));
}
