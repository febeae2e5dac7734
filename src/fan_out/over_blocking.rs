//! `fan_out_blocking`: a fan-out of a function that blocks.

use std::num::NonZero;

use super::blocking::{BlockingCall, BlockingItems, on_pool};
use super::builder::{Blocking, FanOut};
use super::call_site::CallSite;
use super::items::ItemsKind;
use super::progress::Progress;
use crate::context::Context;

/// Returns a builder that calls a blocking function for every item, on the runtime's blocking pool.
///
/// For work that computes or waits without an `await`: checksums, compression, files, a client that
/// blocks. It has the terminal operations and the options of [`fan_out`](crate::fan_out()), with
/// the same meaning, except for what follows from this: **a call that has begun cannot be
/// stopped**.
///
/// - By default, as many calls run at once as the machine has cores
///   ([`available_parallelism`](std::thread::available_parallelism)). Set another
///   [`limit`](FanOut::limit) for calls that mostly wait.
/// - When the context is done, no call begins any more. A call that runs should look at the context
///   that it got, with [`check`](Context::check), and return.
/// - A terminal operation **waits for the calls that have begun**, however long they take. The
///   [`grace`](FanOut::grace) period changes nothing about that. Their results count: a `settle`
///   after a deadline returns the values of calls that have ended late.
/// - If the future or the stream is dropped half-way, a call that runs continues to its end, and
///   nothing waits for it. Its result and its panic are discarded.
/// - Items that never begin, the iterator and the function are dropped on the pool, since their
///   destructors may block. A terminal operation waits for that, too. So if the pool has no free
///   thread, because other work of the program occupies all of them, the operation also waits for
///   that work.
/// - Items cannot run [`local`](FanOut::local)ly. The iterator is pulled on the runtime's workers,
///   and should not block for long.
/// - A call that blocks on tasks of a group which itself waits for this fan-out does not lend the
///   permit of a task, as an item of `fan_out` does. Do not wait there for the group's own tasks.
///
/// # Panics
///
/// A panic of `f` is resumed by the terminal operation when all calls have ended.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, fan_out_blocking};
/// use std::{fs, path::PathBuf};
///
/// # #[tokio::main]
/// # async fn main() -> anyhow::Result<()> {
/// let sources = fs::read_dir("src")?.map(|entry| Ok(entry?.path()));
/// let sources: Vec<PathBuf> = sources.collect::<std::io::Result<_>>()?;
///
/// let lines = fan_out_blocking(&Context::background(), sources, |ctx, path| {
///     ctx.check()?;
///     if path.is_dir() {
///         return anyhow::Ok(0);
///     }
///     Ok(fs::read_to_string(path)?.lines().count())
/// });
/// let lines: usize = lines.all().await?.into_iter().sum();
/// # assert!(lines > 100);
/// # Ok(()) }
/// ```
#[doc(alias("spawn_blocking", "rayon", "par_iter", "parallelStream"))]
#[track_caller]
#[expect(clippy::type_complexity, reason = "the closure has no name")]
pub fn fan_out_blocking<I, F, T, E>(
    ctx: &Context,
    items: I,
    f: F,
) -> FanOut<
    BlockingItems<I::IntoIter>,
    impl FnMut(Context, I::Item) -> BlockingCall<I::Item, F, T, E> + Send + use<I, F, T, E>,
    fn(Progress),
    Blocking,
>
where
    I: IntoIterator<IntoIter: Send + 'static, Item: Send + 'static>,
    F: Fn(Context, I::Item) -> Result<T, E> + Send + Sync + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let (pool, items, call) = on_pool(items.into_iter(), f);
    let items = (items, ItemsKind::Iterator);
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    FanOut::new(ctx, items, call, CallSite::caller())
        .limit(cores)
        .on_pool(pool)
}
