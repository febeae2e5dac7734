//! The builder: the options of a fan-out, which its terminal operations run.

mod local;
mod spawned;

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::pin::Pin;
use std::time::Duration;

use super::blocking::Pool;
use super::call_site::CallSite;
use super::items::{ItemsKind, Pull};
use super::limit::{Limit, LimitHandle};
use super::progress::Progress;
use crate::context::Context;
use crate::sync::Arc;

/// Marks a fan-out that runs on tasks of the runtime. This is the default.
#[derive(Debug, Clone, Copy)]
pub struct Spawned;

/// Marks a fan-out that runs on the caller's own task: see [`FanOut::local`].
#[derive(Debug, Clone, Copy)]
pub struct Local;

/// Marks a fan-out whose function runs on the blocking pool: see
/// [`fan_out_blocking`](crate::fan_out_blocking()).
pub struct Blocking {
    pool: Arc<Pool>,
}

impl Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").finish_non_exhaustive()
    }
}

/// Where the items of a fan-out run that runs on tasks of the runtime: [`Spawned`] or
/// [`Blocking`]. Only this crate implements it.
pub trait OnRuntime: Sealed + Send + 'static {}

impl OnRuntime for Spawned {}
impl OnRuntime for Blocking {}

/// Keeps other crates from implementing [`OnRuntime`].
#[expect(unnameable_types, reason = "other crates must not name it")]
pub trait Sealed {
    /// Returns the count of what is on the blocking pool, if the items block.
    #[doc(hidden)]
    fn into_pool(self) -> Option<Arc<Pool>>;
}

impl Sealed for Spawned {
    fn into_pool(self) -> Option<Arc<Pool>> {
        None
    }
}

impl Sealed for Blocking {
    fn into_pool(self) -> Option<Arc<Pool>> {
        Some(self.pool)
    }
}

/// A builder that calls one function for many items.
///
/// [`fan_out`](crate::fan_out()), [`fan_out_stream`](crate::fan_out_stream) and
/// [`fan_out_blocking`](crate::fan_out_blocking()) make it. Set options
/// first, then call a terminal operation; [the module](mod@crate::fan_out) has a table of them.
/// Nothing starts before the future or the stream of the terminal operation is polled.
///
/// `S` is the stream of items, `F` the function, `P` the function that is called with the progress,
/// and `W` says where the items run: [`Spawned`], [`Local`] or [`Blocking`].
#[must_use = "a fan-out starts nothing until a terminal operation, such as `all()`, is awaited"]
pub struct FanOut<S, F, P = fn(Progress), W = Spawned> {
    ctx: Context,
    items: S,
    kind: ItemsKind,
    f: F,
    on_progress: Option<P>,
    call_site: CallSite,
    limit: Limit,
    grace: Duration,
    place: W,
}

impl<S, F> FanOut<S, F> {
    pub(crate) fn new(
        ctx: &Context,
        (items, kind): (S, ItemsKind),
        f: F,
        call_site: CallSite,
    ) -> Self {
        FanOut {
            ctx: ctx.clone(),
            items,
            kind,
            f,
            on_progress: None,
            call_site,
            limit: Limit::Fixed(usize::MAX),
            grace: Duration::ZERO,
            place: Spawned,
        }
    }
}

/// Options.
impl<S, F, P, W> FanOut<S, F, P, W> {
    /// Sets how many items may be in flight at once. `None` means no limit.
    ///
    /// With the terminal operations that are streams, the outcomes that wait for the consumer count
    /// as well. By default there is no limit: then the iterator should be finite.
    ///
    /// # Panics
    ///
    /// With a limit of 0, the terminal operation panics if there is an item, since no item could
    /// ever start. Without items, it returns what it returns for none, so a limit may be the number
    /// of the items. With a [`limit_handle`](FanOut::limit_handle), a limit of 0 is a pause.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, fan_out};
    ///
    /// # async fn fetch(url: &'static str) -> Result<usize, String> { Ok(url.len()) }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), String> {
    /// # let ctx = Context::background();
    /// let urls: Vec<&str> = vec![];
    /// let lengths = fan_out(&ctx, urls.clone(), |_ctx, url| fetch(url)).limit(urls.len());
    /// assert!(lengths.all().await?.is_empty());
    /// # Ok(()) }
    /// ```
    #[doc(alias = "concurrency")]
    pub fn limit(mut self, limit: impl Into<Option<usize>>) -> Self {
        self.limit.set(limit.into().unwrap_or(usize::MAX));
        self
    }

    /// Returns a handle that changes the limit while the fan-out runs.
    ///
    /// The handle can be cloned, and called from any thread and from the items. It does not keep
    /// the items alive. See [`LimitHandle::set_limit`] for what a change does; a limit of 0 pauses
    /// the fan-out. With [`local`](FanOut::local), a change takes effect when the task that runs
    /// the items is polled, and wakes that task.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, fan_out};
    ///
    /// # async fn fetch(n: u32) -> Result<u32, String> { Ok(n) }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), String> {
    /// let ctx = Context::background();
    /// let (pages, limit) = fan_out(&ctx, 0..100, |_ctx, n| fetch(n)).limit(8).limit_handle();
    /// let pages = tokio::spawn(pages.all());
    /// limit.set_limit(64);
    /// assert_eq!(pages.await.unwrap()?.len(), 100);
    /// # Ok(()) }
    /// ```
    pub fn limit_handle(mut self) -> (Self, LimitHandle) {
        let handle = self.limit.handle();
        (self, handle)
    }

    /// Sets how long the items in flight may continue after the context is done, before they are
    /// dropped. By default they are dropped at once.
    ///
    /// The context is done when the caller's context is, at a failure if the terminal operation
    /// stops at one, and when enough results have been received. The grace period needs a timer of
    /// the runtime, also with [`local`](FanOut::local). It has no effect on a
    /// [`fan_out_blocking`](crate::fan_out_blocking()), whose calls cannot be stopped.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets the name of the items in errors: `name[3]`. Without a name it is `item 3`.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.call_site.name = Some(name.into());
        self
    }

    /// Sets a function that is called each time an item has started or finished.
    ///
    /// It is never called twice at once, and its counts never decrease. When the terminal operation
    /// returns, every start and every finish has been reported.
    ///
    /// `report` runs on the runtime's workers, between items, and should return soon. With
    /// [`local`](FanOut::local) it runs on the caller's task.
    ///
    /// # Panics
    ///
    /// A panic of `report` is resumed by the terminal operation, as a panic of an item is.
    pub fn on_progress<R: FnMut(Progress)>(self, report: R) -> FanOut<S, F, R, W> {
        FanOut {
            ctx: self.ctx,
            items: self.items,
            kind: self.kind,
            f: self.f,
            on_progress: Some(report),
            call_site: self.call_site,
            limit: self.limit,
            grace: self.grace,
            place: self.place,
        }
    }
}

impl<S, F, P> FanOut<S, F, P, Spawned> {
    /// Runs the function of the items on the blocking pool.
    pub(crate) fn on_pool(self, pool: Arc<Pool>) -> FanOut<S, F, P, Blocking> {
        self.at(Blocking { pool })
    }

    fn at<W>(self, place: W) -> FanOut<S, F, P, W> {
        FanOut {
            ctx: self.ctx,
            items: self.items,
            kind: self.kind,
            f: self.f,
            on_progress: self.on_progress,
            call_site: self.call_site,
            limit: self.limit,
            grace: self.grace,
            place,
        }
    }

    /// Runs the items on the caller's own task, so that they may borrow and need not be `Send`.
    ///
    /// The terminal operations are the same and have the same meaning. All items share one core,
    /// and nothing moves while the future or the stream is not polled: see
    /// [the module](mod@crate::fan_out#on-the-callers-own-task).
    ///
    /// The future or the stream is `Send` if the items, the functions and the futures of the items
    /// are. Then it can be awaited in the handler of a server or in a spawned task, also if the
    /// items are borrowed.
    pub fn local(self) -> FanOut<S, F, P, Local> {
        self.at(Local)
    }
}

/// Returns the items with their function, which is never called at a limit of 0.
fn pull<S, F, Fut>(items: S, f: F, kind: ItemsKind, limit: &Limit) -> Pin<Box<Pull<S, F, Fut>>> {
    Box::pin(if limit.is_stuck() {
        Pull::stuck(items, f, kind)
    } else {
        Pull::new(items, f, kind)
    })
}

impl<S, F, P, W> Debug for FanOut<S, F, P, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOut")
            .field("name", &self.call_site.name)
            .field("limit", &self.limit.get())
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
