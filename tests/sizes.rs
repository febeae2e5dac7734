//! Sizes of public types and futures. A program pays for the size of each value that it holds, and
//! every task that awaits a future pays for that.
//!
//! The rule: a budget is the size of the type in bytes when it was written down, and not one byte
//! more. A commit that grows a type raises its budget, and its message says why. A commit that
//! shrinks a type lowers its budget. An `async` block has two words to spare, because compilers lay
//! it out differently. The user's own parts, a future or an error, are counted apart.
//!
//! The budgets are those without feature `inspect`, with which each task has an entry in a table.

#![cfg(not(feature = "inspect"))]
#![cfg(target_pointer_width = "64")]

use std::ops::Range;
use std::time::Duration;

use errgroup::fan_out::Items;
use errgroup::{
    Admission, Admitted, AfterFunc, AfterFuncGuard, CancelGuard, CancelHandle, Cause, Context,
    ContextError, Done, DoneOwned, Errors, FanOut, Group, Panic, Progress, Ready, Run, Spawner,
    TaskBuilder, TaskError, TaskErrorKind, TaskHandle, TryGoError, fan_out, fetch_all, hedge,
};
use futures::future::LocalBoxFuture;
use tokio::time::Sleep;

type G = Group<String>;

/// The allowance for the layout by different compilers.
const SPARE: usize = 16;

/// The span in which a fan-out was made, which its items are in.
const SPAN: usize = if cfg!(feature = "tracing") { 8 } else { 0 };

/// A large value of the user, which must not be stored twice.
const BIG: usize = 1024;
type Big = [u8; BIG];

/// Fails, and lists every budget that is exceeded.
#[track_caller]
fn check(sizes: &[(&str, usize, usize)]) {
    let over: Vec<_> = sizes
        .iter()
        .filter(|(_, size, budget)| size > budget)
        .map(|(what, size, budget)| format!("{what}: {size} bytes, budget {budget}"))
        .collect();
    assert!(over.is_empty(), "{over:#?}");
}

macro_rules! types {
    ($($of:ty => $budget:expr),+ $(,)?) => {
        check(&[$((stringify!($of), size_of::<$of>(), $budget)),+])
    };
}

macro_rules! values {
    ($($of:expr => $budget:expr),+ $(,)?) => {
        check(&[$((stringify!($of), size_of_val(&$of), $budget)),+])
    };
}

async fn item(_: Context, item: usize) -> Result<usize, String> {
    Ok(item)
}

async fn big_item(_: Context, item: Big) -> Result<Big, String> {
    tokio::task::yield_now().await;
    Ok(item)
}

#[test]
fn a_context_and_what_ends_it_are_one_pointer_and_so_is_none() {
    types! {
        Context => 8,
        Option<Context> => 8,
        CancelGuard => 8,
        CancelHandle => 8,
        Option<CancelHandle> => 8,
    }
}

#[test]
fn a_group_is_one_pointer_and_a_spawner_two() {
    types! { G => 8, Spawner<String> => 16, Ready<Big> => 8 }
}

#[test]
fn admissions_and_handles_are_small_whatever_the_task_is() {
    types! {
        Admission => 48,
        Admitted => 1,
        TaskHandle<Big> => 72,
        TaskBuilder<String> => 64,
        TryGoError<Big> => BIG + 1,
    }
}

#[test]
fn an_error_is_small_enough_to_return() {
    types! {
        Cause => 16,
        ContextError => 32,
        Result<(), ContextError> => 32,
        Errors<Big> => 32,
        Panic => 48,
        TaskErrorKind<()> => 48,
        TaskErrorKind<Big> => BIG + 8,
        TaskError<()> => 104,
        TaskError<Big> => BIG + 64,
    }
}

#[test]
fn a_future_that_waits_for_a_context_is_four_words() {
    types! { Done<'_> => 32, DoneOwned => 32, AfterFunc => 16, AfterFuncGuard => 16 }
}

#[test]
fn run_adds_five_words_to_its_future() {
    let ctx = Context::background();
    let pending = async || std::future::pending::<()>().await;
    check(&[
        ("of bytes", size_of::<Run<'_, Big>>(), BIG + 40),
        (
            "of a block",
            size_of_val(&ctx.run(pending())),
            size_of_val(&pending()) + 40,
        ),
    ]);
}

#[test]
fn sleep_adds_nine_words_to_that_of_tokio() {
    values! { Context::background().sleep(Duration::ZERO) => size_of::<Sleep>() + 72 + SPARE }
}

#[test]
fn a_wait_is_nine_words() {
    values! { G::new().wait() => 72 + SPARE, G::new().wait_all() => 72 + SPARE }
}

#[test]
fn start_holds_neither_its_closure_nor_its_task() {
    let (g, big) = (G::new(), [0_u8; BIG]);
    values! {
        g.start(|_, ready| async move {
            ready.ok(());
            Ok(())
        }) => 208 + SPARE,
        g.start(|_, _: Ready<Big>| async { Ok(()) }) => 208 + SPARE,
        g.start(move |_, ready| async move {
            ready.ok(big);
            Ok(())
        }) => 208 + SPARE,
        g.named("task").start(|_, _: Ready<()>| async { Ok(()) }) => 208 + SPARE,
        g.spawner().start(|_, _: Ready<()>| async { Ok(()) }) => 208 + SPARE,
    }
}

#[test]
fn a_scope_adds_26_words_to_its_body_and_the_future_of_it() {
    fn scope<F: AsyncFnOnce(&G, Context) -> Result<(), String>>(body: F) -> usize {
        size_of_val(&G::scope(&Context::background(), body))
    }
    let big = [0_u8; BIG];
    // Behind a box, what the body takes is a pointer, and so is its future.
    let boxed =
        |_: &G, _| -> LocalBoxFuture<'static, Result<(), String>> { Box::pin(async { Ok(()) }) };
    check(&[
        ("a body of nothing", scope(async |_, _| Ok(())), 208 + SPARE),
        ("a boxed body", scope(boxed), 208 + SPARE),
        (
            "a big body",
            scope(async move |_, _| {
                std::hint::black_box(&big);
                Ok(())
            }),
            2 * BIG + 128 + SPARE,
        ),
    ]);
}

#[test]
fn a_fan_out_is_its_items_and_its_function_and_eleven_words() {
    types! {
        FanOut<(), ()> => 88 + SPAN,
        FanOut<Big, Big> => 2 * BIG + 88 + SPAN,
        FanOut<Items<Range<usize>>, ()> => size_of::<Range<usize>>() + 88 + SPAN,
        Items<Big> => BIG,
        Progress => 48,
    }
}

#[test]
fn the_ends_are_six_words_and_the_streams_seven() {
    let ctx = Context::background();
    let over = || fan_out(&ctx, 0..3, item);
    values! {
        fetch_all(&ctx, 2, 0..3, item) => 48,
        over().all() => 48,
        over().for_each() => 48,
        over().settle() => 48,
        over().try_stream() => 56,
        over().stream() => 56,
        over().ordered_stream() => 56,
        over().first_ok() => 48,
        over().quorum(2) => 48,
        hedge(&ctx, Duration::ZERO, 2, item) => 48,
    }
}

#[test]
fn the_ends_on_the_callers_own_task_are_at_most_56_words() {
    let ctx = Context::background();
    let over = || fan_out(&ctx, 0..3, item).local();
    values! {
        over().all() => 416 + SPAN,
        over().for_each() => 392 + SPAN,
        over().settle() => 416 + SPAN,
        over().try_stream() => 432 + SPAN,
        over().stream() => 432 + SPAN,
        over().ordered_stream() => 448 + SPAN,
        over().first_ok() => 424 + SPAN,
        over().quorum(2) => 424 + SPAN,
    }
}

#[test]
fn no_end_holds_items_or_futures_or_functions_in_itself() {
    let (ctx, big) = (Context::background(), [0_u8; BIG]);
    let over = || {
        let function = move |ctx, item| {
            std::hint::black_box(&big);
            big_item(ctx, item)
        };
        fan_out(&ctx, [big; 4], function)
    };
    let report = move |_| {
        std::hint::black_box(&big);
    };
    values! {
        fetch_all(&ctx, 2, [big; 4], big_item) => 48,
        over().on_progress(report).all() => 48,
        over().on_progress(report).ordered_stream() => 56,
        over().on_progress(report).quorum(2) => 48,
        over().on_progress(report).local().all() => 416 + SPAN,
        over().on_progress(report).local().ordered_stream() => 448 + SPAN,
        over().on_progress(report).local().quorum(2) => 424 + SPAN,
        hedge(&ctx, Duration::ZERO, 2, move |ctx, _| big_item(ctx, big)) => 48,
    }
}
