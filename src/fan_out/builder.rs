//! The builder: the options of a fan-out, which its terminal operations run.

mod local;
mod spawned;

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::time::Duration;

use super::call_site::CallSite;
use super::items::ItemsKind;
use super::progress::Progress;
use crate::context::Context;

/// Marks a fan-out that runs on tasks of the runtime. This is the default.
#[derive(Debug, Clone, Copy)]
pub struct Spawned;

/// Marks a fan-out that runs on the caller's own task: see [`FanOut::local`].
#[derive(Debug, Clone, Copy)]
pub struct Local;

/// A builder that calls one function for many items.
///
/// [`fan_out`](crate::fan_out()) and [`fan_out_stream`](crate::fan_out_stream) make it. Set options
/// first, then call a terminal operation; [the module](mod@crate::fan_out) has a table of them.
/// Nothing starts before the future or the stream of the terminal operation is polled.
///
/// `S` is the stream of items, `F` the function, `P` the function that is called with the progress,
/// and `W` says where the items run: [`Spawned`] or [`Local`].
#[must_use = "a fan-out starts nothing until a terminal operation, such as `all()`, is awaited"]
pub struct FanOut<S, F, P = fn(Progress), W = Spawned> {
    ctx: Context,
    items: S,
    kind: ItemsKind,
    f: F,
    on_progress: Option<P>,
    call_site: CallSite,
    limit: usize,
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
            limit: usize::MAX,
            grace: Duration::ZERO,
            place: Spawned,
        }
    }
}

/// Options.
impl<S, F, P, W> FanOut<S, F, P, W> {
    /// Sets how many items may be in flight at once.
    ///
    /// With the terminal operations that are streams, the outcomes that wait for the consumer count
    /// as well. By default there is no limit: then the iterator should be finite.
    ///
    /// # Panics
    ///
    /// Panics if `limit` is 0.
    #[doc(alias = "concurrency")]
    #[track_caller]
    pub fn limit(mut self, limit: usize) -> Self {
        assert!(
            limit > 0,
            "a fan-out with a limit of 0 would never pull an item: pass at least 1, or usize::MAX \
             for no limit"
        );
        self.limit = limit;
        self
    }

    /// Sets how long the items in flight may continue after the context is done, before they are
    /// dropped. By default they are dropped at once.
    ///
    /// The context is done when the caller's context is, at a failure if the terminal operation
    /// stops at one, and when enough results have been received. The grace period needs a timer of
    /// the runtime, also with [`local`](FanOut::local).
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
        FanOut {
            ctx: self.ctx,
            items: self.items,
            kind: self.kind,
            f: self.f,
            on_progress: self.on_progress,
            call_site: self.call_site,
            limit: self.limit,
            grace: self.grace,
            place: Local,
        }
    }
}

impl<S, F, P, W> Debug for FanOut<S, F, P, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOut")
            .field("name", &self.call_site.name)
            .field("limit", &self.limit)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
