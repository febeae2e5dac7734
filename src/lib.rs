//! Structured concurrency for tokio: task groups, cancellation contexts and bounded fan-outs,
//! modelled on Go's `errgroup` and `context`.
//!
//! A program that starts concurrent tasks has to decide which code waits for them, which error is
//! returned, how the other tasks are cancelled after an error, how many tasks run at once, and what
//! happens when the caller does not need the result any more. A [`Group`] runs tasks and takes
//! these decisions. A [`Context`] carries cancellation with its cause, a deadline and
//! request-scoped values to everything that is called below it.
//!
//! # A first program
//!
//! *Coming from Go:* this is the program that you know. A context that can be cancelled comes with
//! a guard. The guard cancels the context when it is dropped, as `defer cancel()` does.
//!
//! ```
//! use errgroup::{Context, Group};
//! # use std::time::Duration;
//! # async fn fetch(url: &str) -> anyhow::Result<String> {
//! #     tokio::time::sleep(Duration::from_millis(5)).await;
//! #     Ok(url.to_owned())
//! # }
//! # async fn store(_: String) -> anyhow::Result<()> { Ok(()) }
//!
//! async fn fetch_all_pages(parent: &Context, urls: Vec<&'static str>) -> anyhow::Result<()> {
//!     let (g, ctx) = Group::with_context(parent);
//!     g.set_limit(8);
//!     for url in urls {
//!         let ctx = ctx.clone();
//!         // .await: wait for a free permit, as Go's Go blocks
//!         // ??: the error of the context, then that of `fetch`
//!         g.go(async move { store(ctx.run(fetch(url)).await??).await }).await;
//!     }
//!     g.wait().await // the first error, after every task has finished
//! }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() { fetch_all_pages(&Context::background(), vec!["a"; 20]).await.unwrap(); }
//! ```
//!
//! *Coming from tokio:* one call replaces a `JoinSet`, a `Semaphore`, a `CancellationToken` and a
//! loop around `join_next`. It returns the results in order.
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
//! | you need | use |
//! |---|---|
//! | tasks that are all cancelled at the first error | [`Group::with_context`], [`Group::go`] |
//! | tasks that keep running when one of them fails | [`Group::new`] |
//! | an early return with `?` that leaves no task behind | [`Group::scope`] |
//! | at most *n* tasks at once | [`Group::set_limit`]; `g.go(..).await` for backpressure |
//! | to start a task only if a permit is free now | [`Group::try_go`] |
//! | a permit before there is work | [`Group::reserve`] |
//! | a heartbeat, an essential task, clean-up after the end | [`Group::task`] |
//! | to stop one task of a group | [`TaskHandle::cancel`] |
//! | another way to start a task | the table of [`Group`] |
//! | to abort tasks some time after they were cancelled | [`Group::set_grace`] |
//! | to shut groups and a server down in one time budget | [`Drain`], [`Group::drain`] |
//! | a group in a struct, with `&self` methods | [`Group::close_and_wait`] |
//! | to wait for tasks, also with a timeout, and go on | [`Group::idle`] |
//! | every failure, with task names and call sites | [`Group::named`], [`Group::wait_all`] |
//! | one function over many items, results in order | [`fetch_all`] |
//! | each result, a stream, the first, or *k* of *n* | [`fan_out()`], [its table](mod@fan_out) |
//! | a second attempt if the first one is slow | [`hedge`] |
//! | a pipeline of stages, each with a limit | [`fan_out_stream`] |
//! | a function that blocks or computes, on all cores | [`fan_out_blocking`] |
//! | to change the limit of a fan-out, or to pause it | [`FanOut::limit_handle`] |
//! | to stop a stream and wait until its items were dropped | [`Outcomes::stop`] |
//! | items that borrow or are not `Send` | [`FanOut::local`] |
//! | tasks that start tasks | [`Spawner`] |
//! | a call with a deadline | [`Context::with_timeout`], [`Context::run`] |
//! | a loop that stops when it is cancelled | [`Context::check`] |
//! | to cancel by hand, with a cause | [`Context::with_cancel`], [`CancelGuard::cancel_with`] |
//! | request-scoped values in every call below | [`Context::with_value`] |
//! | clean-up that must finish, within a bound | [`Context::shield`] |
//! | to see whether an error is that of a context | [`ContextError::find`] |
//! | to interrupt what cannot be dropped | [`Context::after_func`] |
//! | work that either of two contexts can cancel | [`Context::merge`] |
//! | to see which task does not stop | module [`inspect`] |
//! | to shut down on SIGTERM | `Context::with_shutdown_signals`, feature `signal` |
//! | to call a crate that takes a token | `Context::to_cancellation_token`, feature `tokio-util` |
//! | a context for each request, and deadlines across services | module `tower`, feature `tower` |
//!
//! # The rules
//!
//! 1. A name that Go has too has Go's meaning. Other names are tokio's where tokio has one.
//! 2. No task outlives its group. [`wait`](Group::wait) returns only when all tasks have finished,
//!    and dropping a group cancels and aborts them.
//! 3. No outcome is lost. Every task has exactly one outcome, which is reported. A cancellation
//!    never hides the error that caused it, and a panic is never swallowed.
//! 4. Cancellation is cooperative: a task observes it and returns. A task is dropped at an await
//!    only if it opted in ([`go_cancellable`](Group::go_cancellable)), if the time of its grace
//!    period or of its [`cleanup`](TaskBuilder::cleanup) is over, if its handle stops it
//!    ([`TaskHandle::cancel`], [`abort`](TaskHandle::abort)), or if its group is aborted or
//!    dropped. A future that was given to [`run`](Context::run), or to a fan-out, has opted in.
//! 5. A method that waits is async, or returns a future.
//! 6. A context needs no task and no timer, and a finished task uses no memory. There is no unsafe
//!    code.
//!
//! # Panics, in general
//!
//! - *Where is the panic of a task resumed?* In the call that waits for the tasks, with its
//!   payload.
//! - *Which one, if several tasks panic?* The first. It takes precedence over errors.
//! - *Do the other tasks keep running?* They are cancelled at the instant of the panic. In a
//!   [`Group::new`], they keep running.
//! - *When does the call resume it?* When every task has finished.
//!
//! With `panic = "abort"`, the process aborts at the panic, and none of this applies.
//!
//! # More documents
//!
//! [Guide](_documentation::guide) for servers ·
//! [Coming from Go](_documentation::go) ·
//! [Comparison](_documentation::compare) ·
//! [Bridges](_documentation::bridges) to work that a drop does not stop ·
//! [Distributed](_documentation::distributed) ·
//! [Finding what hangs](_documentation::inspect) ·
//! [Cost](_documentation::cost) ·
//! [Testing](_documentation::testing) ·
//! [Design](_documentation::design)
//!
//! # Features
//!
//! All features are off by default and only add items.
//!
//! - `signal`: contexts that are cancelled by signals to the process.
//! - `tokio-util`: conversions from and to `CancellationToken`.
//! - `tower`: for servers, a context for each request; for clients, a deadline on each call. It
//!   works with hyper, axum, tonic and reqwest.
//! - `axum`: that context as an extractor. Includes `tower`.
//! - `inspect`: the live groups and tasks as a tree, and which of them do not stop. See module
//!   [`inspect`].
//! - `tracing`: a span for each task and each item, and events for what stops one. A task's span is
//!   inside the span in which its *group* was made, and follows from the span in which the task was
//!   started, so a long task does not keep the span of a request open. An item's span is inside the
//!   span in which the fan-out was made. The iterator or stream of a fan-out, its functions, and
//!   the function of [`after_func`](Context::after_func) run in the span of their caller.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

/// With the model checker, `tokio` is a shim over the checker's executor.
#[cfg(errgroup_shuttle)]
extern crate self as tokio;
#[cfg(errgroup_shuttle)]
extern crate tokio as tokio_itself;
#[cfg(errgroup_shuttle)]
use sync::shuttle::{runtime, spawn, task, time};

#[cfg(any(doc, doctest))]
pub mod _documentation;
mod context;
pub mod fan_out;
mod group;
pub mod inspect;
mod panic;
mod registry;
mod scheduler;
mod span;
mod sync;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;
mod tracing;

pub use context::{
    AfterFunc, AfterFuncGuard, CancelGuard, CancelHandle, Cause, Context, ContextError, Done,
    DoneOwned, Run,
};
pub use fan_out::{
    FanOut, LimitHandle, Outcomes, Progress, fan_out, fan_out_blocking, fan_out_stream, fetch_all,
    hedge,
};
pub use group::{
    Admission, Admitted, Drain, DrainPhase, Drained, DrainedError, DrainedPhase, DrainedTask,
    Group, Permit, Ready, Spawner, TaskBuilder, TaskHandle, Tracked, TryGoError,
};
pub use scheduler::error::{Errors, Panic, TaskError, TaskErrorKind};
pub use scheduler::group_error::GroupError;

/// Compiles and runs the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
