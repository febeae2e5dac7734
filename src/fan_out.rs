//! Fan-out: calls one function for many items, with a limit, on tasks of the runtime.
//!
//! [`fan_out`](crate::fan_out()) takes a context, items and a function, and returns a builder,
//! [`FanOut`]. A terminal operation of the builder runs the items and collects their results. Items
//! are run in the same way by all of them; they differ in what they do with the results.
//!
//! | | stop at the first failure | continue after failures |
//! |---|---|---|
//! | **wait for all** | [`all`]: values, in order · [`for_each`]: nothing | [`settle`]: in order |
//! | **as they arrive** | [`try_stream`] | [`stream`], [`ordered_stream`], [`indexed_stream`] |
//! | **enough successes** | | [`first_ok`] · [`quorum`] |
//!
//! [`all`]: FanOut::all
//! [`for_each`]: FanOut::for_each
//! [`settle`]: FanOut::settle
//! [`try_stream`]: FanOut::try_stream
//! [`stream`]: FanOut::stream
//! [`ordered_stream`]: FanOut::ordered_stream
//! [`indexed_stream`]: FanOut::indexed_stream
//! [`first_ok`]: FanOut::first_ok
//! [`quorum`]: FanOut::quorum
//!
//! [`fetch_all`] is the most common of them in one call. [`hedge`](hedge()) calls a function again
//! if the first call is slow. [`fan_out_blocking`] calls a function that blocks, on the blocking
//! pool, with the same terminal operations.
//!
//! # Guarantees of all terminal operations
//!
//! - **Items are pulled on demand.** An item is taken from the iterator when there is a permit for
//!   it, not before. With a stream, results that were not taken yet count against the limit, too.
//!   So the iterator may be infinite.
//! - **Nothing is left running.** When a terminal operation returns, nothing that it started is
//!   still running, and what the items held (connections, permits) has been released. When its
//!   future or stream is dropped half-way, no item is polled again once its present poll returns,
//!   and the runtime drops the items soon after.
//! - **The context reaches every call.** Each call of the function gets the fan-out's own context,
//!   a child of the caller's. When that context is done, the items in flight are dropped, or have a
//!   [`grace`](FanOut::grace) period. Give a fan-out only futures that may be dropped at an await.
//! - **A panic is propagated.** A panic in an item, in the function, in the iterator, in
//!   `on_progress`, or in the destructor of one of these cancels the other items. When they are
//!   gone, it is resumed in the caller with its payload. The first panic wins over values, errors
//!   and later panics. If the future or the stream is dropped half-way, a panic of a destructor is
//!   discarded.
//! - **The iterator and the function run on the runtime's workers**, one call at a time. A call
//!   that blocks its thread holds up that thread and the items that have not been pulled, but not
//!   the items in flight. (The worker of the last item also makes the call that finds the end of
//!   the iterator. If that call blocks, the last item waits.)
//!
//! # On the caller's own task
//!
//! With [`local`](FanOut::local), the items run on the task that awaits the terminal operation.
//! They may borrow from it and need not be `Send`. In return they share one core, and no item makes
//! progress unless that task polls them. A consumer that awaits something else between two results
//! of a stream stops all items. If it waits for something that one of the items holds, it waits for
//! ever. `buffer_unordered` has the same problem; a fan-out on workers does not.

mod backoff;
mod batch;
mod blocking;
mod builder;
mod call_site;
mod causes;
mod collect;
mod hedge;
mod item_counts;
mod item_slot;
mod item_source;
mod item_tag;
mod items;
mod limit;
mod local;
mod one_item;
mod outcomes;
mod over_blocking;
mod parking;
mod progress;
mod pulls;
mod run;
mod shared_iter;
mod spawned;
mod starts;
mod worker;

pub use blocking::{BlockingCall, BlockingItems};
pub use builder::{Blocking, FanOut, Local, OnRuntime, Spawned};
pub use hedge::hedge;
pub use items::Items;
pub use limit::LimitHandle;
pub use outcomes::{Outcomes, Stop};
pub use over_blocking::fan_out_blocking;
pub use progress::Progress;

use std::future::Future;

use futures_core::Stream;

use crate::context::Context;
#[cfg(doc)]
use crate::context::ContextError;
use crate::scheduler::group_error::GroupError;
use call_site::CallSite;
use items::ItemsKind;

/// Returns a builder that calls `f` for every item.
///
/// `items` is any `IntoIterator`. `f` gets the fan-out's own context, a child of `ctx`, and an
/// item. Set options of the [`FanOut`], then call one of its terminal operations. Nothing starts
/// before that.
///
/// # If it does not compile
///
/// Without [`local`](FanOut::local), the items run on tasks of the runtime, so they must own what
/// they use. If they borrow, the compiler says `borrowed data escapes outside of function` (E0521)
/// or `.. does not live long enough` (E0597):
///
/// ```compile_fail,E0521
/// # use errgroup::{Context, fan_out};
/// # async fn get(_: &str, page: u32) -> anyhow::Result<u32> { Ok(page) }
/// async fn pages(ctx: &Context, host: &str) -> anyhow::Result<Vec<u32>> {
///     fan_out(ctx, 0..10, |_ctx, page| get(host, page)).limit(8).all().await
/// }
/// ```
///
/// Run them on your own task, or give each call a clone:
///
/// ```
/// # use errgroup::{Context, fan_out};
/// # async fn get(_: &str, page: u32) -> anyhow::Result<u32> { Ok(page) }
/// async fn pages(ctx: &Context, host: &str) -> anyhow::Result<Vec<u32>> {
///     fan_out(ctx, 0..10, |_ctx, page| get(host, page)).limit(8).local().all().await
/// }
///
/// async fn pages_on_all_cores(ctx: &Context, host: &str) -> anyhow::Result<Vec<u32>> {
///     let host = host.to_owned();
///     let get = move |_ctx, page| {
///         let host = host.clone();
///         async move { get(&host, page).await }
///     };
///     fan_out(ctx, 0..10, get).limit(8).all().await
/// }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// # let ctx = Context::background();
/// # let pages = pages(&ctx, "a").await.unwrap();
/// # assert_eq!(pages, pages_on_all_cores(&ctx, "a").await.unwrap());
/// # }
/// ```
///
/// If the result goes through a `?`, the closure may have to name its error, as in `Ok::<_,
/// anyhow::Error>(n)` (E0283). [`fetch_all`] shows that, and a function that calls itself.
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
#[doc(alias = "FuturesUnordered")]
#[track_caller]
pub fn fan_out<I, F, Fut>(ctx: &Context, items: I, f: F) -> FanOut<Items<I::IntoIter>, F>
where
    I: IntoIterator,
    F: FnMut(Context, I::Item) -> Fut,
    Fut: Future,
{
    let items = Items::new(items.into_iter());
    FanOut::new(ctx, (items, ItemsKind::Iterator), f, CallSite::caller())
}

/// Returns a builder that calls `f` for every item of a [`Stream`].
///
/// Stages chain into a pipeline: the stream of one fan-out is the items of the next. `f` gets the
/// fan-out's own context, a child of `ctx`, and an item.
///
/// The worker that starts the next item polls the stream, so it is polled on the runtime's workers.
/// While the stream is pending, that worker waits for it and the others continue.
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
#[doc(alias = "pipeline")]
#[track_caller]
pub fn fan_out_stream<S, F, Fut>(ctx: &Context, items: S, f: F) -> FanOut<S, F>
where
    S: Stream,
    F: FnMut(Context, S::Item) -> Fut,
    Fut: Future,
{
    FanOut::new(ctx, (items, ItemsKind::Stream), f, CallSite::caller())
}

/// Calls `f` for every item, at most `limit` at once, and returns the results in the order of the
/// items.
///
/// Each call gets the fan-out's own context, a child of `ctx`. The first error cancels that
/// context, drops the items in flight, and is returned when they have been dropped. No further item
/// is pulled. So when this returns, nothing that it started is still running.
///
/// `items` is any `IntoIterator`, also an infinite or a slow one. An item is pulled when there is a
/// permit for it, not before. The iterator and `f` run on the runtime's workers, one call at a
/// time. A limit of `None` means no limit.
///
/// If `ctx` is done, the items in flight are dropped, as at an error: give it only futures that may
/// be dropped at an await.
///
/// The future does not borrow `ctx`, and starts nothing until it is polled.
///
/// # Errors
///
/// Returns the first error in order of completion. If `ctx` is done before the last item has
/// finished, returns `E::from` of its [`ContextError`].
///
/// # Panics
///
/// Panics if `limit` is 0 and there is an item, and when it is polled outside a tokio runtime.
///
/// Resumes the first panic in `f`, in one of its futures, in the iterator, or in the destructor of
/// one of these with its payload, when everything else has been dropped. A panic wins over an
/// error.
///
/// # Cancel safety
///
/// Dropping the future cancels its context and aborts the items in flight: none is polled again
/// once its present poll returns. Results that were already collected are lost, and a panic of a
/// destructor is discarded.
///
/// # If it does not compile
///
/// The items run on tasks of the runtime, so they must own what they use. If `items` or `f` borrow,
/// the compiler says `borrowed data escapes outside of function` (E0521) or `closure may outlive
/// the current function` (E0373):
///
/// ```compile_fail,E0521
/// # use errgroup::{Context, fetch_all};
/// # async fn get(_: &str, page: u32) -> anyhow::Result<u32> { Ok(page) }
/// async fn pages(ctx: &Context, host: &str) -> anyhow::Result<Vec<u32>> {
///     fetch_all(ctx, 8, 0..10, move |_ctx, page| get(host, page)).await
/// }
/// ```
///
/// Give each call a clone, or run the items on your own task, where they may borrow, with
/// [`local`](FanOut::local):
///
/// ```
/// # use errgroup::{Context, fan_out, fetch_all};
/// # use std::sync::Arc;
/// # async fn get(_: &str, page: u32) -> anyhow::Result<u32> { Ok(page) }
/// async fn pages(ctx: &Context, host: &str) -> anyhow::Result<Vec<u32>> {
///     let host: Arc<str> = host.into();
///     fetch_all(ctx, 8, 0..10, move |_ctx, page| {
///         let host = host.clone();
///         async move { get(&host, page).await }
///     })
///     .await
/// }
///
/// async fn pages_on_this_task(ctx: &Context, host: &str) -> anyhow::Result<Vec<u32>> {
///     fan_out(ctx, 0..10, |_ctx, page| get(host, page)).limit(8).local().all().await
/// }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// # let ctx = Context::background();
/// # let pages = pages(&ctx, "a").await.unwrap();
/// # assert_eq!(pages, pages_on_this_task(&ctx, "a").await.unwrap());
/// # }
/// ```
///
/// If nothing says what the error is, because the call ends with `.await?` and the closure with
/// `Ok(..)`, the compiler says `type annotations needed` (E0283):
///
/// ```compile_fail,E0283
/// # use errgroup::{Context, fetch_all};
/// # async fn example(ctx: &Context) -> anyhow::Result<()> {
/// let squares = fetch_all(ctx, 8, 0..10, |_ctx, n: u32| async move { Ok(n * n) }).await?;
/// # Ok(()) }
/// ```
///
/// Name it:
///
/// ```
/// # use errgroup::{Context, fetch_all};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> anyhow::Result<()> {
/// # let ctx = &Context::background();
/// let squares = fetch_all(ctx, 8, 0..10, |_ctx, n: u32| async move {
///     Ok::<_, anyhow::Error>(n * n)
/// })
/// .await?;
/// # assert_eq!(squares[3], 9);
/// # Ok(()) }
/// ```
///
/// If `f` calls the function that it is in, it says `type annotations needed: cannot satisfy impl
/// Future<..>: Send` (E0283), since the type of the future would contain itself:
///
/// ```compile_fail,E0283
/// # use errgroup::{Context, fetch_all};
/// async fn leaves(ctx: Context, depth: u32) -> anyhow::Result<u32> {
///     if depth == 0 {
///         return Ok(1);
///     }
///     let below = fetch_all(&ctx, 8, 0..2, move |ctx, _| leaves(ctx, depth - 1)).await?;
///     Ok(below.into_iter().sum())
/// }
/// ```
///
/// Return a boxed future, whose type has a name:
///
/// ```
/// # use errgroup::{Context, fetch_all};
/// use futures::future::{BoxFuture, FutureExt};
///
/// fn leaves(ctx: Context, depth: u32) -> BoxFuture<'static, anyhow::Result<u32>> {
///     async move {
///         if depth == 0 {
///             return Ok(1);
///         }
///         let below = fetch_all(&ctx, 8, 0..2, move |ctx, _| leaves(ctx, depth - 1)).await?;
///         Ok(below.into_iter().sum())
///     }
///     .boxed()
/// }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() { assert_eq!(leaves(Context::background(), 3).await.unwrap(), 8); }
/// ```
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
///     // `ctx.run` stops a call that knows nothing of contexts.
///     ctx.run(fetch(url)).await?
/// })
/// .await?;
/// assert_eq!(lengths, [16, 17]);
/// # Ok(()) }
/// ```
#[doc(alias("try_join_all", "Promise.all", "gather", "invokeAll", "mapPar"))]
#[track_caller]
pub fn fetch_all<I, F, Fut, T, E, L>(
    ctx: &Context,
    limit: L,
    items: I,
    f: F,
) -> impl Future<Output = Result<Vec<T>, E>> + Send + use<I, F, Fut, T, E, L>
where
    L: Into<Option<usize>>,
    I: IntoIterator<IntoIter: Send + 'static>,
    F: FnMut(Context, I::Item) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    fan_out(ctx, items, f).limit(limit).all()
}
