//! Structured concurrency for tokio: what Go's `errgroup` and `context` are to Go, and what they cannot be.
//!
//! Programs fan work out, and then have to answer: who waits for the tasks, who stops them when one fails, which error
//! comes back, what bounds them, what happens when the caller has gone. A [`Group`] and a [`Context`] are that answer.
//!
//! # The first program
//!
//! *Coming from Go:* it is the one that you know. The guard that a cancellable context comes with is its `defer cancel()`.
//!
//! ```
//! use errgroup::{Context, Group};
//! # use std::time::Duration;
//! # async fn fetch(url: &str) -> anyhow::Result<String> { tokio::time::sleep(Duration::from_millis(5)).await; Ok(url.to_owned()) }
//! # async fn store(_: String) -> anyhow::Result<()> { Ok(()) }
//!
//! async fn fetch_all_pages(parent: &Context, urls: Vec<&'static str>) -> anyhow::Result<()> {
//!     let (g, ctx) = Group::with_context(parent);
//!     g.set_limit(8);
//!     for url in urls {
//!         let ctx = ctx.clone();
//!         // .await: wait for a free permit, as Go's Go blocks
//!         g.go(async move { store(ctx.run(fetch(url)).await??).await }).await;
//!     }
//!     g.wait().await // the first error; by then every task has ended
//! }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() { fetch_all_pages(&Context::background(), vec!["a"; 20]).await.unwrap(); }
//! ```
//!
//! *Coming from tokio:* where a `JoinSet`, a `Semaphore`, a `CancellationToken` and a loop around `join_next` stood, one call
//! does it, and gives the results in order.
//!
//! ```
//! use errgroup::{Context, fetch_all};
//! use std::time::Duration;
//!
//! # async fn fetch(url: &str) -> anyhow::Result<String> { Ok(url.to_owned()) }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> anyhow::Result<()> {
//! # let urls = vec!["a", "b"];
//! let ctx = Context::background().with_timeout(Duration::from_secs(2));
//! let pages = fetch_all(&ctx, 8, urls, |_ctx, url| async move { fetch(url).await }).await?;
//! # assert_eq!(pages, ["a", "b"]);
//! # Ok(()) }
//! ```
//!
//! # At a glance
//!
//! | if you want | use |
//! |---|---|
//! | tasks that stop together at the first error | [`Group::with_context`], [`go`](Group::go) |
//! | the same, but a failure stops nobody | [`Group::new`] |
//! | an early `?` that leaves nothing behind | [`Group::scope`] |
//! | at most *n* at once | [`set_limit`](Group::set_limit); `g.go(..).await` for backpressure |
//! | to start only if there is a permit now | [`try_go`](Group::try_go) |
//! | another way to start a task | [Which one do I want](Group#which-one-do-i-want) |
//! | a bound on how long winding down may take | [`set_grace`](Group::set_grace) |
//! | every failure, with names and call sites | [`named`](Group::named), [`wait_all`](Group::wait_all) |
//! | one function over many items, results in order | [`fetch_all`] |
//! | the same, with other ends: each result, as they come, the first, *k* of *n* | [`fan_out()`] and [its table](mod@fan_out) |
//! | to ask again where an answer is slow | [`hedge`] |
//! | a pipeline of bounded stages | [`fan_out_stream`] |
//! | items that borrow or are not `Send` | [`FanOut::local`] |
//! | tasks that start tasks | [`Spawner`] |
//! | a call with a deadline | [`with_timeout`](Context::with_timeout), [`run`](Context::run) |
//! | a loop that stops when nobody waits any more | [`check`](Context::check) |
//! | to stop something by hand, and say why | [`with_cancel`](Context::with_cancel), [`cancel_with`](CancelGuard::cancel_with) |
//! | what belongs to a request, in every call below it | [`with_value`](Context::with_value) |
//! | clean-up that must finish | [`without_cancel`](Context::without_cancel) |
//! | to interrupt what cannot be dropped | [`after_func`](Context::after_func) |
//! | work that either of two may stop | [`merge`](Context::merge) |
//! | to stop on SIGTERM | `with_shutdown_signals`, feature `signal` |
//! | to call a crate that takes a token | `to_cancellation_token`, feature `tokio-util` |
//! | a context for each request of a server; a deadline that travels | `tower`, feature `tower` |
//!
//! # The rules
//!
//! 1. Go's word keeps Go's meaning; for what Go lacks, tokio's word.
//! 2. No task outlives its group: [`wait`](Group::wait) returns only when all have ended, and dropping a group cancels and aborts
//!    them.
//! 3. Nothing is lost. Every task ends in exactly one way that somebody learns of, a cancellation never hides the error that
//!    caused it, and a panic is never swallowed.
//! 4. Polite first: cancelling asks. Only what was told that it may be is dropped.
//! 5. Waiting is static: a method either never waits, or is awaited.
//! 6. It costs nothing to hold: no task and no timer a context, no memory a finished task, no unsafe code.
//!
//! # Panics, in general
//!
//! *Who sees a panic of a task?* Whoever waits: it is resumed there with its payload. *Which one wins, of several?* The first,
//! and it wins over errors. *Do the siblings run on?* They are asked to stop at the instant of the panic (in a [`Group::new`], they
//! run on). *When does the call that resumes it return?* When every task has ended. With `panic = "abort"` the process ends
//! first, and nothing here minds.
//!
//! # Features
//!
//! All are off by default and only add.
//!
//! - `signal`: contexts that end on signals to the process.
//! - `tokio-util`: to and from `CancellationToken`.
//! - `tower`: a context for each request, on servers; its deadline, on clients. For hyper, axum, tonic, reqwest.
//! - `axum`: that context as an extractor; with `tower`.
//! - `tracing`: a span for each task and each item, and events for what stops one. A task's span is
//!   inside the span in which its *group* was made, and follows from the span in which the task was
//!   started; so a long task does not keep the span of a request open. An item's span is inside the
//!   span in which the fan-out was made. The iterator or stream of a fan-out, its functions, and
//!   the function of [`after_func`](Context::after_func) run in the span of their caller.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

/// Under the model checker, tokio's names are those of a shim over its executor.
#[cfg(errgroup_shuttle)]
extern crate self as tokio;
#[cfg(errgroup_shuttle)]
extern crate tokio as tokio_itself;
#[cfg(errgroup_shuttle)]
use sync::shuttle::{runtime, spawn, task, time};

mod context;
pub mod fan_out;
mod group;
mod panic;
mod scheduler;
mod sync;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;
mod tracing;

pub use context::{
    AfterFunc, AfterFuncGuard, CancelGuard, CancelHandle, Cause, Context, ContextError, Done,
    DoneOwned, Run,
};
pub use fan_out::{FanOut, Progress, fan_out, fan_out_stream, fetch_all, hedge};
pub use group::{Admission, Admitted, Group, Named, Ready, Spawner, TaskHandle, TryGoError};
pub use scheduler::error::{Errors, Panic, TaskError, TaskErrorKind};

/// The code of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The code of the guide, which is on servers.
#[cfg(all(doctest, feature = "axum", feature = "signal"))]
#[doc = include_str!("../docs/GUIDE.md")]
struct Guide;
