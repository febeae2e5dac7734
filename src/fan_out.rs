//! Fan-out: one function over many items, bounded, on workers.
//!
//! [`fan_out`](crate::fan_out()) takes a context, items and a function, and gives a builder. Its *ends* say what is wanted of the
//! outcomes; how the items run is the same for all of them.
//!
//! | | stop at the first failure | go on after failures |
//! |---|---|---|
//! | **wait for all** | [`all`](FanOut::all): the values, in order · [`for_each`](FanOut::for_each): nothing kept | [`settle`](FanOut::settle): each result, in order |
//! | **as they come** | [`try_stream`](FanOut::try_stream) | [`stream`](FanOut::stream) · [`ordered_stream`](FanOut::ordered_stream) |
//! | **enough is enough** | | [`first_ok`](FanOut::first_ok) · [`quorum`](FanOut::quorum) |
//!
//! [`fetch_all`] is the most common of these in one call, and [`hedge`](hedge()) asks again where an answer is
//! slow.
//!
//! # What all of them promise
//!
//! - **Pulled, not pushed.** An item is taken from the iterator when there is a permit for it, not before; with a stream, when
//!   the consumer has room, too. So the iterator may be infinite, or a generator.
//! - **Stopped and gone.** When an end returns, nothing that it started is still running, and what it held (connections,
//!   permits) is free. When its future or stream is dropped half-way, none is polled again once its present poll returns, and
//!   what they hold is free as soon as the runtime gets to it.
//! - **The context reaches everybody.** Each call of the function is handed the fan-out's own context, a child of the caller's. When
//!   it ends, what is in flight is dropped, or is given a [`grace`](FanOut::grace): give a fan-out only what may be dropped at an await.
//! - **A panic goes on.** In an item, in the function, in the iterator, in `on_progress`, or in the
//!   destructor of one of these: it stops the others, and is resumed in the caller with its payload
//!   when they are gone. The first panic wins, over values and over errors. Where the future or the
//!   stream of an end is dropped half-way, a panic of a destructor is discarded.
//! - **The iterator and the function run on the runtime's workers**, one call at a time. One that blocks its thread holds up
//!   that thread, and the items behind it, but not those in flight.
//!
//! # On the caller's own task
//!
//! With [`local`](FanOut::local), items run on the task that awaits the end: they may borrow from it, and need not be `Send`. What that
//! costs: they share one core, and they stand still while nobody polls. A consumer that awaits something else between two
//! results of a stream keeps them all from moving, and if what it awaits is held by one of them, from ever moving again: the trap
//! of `buffer_unordered`, which the spawned form does not have.

mod builder;
mod call_site;
mod causes;
mod collect;
mod hedge;
mod item_counts;
mod item_source;
mod item_tag;
mod items;
mod local;
mod progress;
mod run;
mod shared_iter;
mod spawned;

pub use builder::{FanOut, Local, Spawned};
pub use hedge::hedge;
pub use items::Items;
pub use progress::Progress;

use std::fmt::Display;
use std::future::Future;

use futures_core::Stream;

use crate::context::Context;
use crate::context::ContextError;
use call_site::CallSite;

/// Begins a fan-out: `f` over every item, as [`FanOut`]'s options and ends have it.
///
/// `items` is any `IntoIterator`; `f` is handed the fan-out's own context, a child of `ctx`, and an item.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, fan_out};
/// use futures::StreamExt;
///
/// # async fn fetch(n: u32) -> Result<u32, String> { Ok(n) }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), String> {
/// let ctx = Context::background();
///
/// // Wait for all.
/// let pages = fan_out(&ctx, 0..100, |_ctx, n| fetch(n)).limit(8).all().await?;
/// assert_eq!(pages.len(), 100);
///
/// // Take them as they come.
/// let mut pages = fan_out(&ctx, 0..100, |_ctx, n| fetch(n)).limit(8).stream();
/// while let Some(page) = pages.next().await {
///     let _page: u32 = page?;
/// }
///
/// // Borrow, on this task.
/// let prefix = String::from("page ");
/// let names = fan_out(&ctx, 0..3, async |_ctx, n| Ok::<_, String>(format!("{prefix}{n}")));
/// assert_eq!(names.local().all().await?, ["page 0", "page 1", "page 2"]);
/// # Ok(()) }
/// ```
#[track_caller]
pub fn fan_out<I, F, Fut>(ctx: &Context, items: I, f: F) -> FanOut<Items<I::IntoIter>, F>
where
    I: IntoIterator,
    F: FnMut(Context, I::Item) -> Fut,
    Fut: Future,
{
    FanOut::new(ctx, Items::new(items.into_iter()), f, CallSite::caller())
}

/// The same over a [`Stream`] of items, so that stages chain into a pipeline: the stream of one is the items of the next.
///
/// The stream is polled by the worker that is to start the next item, and so on the runtime's workers. While it has nothing, that
/// worker waits for it; the others go on.
///
/// # Examples
///
/// Two stages, each bounded: at no time are there more than 4 + 2 lines in the pipeline.
///
/// ```
/// use errgroup::{Context, fan_out, fan_out_stream};
///
/// # async fn fetch(line: u32) -> Result<u32, String> { Ok(line) }
/// # async fn store(_: u32) -> Result<(), String> { Ok(()) }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), String> {
/// let ctx = Context::background();
/// let pages = fan_out(&ctx, 0..100, |_ctx, line| fetch(line)).limit(4).try_stream();
/// fan_out_stream(&ctx, pages, |_ctx, page| async { store(page?).await })
///     .limit(2)
///     .for_each()
///     .await
/// # }
/// ```
#[track_caller]
pub fn fan_out_stream<S, F, Fut>(ctx: &Context, items: S, f: F) -> FanOut<S, F>
where
    S: Stream,
    F: FnMut(Context, S::Item) -> Fut,
    Fut: Future,
{
    FanOut::new(ctx, items, f, CallSite::caller())
}

/// Calls `f` for every item, at most `limit` at once, and gives the results in the order of the items.
///
/// Each call gets the helper's own context, a child of `ctx`. The first error ends that context, drops what is in flight,
/// waits until it is gone, and is returned; items that were not pulled by then never are. So when this returns, nothing that it
/// started is still running.
///
/// `items` is any `IntoIterator`, infinite or slow ones included. An item is pulled when there is a permit for it, not
/// before. The iterator and `f` run on the runtime's workers, one call at a time. `usize::MAX` is no limit.
///
/// If `ctx` ends, what is in flight is dropped, as at an error: give it only what may be dropped at an await.
///
/// The future does not borrow `ctx`, and starts nothing until it is polled.
///
/// # Errors
///
/// The first error in order of completion. If `ctx` ends before the last item is done, `E::from` of its
/// [`ContextError`].
///
/// # Panics
///
/// If `limit` is 0. When polled outside a tokio runtime. The first panic in `f`, in one of its
/// futures, in the iterator, or in the destructor of one of these is resumed with its payload when
/// everything else is gone. It wins over an error.
///
/// # Cancel safety
///
/// Dropping the future ends its context and aborts what is in flight: nothing is polled again once its present poll
/// returns. Results that were there are lost, and a panic of a destructor is discarded.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, fetch_all};
///
/// # async fn fetch(url: &str) -> anyhow::Result<usize> { Ok(url.len()) }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> anyhow::Result<()> {
/// let ctx = Context::background();
/// let urls = ["http://a.example", "http://bc.example"];
///
/// let lengths = fetch_all(&ctx, 8, urls, |ctx, url| async move {
///     // The context reaches the deepest call, and stops what knows nothing of contexts.
///     ctx.run(fetch(url)).await?
/// })
/// .await?;
/// assert_eq!(lengths, [16, 17]);
/// # Ok(()) }
/// ```
#[track_caller]
pub fn fetch_all<I, F, Fut, T, E>(
    ctx: &Context,
    limit: usize,
    items: I,
    f: F,
) -> impl Future<Output = Result<Vec<T>, E>> + Send + use<I, F, Fut, T, E>
where
    I: IntoIterator<IntoIter: Send + 'static>,
    F: FnMut(Context, I::Item) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: From<ContextError> + Display + Send + 'static,
{
    assert!(
        limit > 0,
        "fetch_all with a limit of 0 would never pull an item: pass at least 1, or usize::MAX for no limit"
    );
    fan_out(ctx, items, f).limit(limit).all()
}
