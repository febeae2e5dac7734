//! The memory that contexts cost. It is counted per thread, so the tests may run side by side.

use std::future::{pending, ready};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use allocation_counter::{AllocationInfo, measure};
use errgroup::{CancelGuard, Cause, Context};
use futures::FutureExt;
use tokio::runtime::Builder;

const HOUR: Duration = Duration::from_secs(3600);
const MANY: usize = 100_000;

/// What `f` allocates, and what is left of it when its result has been dropped.
fn cost<T>(f: impl FnOnce() -> T) -> AllocationInfo {
    measure(|| drop(f()))
}

/// How many allocations `f` makes.
fn allocations<T>(f: impl FnOnce() -> T) -> u64 {
    cost(f).count_total
}

/// The bytes that are there after `f` and were not there before.
fn bytes_kept(f: impl FnOnce()) -> i64 {
    measure(f).bytes_current
}

/// A context that has been waited on, and so is linked to its parent.
fn linked(ctx: Context) -> Context {
    assert!(ctx.done().now_or_never().is_none());
    ctx
}

/// A parent that has had a child before, so that what is allocated once is there.
fn parent() -> (Context, CancelGuard) {
    let (parent, guard) = Context::background().with_cancel();
    linked(parent.with_value(()));
    (linked(parent), guard)
}

#[test]
fn the_roots_are_allocated_once() {
    let _ = (Context::background(), Context::todo());
    assert_eq!(allocations(Context::background), 0);
    assert_eq!(allocations(Context::todo), 0);
    assert_eq!(allocations(Context::default), 0);
}

#[test]
fn a_clone_allocates_nothing() {
    let (ctx, guard) = parent();
    assert_eq!(allocations(|| ctx.clone()), 0);
    assert_eq!(allocations(|| guard.handle()), 0);
}

#[test]
fn deriving_with_cancel_is_one_allocation() {
    let (parent, _guard) = parent();
    assert_eq!(allocations(|| Context::background().with_cancel()), 1);
    assert_eq!(allocations(|| parent.with_cancel()), 1);
    assert_eq!(allocations(|| parent.with_cancel().1.disarm()), 1);
}

#[test]
fn deriving_with_a_deadline_is_one_allocation() {
    let (parent, _guard) = parent();
    assert_eq!(allocations(|| Context::background().with_timeout(HOUR)), 1);
    let first = parent.with_timeout(HOUR);
    assert_eq!(allocations(|| parent.with_timeout(HOUR)), 1);
    assert_eq!(allocations(|| first.with_timeout(2 * HOUR)), 1);
    assert_eq!(allocations(|| first.with_timeout(HOUR / 2)), 1);
}

#[test]
fn deriving_without_cancel_is_one_allocation() {
    let (parent, _guard) = parent();
    assert_eq!(allocations(|| parent.without_cancel()), 1);
}

#[test]
fn deriving_is_one_allocation_beside_the_value_or_the_cause() {
    let (parent, _guard) = parent();
    // What a parent needs once for children with deadlines.
    drop(parent.with_timeout(HOUR));
    let cause = allocations(|| Cause::from("slow"));
    assert_eq!(allocations(|| parent.with_value(())), 1);
    assert_eq!(allocations(|| parent.with_value(7_u64)), 2);
    assert_eq!(
        allocations(|| parent.with_deadline(Instant::now() + HOUR)),
        1
    );
    let with_cause = || parent.with_timeout_cause(HOUR, "slow");
    assert!(allocations(with_cause) <= 1 + cause);
    let with_cause = || parent.with_deadline_cause(Instant::now() + HOUR, "slow");
    assert!(allocations(with_cause) <= 1 + cause);
}

#[test]
fn merging_is_at_most_four_allocations() {
    let ((ctx, _guard), (other, _of_other)) = (parent(), parent());
    drop(ctx.merge(&other));
    assert!(allocations(|| ctx.merge(&other)) <= 4);
}

#[test]
fn the_first_wait_on_a_child_is_two_allocations_a_timer_one() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let (parent, _guard) = parent();
    assert!(allocations(|| linked(parent.with_value(()))) <= 1 + 2);
    linked(parent.with_timeout(HOUR));
    assert!(allocations(|| linked(parent.with_timeout(HOUR))) <= 1 + 2 + 1);
}

#[test]
fn run_and_sleep_allocate_nothing_on_a_linked_context() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let (ctx, _guard) = parent();
    assert_eq!(allocations(|| ctx.run(ready(())).now_or_never()), 0);
    assert_eq!(allocations(|| ctx.run(pending::<()>()).now_or_never()), 0);
    // The first use of the runtime's timer.
    assert!(ctx.sleep(HOUR).now_or_never().is_none());
    assert_eq!(allocations(|| ctx.sleep(HOUR).now_or_never()), 0);
    assert_eq!(allocations(|| ctx.done_owned().now_or_never()), 0);
}

#[test]
fn an_after_func_is_at_most_two_allocations_a_stop_none() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    let (ctx, _guard) = parent();
    assert!(ctx.after_func(|| ()).stop());
    let mut func = None;
    assert!(measure(|| func = Some(ctx.after_func(|| ()))).count_total <= 2);
    assert_eq!(allocations(|| assert!(func.unwrap().stop())), 0);
}

#[test]
fn ending_with_a_cause_allocates_the_cause() {
    let cause = allocations(|| Cause::from("stop"));
    assert!(cause <= 3, "{cause}");
    let (_ctx, guard) = Context::background().with_cancel();
    assert_eq!(allocations(|| guard.cancel_with("stop")), cause);
    let (_ctx, guard) = Context::background().with_cancel();
    let cause = Cause::from("stop");
    assert_eq!(allocations(|| guard.handle().cancel_with(cause)), 0);
}

#[cfg(feature = "tokio-util")]
#[test]
fn a_token_and_a_context_from_a_token_are_four_allocations_each() {
    let (ctx, _guard) = parent();
    drop(ctx.to_cancellation_token());
    let made = allocations(|| ctx.to_cancellation_token());
    assert!(made <= 4, "{made}");
    let token = tokio_util::sync::CancellationToken::new();
    let made = allocations(|| Context::from_cancellation_token(token.clone()));
    assert!(made <= 4, "{made}");
}

#[test]
fn queries_allocate_nothing() {
    let (parent, _guard) = parent();
    let ctx = parent
        .with_timeout(HOUR)
        .with_value(7_u32)
        .with_value("leaf");
    let asked = allocations(|| {
        assert!(!ctx.is_done());
        assert!(ctx.check().is_ok());
        assert!(ctx.err().is_none());
        assert!(ctx.cause().is_none());
        assert!(ctx.remaining() > ctx.deadline().map(|_| Duration::ZERO));
        assert_eq!(ctx.value(), Some(&7_u32));
    });
    assert_eq!(asked, 0);
}

#[test]
fn cancelling_a_context_without_listeners_allocates_nothing() {
    let (ctx, guard) = Context::background().with_cancel();
    assert_eq!(allocations(|| drop(guard)), 0);
    assert_eq!(allocations(|| (ctx.is_done(), ctx.err(), ctx.cause())), 0);
    let (_ctx, guard) = Context::background().with_cancel();
    assert_eq!(allocations(|| guard.cancel()), 0);
}

#[test]
fn a_literal_as_a_cause_is_shared_by_all_queries() {
    let (parent, guard) = parent();
    let child = parent.with_value("below");
    guard.cancel_with("stop");
    assert!(child.is_done());
    assert_eq!(allocations(|| (child.err(), child.cause())), 0);
}

#[test]
fn waiting_again_allocates_nothing() {
    let (ctx, _guard) = parent();
    assert_eq!(allocations(|| ctx.done().now_or_never()), 0);
}

#[test]
fn a_dropped_child_leaves_nothing() {
    let ((parent, _guard), (other, _of_other)) = (parent(), parent());
    let children = bytes_kept(|| {
        for _ in 0..1_000 {
            drop(parent.with_cancel());
            drop(parent.with_timeout(HOUR));
            drop(parent.with_value("child").with_value("grandchild"));
            drop(parent.without_cancel());
            drop(parent.merge(&other));
            linked(parent.with_value("child").with_value("grandchild"));
        }
    });
    assert_eq!(children, 0);
}

#[test]
fn a_million_children_linked_and_unlinked_leave_nothing() {
    let (parent, _guard) = parent();
    let children = bytes_kept(|| {
        for _ in 0..1_000_000 {
            linked(parent.with_value(()));
        }
    });
    assert_eq!(children, 0);
}

#[test]
fn children_that_are_queried_often_leave_nothing() {
    let (parent, _guard) = parent();
    let children = bytes_kept(|| {
        for _ in 0..10_000 {
            let child = parent.with_value(());
            assert!((0..100).all(|_| !child.is_done()));
        }
    });
    assert_eq!(children, 0);
}

#[test]
fn a_parent_frees_the_memory_of_many_children_at_once() {
    let (parent, _guard) = Context::background().with_cancel();
    let children = bytes_kept(|| {
        drop(
            (0..MANY)
                .map(|_| linked(parent.with_value(())))
                .collect::<Vec<_>>(),
        );
    });
    assert_eq!(children, 0);
}

#[test]
fn a_cancelled_child_is_unlinked_though_it_is_still_held() {
    let (parent, _guard) = parent();
    let mut held = Vec::with_capacity(MANY);
    let mut hold_a_cancelled_child = || {
        let (child, guard) = parent.with_cancel();
        let child = linked(child);
        guard.cancel();
        held.push((child, guard));
    };
    let one = bytes_kept(&mut hold_a_cancelled_child);
    let many = bytes_kept(|| (1..MANY).for_each(|_| hold_a_cancelled_child()));
    assert_eq!(many, one * (MANY as i64 - 1));
}

#[test]
fn a_parent_reuses_the_entry_of_a_dropped_child() {
    let (parent, _guard) = parent();
    let lasting: Vec<_> = (0..100).map(|_| linked(parent.with_value(()))).collect();
    let children = bytes_kept(|| {
        for _ in 0..MANY {
            linked(parent.with_value(()));
        }
    });
    // Room for one more than there were before: the list may have grown once.
    let more = bytes_kept(|| {
        for _ in 0..MANY {
            linked(parent.with_value(()));
        }
    });
    assert!(children < 8 * 1024, "{children}");
    assert_eq!(more, 0);
    drop(lasting);
}

#[test]
fn a_dropped_done_leaves_nothing() {
    let (ctx, _guard) = parent();
    let waits = bytes_kept(|| {
        for _ in 0..MANY {
            assert!(ctx.done().now_or_never().is_none());
        }
    });
    assert_eq!(waits, 0);
}

#[test]
fn a_done_that_is_polled_again_takes_no_second_entry() {
    let (ctx, _guard) = parent();
    let mut done = ctx.done_owned();
    let mut poll = |waker: &Waker| {
        assert!(
            done.poll_unpin(&mut std::task::Context::from_waker(waker))
                .is_pending()
        );
    };
    poll(Waker::noop());
    let polls = bytes_kept(|| (0..MANY).for_each(|_| poll(Waker::noop())));
    assert_eq!(polls, 0);
}

#[test]
fn two_first_waits_at_once_leave_nothing_after_the_drop() {
    let (parent, _guard) = Context::background().with_cancel();
    let mut children: Vec<_> = (0..50_000).map(|_| OnceLock::new()).collect();
    let arrived = AtomicUsize::new(0);
    let wait_on_each = || {
        for (round, child) in children.iter().enumerate() {
            let child = child.get_or_init(|| parent.with_value(()));
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 2 * (round + 1) {
                thread::yield_now();
            }
            linked(child.clone());
        }
    };
    // What one thread allocates the other may free: it is their sum that counts.
    let kept = thread::scope(|scope| {
        let other = scope.spawn(|| bytes_kept(wait_on_each));
        bytes_kept(wait_on_each) + other.join().unwrap()
    });
    let freed = bytes_kept(|| children.iter_mut().for_each(|child| drop(child.take())));
    assert_eq!(kept + freed, 0);
}

#[test]
fn a_million_merges_leave_nothing_at_either_side() {
    let ((ctx, _guard), (other, _of_other)) = (parent(), parent());
    let merged = bytes_kept(|| {
        for _ in 0..1_000_000 {
            drop(ctx.merge(&other));
        }
    });
    assert_eq!(merged, 0);
}

#[test]
fn merging_with_a_root_leaves_nothing_at_the_root() {
    let ((ctx, _guard), root) = (parent(), Context::todo());
    assert_eq!(bytes_kept(|| drop(ctx.merge(&root))), 0);
}

#[test]
fn a_tree_that_was_waited_on_and_cancelled_leaves_nothing() {
    let tree = bytes_kept(|| {
        let (top, guard) = Context::background().with_cancel();
        let mut ctx = top.clone();
        let tree: Vec<_> = (0..1_000)
            .map(|depth| {
                ctx = ctx.with_value(depth);
                linked(ctx.with_value("side").merge(&top))
            })
            .collect();
        guard.cancel_with("stop");
        assert!(tree.iter().all(Context::is_done));
    });
    assert_eq!(tree, 0);
}

#[cfg(feature = "tokio-util")]
#[test]
fn a_token_keeps_no_context_that_was_made_from_it() {
    let token = tokio_util::sync::CancellationToken::new();
    let contexts = bytes_kept(|| {
        for _ in 0..1_000 {
            drop(linked(Context::from_cancellation_token(token.clone())));
        }
    });
    assert_eq!(contexts, 0);
}

#[cfg(feature = "tokio-util")]
#[test]
fn a_context_keeps_no_token_that_was_made_from_it() {
    let (ctx, _guard) = parent();
    drop(ctx.to_cancellation_token());
    let tokens = bytes_kept(|| {
        for _ in 0..1_000 {
            drop(ctx.to_cancellation_token());
            drop(ctx.with_value("child").to_cancellation_token());
        }
    });
    assert_eq!(tokens, 0);
}

#[test]
fn a_cancelled_parent_keeps_no_list_of_its_children() {
    let (parent, guard) = Context::background().with_cancel();
    let children: Vec<_> = (0..MANY).map(|_| linked(parent.with_value(()))).collect();
    let cancelled = bytes_kept(|| guard.cancel());
    assert!(cancelled < -(MANY as i64), "{cancelled}");
    drop(children);
}
