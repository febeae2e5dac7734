//! Contexts: reading their state, deriving them, and cancelling ten thousand tasks.

use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use errgroup::Context;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::chain::chain;
use crate::table::{Row, Table};
use crate::workload::{Workers, each};

const ASKED: usize = 1_024_000;
const DERIVED: usize = 100_000;
const WAITING: usize = 10_000;
/// So far away that it does not pass.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3600);

/// Rows that need no runtime.
pub(crate) fn rows(table: &mut Table) -> io::Result<()> {
    asking(table)?;
    deriving(table)
}

fn asking(table: &mut Table) -> io::Result<()> {
    let (ctx, _guards) = chain(1);
    let (deep_ctx, _deep_guards) = chain(8);
    let (token, deep_token) = (token_chain(1), token_chain(8));
    let flag = AtomicBool::new(false);

    let load = || asked(&flag, |flag| flag.load(Ordering::Acquire));
    let at_depth_1 = "is_cancelled, depth 1";
    let at_depth_8 = "is_cancelled, depth 8";
    table.pair(
        Row::new("is_done, depth 1", "one Acquire load").at_most(2.0),
        || is_done(&ctx),
        load,
    )?;
    table.pair(
        Row::new("check, depth 1", "one Acquire load").at_most(2.0),
        || check(&ctx),
        load,
    )?;
    table.pair(
        Row::new("is_done, depth 1", at_depth_1).at_most(0.10),
        || is_done(&ctx),
        || is_cancelled(&token),
    )?;
    table.pair(
        Row::new("check, depth 1", at_depth_1).at_most(0.10),
        || check(&ctx),
        || is_cancelled(&token),
    )?;
    table.pair(
        Row::new("is_done, depth 8", at_depth_8).at_most(0.50),
        || is_done(&deep_ctx),
        || is_cancelled(&deep_token),
    )?;
    table.pair(
        Row::new("check, depth 8", at_depth_8).at_most(0.50),
        || check(&deep_ctx),
        || is_cancelled(&deep_token),
    )
}

fn token_chain(depth: usize) -> CancellationToken {
    (1..depth).fold(CancellationToken::new(), |token, _| token.child_token())
}

/// The time of one of many calls, with the loop around it.
///
/// The context passes through a `black_box` once for every 64 calls. Once for each call would cost
/// more than the single load that some calls are. Without it the result would be the same, because
/// a compiler neither merges nor hoists `Acquire` loads, but a reader would have to know that.
///
/// Eight calls are written out. A loop around one call is a few instructions long, and takes three
/// times as long when it happens to cross two cache lines.
fn asked<T>(whom: &T, ask: impl Fn(&T) -> bool) -> f64 {
    const TURNS: usize = 8;
    let start = Instant::now();
    for _ in 0..ASKED / (8 * TURNS) {
        let whom = black_box(whom);
        let mut yes = 0;
        for _ in 0..TURNS {
            yes += usize::from(ask(whom));
            yes += usize::from(ask(whom));
            yes += usize::from(ask(whom));
            yes += usize::from(ask(whom));
            yes += usize::from(ask(whom));
            yes += usize::from(ask(whom));
            yes += usize::from(ask(whom));
            yes += usize::from(ask(whom));
        }
        black_box(yes);
    }
    each(start, ASKED)
}

fn is_done(ctx: &Context) -> f64 {
    asked(ctx, Context::is_done)
}

pub(crate) fn check(ctx: &Context) -> f64 {
    asked(ctx, |ctx| ctx.check().is_err())
}

pub(crate) fn err(ctx: &Context) -> f64 {
    asked(ctx, |ctx| ctx.err().is_some())
}

fn is_cancelled(token: &CancellationToken) -> f64 {
    asked(token, CancellationToken::is_cancelled)
}

fn deriving(table: &mut Table) -> io::Result<()> {
    let (ctx, _guards) = chain(1);
    let token = CancellationToken::new();
    table.pair(
        Row::new("with_cancel + drop", "child_token + drop")
            .at_most(0.60)
            .stretch(0.35),
        || with_cancel(&ctx),
        || child_token(&token),
    )?;
    table.pair(
        Row::new(
            "with_cancel, guard dropped first",
            "child_token + drop_guard",
        ),
        || with_guard(&ctx),
        || with_drop_guard(&token),
    )?;
    table.pair(
        Row::new("with_timeout + drop", "child_token + drop")
            .at_most(1.15)
            .stretch(0.90),
        || with_timeout(&ctx),
        || child_token(&token),
    )?;

    // The unavoidable cost of a context with a deadline: reading the clock, and an allocation.
    table.pair(
        Row::new(
            "floor: a look at the clock, a Box of 192 B",
            "child_token + drop",
        ),
        clock_and_box,
        || child_token(&token),
    )?;

    let alone = "ours, one thread";
    table.pair(
        Row::new("with_cancel + drop, two threads", alone).at_most(2.0),
        || on_threads([&ctx, &ctx], with_cancel),
        || on_threads([&ctx], with_cancel),
    )?;
    table.pair(
        Row::new("with_timeout + drop, two threads", alone).at_most(2.0),
        || on_threads([&ctx, &ctx], with_timeout),
        || on_threads([&ctx], with_timeout),
    )?;

    // The unavoidable cost of holding the parent with a reference count.
    let shared = Arc::new(());
    table.pair(
        Row::new(
            "floor: Arc, clone + drop, two threads",
            "the same, one thread",
        ),
        || on_threads([&shared, &shared], arc),
        || on_threads([&shared], arc),
    )?;

    // The cost of a second thread that shares nothing: the part of the rows above that is due to
    // the machine.
    let (other, _other_guards) = chain(1);
    table.pair(
        Row::new("with_cancel + drop, a parent for each", alone),
        || on_threads([&ctx, &other], with_cancel),
        || on_threads([&ctx], with_cancel),
    )?;
    table.pair(
        Row::new("child_token + drop, two threads", "the same, one thread"),
        || on_threads([&token, &token], child_token),
        || on_threads([&token], child_token),
    )
}

pub(crate) fn with_cancel(parent: &Context) -> f64 {
    let start = Instant::now();
    for _ in 0..DERIVED {
        drop(black_box(parent.with_cancel()));
    }
    each(start, DERIVED)
}

/// As with `let (ctx, _guard)`: the guard cancels a context that still exists.
fn with_guard(parent: &Context) -> f64 {
    let start = Instant::now();
    for _ in 0..DERIVED {
        let (ctx, _guard) = parent.with_cancel();
        black_box(&ctx);
    }
    each(start, DERIVED)
}

fn with_drop_guard(parent: &CancellationToken) -> f64 {
    let start = Instant::now();
    for _ in 0..DERIVED {
        let token = parent.child_token();
        let _guard = token.clone().drop_guard();
        black_box(&token);
    }
    each(start, DERIVED)
}

pub(crate) fn with_timeout(parent: &Context) -> f64 {
    let start = Instant::now();
    for _ in 0..DERIVED {
        drop(black_box(parent.with_timeout(TIMEOUT)));
    }
    each(start, DERIVED)
}

fn clock_and_box() -> f64 {
    let start = Instant::now();
    for _ in 0..DERIVED {
        drop(black_box((
            tokio::time::Instant::now(),
            Box::new([0_u64; 24]),
        )));
    }
    each(start, DERIVED)
}

fn arc(shared: &Arc<()>) -> f64 {
    let start = Instant::now();
    for _ in 0..DERIVED {
        drop(black_box(shared.clone()));
    }
    each(start, DERIVED)
}

fn child_token(parent: &CancellationToken) -> f64 {
    let start = Instant::now();
    for _ in 0..DERIVED {
        drop(black_box(parent.child_token()));
    }
    each(start, DERIVED)
}

/// The time of the work on threads that begin together, with a parent for each: the mean of their
/// times.
fn on_threads<P: Sync, const N: usize>(parents: [&P; N], work: fn(&P) -> f64) -> f64 {
    let here = AtomicUsize::new(0);
    let threads = parents.map(|parent| {
        let here = &here;
        move || {
            here.fetch_add(1, Ordering::SeqCst);
            while here.load(Ordering::SeqCst) < N {
                std::hint::spin_loop();
            }
            work(parent)
        }
    });
    let sum: f64 = thread::scope(|scope| {
        let threads = threads.map(|thread| scope.spawn(thread));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(f64::NAN))
            .sum()
    });
    sum / N as f64
}

/// Rows that need a runtime: ten thousand tasks that wait.
pub(crate) fn cancel_rows(table: &mut Table, workers: &Workers) -> io::Result<()> {
    table.pair(
        Row::new("cancel, 10,000 tasks await done()", "cancelled()")
            .at_most(1.00)
            .stretch(0.80),
        || workers.run(cancel(false)),
        || workers.run(cancel_token(false)),
    )?;
    table.pair(
        Row::new("the same, a child for each task", "a child token for each"),
        || workers.run(cancel(true)),
        || workers.run(cancel_token(true)),
    )
}

/// The tasks that wait, and those that have ended.
#[derive(Default)]
struct Census {
    waiting: AtomicUsize,
    ended: AtomicUsize,
    all_ended: Notify,
}

impl Census {
    fn enter(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self) {
        if self.ended.fetch_add(1, Ordering::AcqRel) + 1 == WAITING {
            self.all_ended.notify_one();
        }
    }

    async fn until_all_wait(&self) {
        while self.waiting.load(Ordering::Relaxed) < WAITING {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until_all_have_ended(&self) {
        self.all_ended.notified().await;
    }
}

/// From `cancel()` until the last has ended, in nanoseconds a task.
async fn cancel(child_for_each: bool) -> f64 {
    let (ctx, guard) = Context::background().with_cancel();
    let census = Arc::new(Census::default());
    for _ in 0..WAITING {
        let census = census.clone();
        let (ctx, of_child) = match child_for_each {
            true => {
                let (child, guard) = ctx.with_cancel();
                (child, Some(guard))
            }
            false => (ctx.clone(), None),
        };
        tokio::spawn(async move {
            let mut done = pin!(ctx.done());
            assert!(futures::poll!(&mut done).is_pending());
            census.enter();
            done.await;
            drop(of_child);
            census.leave();
        });
    }
    census.until_all_wait().await;

    let start = Instant::now();
    guard.cancel();
    census.until_all_have_ended().await;
    each(start, WAITING)
}

async fn cancel_token(child_for_each: bool) -> f64 {
    let token = CancellationToken::new();
    let census = Arc::new(Census::default());
    for _ in 0..WAITING {
        let census = census.clone();
        let token = match child_for_each {
            true => token.child_token(),
            false => token.clone(),
        };
        tokio::spawn(async move {
            let mut cancelled = pin!(token.cancelled());
            assert!(futures::poll!(&mut cancelled).is_pending());
            census.enter();
            cancelled.await;
            census.leave();
        });
    }
    census.until_all_wait().await;

    let start = Instant::now();
    token.cancel();
    census.until_all_have_ended().await;
    each(start, WAITING)
}
