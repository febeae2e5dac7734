//! The builder: what is asked of a fan-out before one of its ends runs it.

use std::borrow::Cow;
use std::fmt::{self, Debug, Display};
use std::future::Future;
use std::time::Duration;

use futures_core::Stream;

use super::call_site::CallSite;
use super::collect::Collector;
use super::collect::all::{All, ForEach};
use super::collect::quorum::{FirstOk, Quorum};
use super::collect::settle::Settle;
use super::collect::stream::{Ordered, TryStream, Unordered};
use super::item_source::Report;
use super::items::Pull;
use super::local::LocalRun;
use super::progress::Progress;
use super::run::{CollectFuture, OutcomeStream};
use super::spawned::SpawnedRun;
use crate::context::Context;
use crate::context::ContextError;
use crate::scheduler::error::Errors;

/// A fan-out that runs on tasks of the runtime: the default.
#[derive(Debug, Clone, Copy)]
pub struct Spawned;

/// A fan-out that runs on the caller's own task: see [`FanOut::local`].
#[derive(Debug, Clone, Copy)]
pub struct Local;

/// One function over many items, about to be run: made by [`fan_out`](crate::fan_out()) and
/// [`fan_out_stream`](crate::fan_out_stream).
///
/// Options first, then one of the ends; [the module](mod@crate::fan_out) has the table of them. Nothing starts before the end is
/// polled.
///
/// `S` is the stream of items, `F` the function, `P` who is told of progress, and `W` where items run.
#[must_use = "a fan-out starts nothing until one of its ends, `all()` for one, is awaited"]
pub struct FanOut<S, F, P = fn(Progress), W = Spawned> {
    ctx: Context,
    items: S,
    f: F,
    on_progress: Option<P>,
    call_site: CallSite,
    limit: usize,
    grace: Duration,
    place: W,
}

impl<S, F> FanOut<S, F> {
    pub(crate) fn new(ctx: &Context, items: S, f: F, call_site: CallSite) -> Self {
        FanOut {
            ctx: ctx.clone(),
            items,
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
    /// At most so many items are in flight at once; with the ends that are streams, the outcomes that wait for the consumer count
    /// too. The default is no limit: then the iterator should have an end.
    ///
    /// # Panics
    ///
    /// If `limit` is 0.
    #[track_caller]
    pub fn limit(mut self, limit: usize) -> Self {
        assert!(
            limit > 0,
            "a fan-out with a limit of 0 would never pull an item: pass at least 1, or usize::MAX for no limit"
        );
        self.limit = limit;
        self
    }

    /// How long what is in flight may run on after the context has ended, before it is dropped. By default it is dropped at
    /// once.
    ///
    /// The context ends when the caller's does, at a failure where the end stops at one, and when there is enough. The time
    /// runs on a timer of the runtime, also with [`local`](FanOut::local).
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// What items are called in errors: `name[3]`. Without it they are `item 3`.
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.call_site.name = Some(name.into());
        self
    }

    /// Has `report` called each time that an item has started or ended: never twice at once, and with counts that never go
    /// down. When the end returns, it has been told of everything.
    ///
    /// It runs on the runtime's workers, between items, and should return soon. If it panics, so does the fan-out.
    pub fn on_progress<R: FnMut(Progress)>(self, report: R) -> FanOut<S, F, R, W> {
        FanOut {
            ctx: self.ctx,
            items: self.items,
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
    /// The future or the stream of an end is `Send` if the items, the functions and the futures of
    /// the items are. So it can be awaited in a handler of a server and in a spawned task, also
    /// where the items are borrowed.
    ///
    /// The ends are the same, and mean the same. What differs: one task is one core, and nothing moves while the future, or
    /// the stream, is not polled: see [the module](mod@crate::fan_out#on-the-callers-own-task).
    pub fn local(self) -> FanOut<S, F, P, Local> {
        FanOut {
            ctx: self.ctx,
            items: self.items,
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

/// The ends, once for both places to run in.
macro_rules! ends {
    ($place:ty, $run:ident, [$($bound:tt)*], [$($auto:tt)*]) => {
        /// The ends.
        impl<S, F, Fut, T, E, P> FanOut<S, F, P, $place>
        where
            S: Stream,
            F: FnMut(Context, S::Item) -> Fut,
            Fut: Future<Output = Result<T, E>>,
            E: From<ContextError> + Display,
            P: FnMut(Progress),
            $($bound)*
        {
            /// Waits for all, and gives their values in the order of the items. Stops at the first failure.
            ///
            /// The first failure ends the context, drops what is in flight, waits until it is gone, and is returned.
            ///
            /// # Errors
            ///
            /// The first error in order of completion. If the context ends and something is left undone, `E::from` of its
            /// [`ContextError`].
            ///
            /// # Panics
            ///
            /// With the first panic of an item, of `f`, of the iterator, of `on_progress`, or of
            /// the destructor of one of these, when everything else is gone. It wins over an
            /// error. When polled outside a tokio runtime, unless [`local`](FanOut::local).
            ///
            /// # Cancel safety
            ///
            /// Dropping the future ends its context and drops what is in flight; the values that
            /// were there are lost, and a panic of a destructor is discarded.
            pub fn all(self) -> impl Future<Output = Result<Vec<T>, E>> $($auto)* + use<S, F, Fut, T, E, P> {
                CollectFuture::new(self.$run(All::default()))
            }

            /// Waits for all, and keeps nothing: for what is done for its effect, and for any number of items. Stops at the first
            /// failure.
            ///
            /// # Errors
            ///
            /// As `all`.
            ///
            /// # Panics
            ///
            /// As `all`.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future ends its context and drops what is in flight.
            pub fn for_each(self) -> impl Future<Output = Result<(), E>> $($auto)* + use<S, F, Fut, T, E, P> {
                CollectFuture::new(self.$run(ForEach))
            }

            /// Waits for all, goes on after failures, and gives the result of each in the order of the items.
            ///
            /// If the context ends first, it gives what has finished by then, and `E::from` of the [`ContextError`] for each
            /// item that has not. Those that were never pulled are among them as far as the iterator's `size_hint` has an upper
            /// bound; of one without, the result ends with the last that was pulled.
            ///
            /// # Panics
            ///
            /// As `all`.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future ends its context and drops what is in flight; the results that were there are lost.
            ///
            /// # Examples
            ///
            /// ```
            /// use errgroup::{Context, fan_out};
            /// use std::time::Duration;
            ///
            /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
            /// # async fn main() {
            /// let ctx = Context::background().with_timeout(Duration::from_millis(300));
            /// let shown = fan_out(&ctx, [100, 200, 900], |_ctx, ms| async move {
            ///     tokio::time::sleep(Duration::from_millis(ms)).await;
            ///     Ok::<_, String>(ms)
            /// })
            /// .settle()
            /// .await;
            /// assert_eq!(shown, [Ok(100), Ok(200), Err("context deadline exceeded".to_owned())]);
            /// # }
            /// ```
            pub fn settle(self) -> impl Future<Output = Vec<Result<T, E>>> $($auto)* + use<S, F, Fut, T, E, P> {
                CollectFuture::new(self.$run(Settle::default()))
            }

            /// Gives the values as they come. Stops at the first failure, which comes last: when the rest is gone.
            ///
            /// Values that had come before it come out before it. If the context ends and something is left undone, the last is
            /// `E::from` of its [`ContextError`].
            ///
            /// At most `limit` values wait for the consumer: what runs and what waits are never more. Dropping the stream stops
            /// the rest.
            ///
            /// # Panics
            ///
            /// As `all`: the panic comes out of a poll of the stream, when what came before it has been given.
            ///
            /// # Cancel safety
            ///
            /// The stream is polled, not awaited: dropping the future of a `next()` loses nothing.
            /// Of a stream that is dropped before its end, a panic of a destructor is discarded.
            pub fn try_stream(self) -> impl Stream<Item = Result<T, E>> $($auto)* + Unpin + use<S, F, Fut, T, E, P> {
                OutcomeStream::new(self.$run(TryStream::default()))
            }

            /// Gives the results as they come, in order of completion, failures included.
            ///
            /// If the context ends, there is one `E::from` of its [`ContextError`] for each item that had started and has not
            /// finished, and then the stream ends; items that were never pulled are not heard of.
            ///
            /// At most `limit` results wait for the consumer: what runs and what waits are never more. Dropping the stream stops
            /// the rest.
            ///
            /// # Panics
            ///
            /// As `try_stream`.
            ///
            /// # Cancel safety
            ///
            /// As `try_stream`.
            pub fn stream(self) -> impl Stream<Item = Result<T, E>> $($auto)* + Unpin + use<S, F, Fut, T, E, P> {
                OutcomeStream::new(self.$run(Unordered::default()))
            }

            /// Gives the results in the order of the items, failures included.
            ///
            /// As `stream`, but for the order: a slow item holds up those behind it, and with them, when `limit` of them are
            /// held up, the next.
            ///
            /// # Panics
            ///
            /// As `try_stream`.
            ///
            /// # Cancel safety
            ///
            /// As `try_stream`.
            pub fn ordered_stream(self) -> impl Stream<Item = Result<T, E>> $($auto)* + Unpin + use<S, F, Fut, T, E, P> {
                OutcomeStream::new(self.$run(Ordered::default()))
            }

            /// Gives the first success, and stops the others; when it returns, they are gone.
            ///
            /// # Errors
            ///
            /// Every failure, in order of completion, if no item succeeds. Where nothing failed, because there were no items, the
            /// one error says `cannot be reached`. If the context ends first, what was in flight is among the failures, with the
            /// [`ContextError`].
            ///
            /// # Panics
            ///
            /// As `all`.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future ends its context and drops what is in flight.
            ///
            /// # Examples
            ///
            /// ```
            /// use errgroup::{Context, fan_out};
            /// use std::time::Duration;
            ///
            /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
            /// # async fn main() {
            /// let mirrors = [("eu", 80), ("us", 20), ("ap", 50)];
            /// let first = fan_out(&Context::background(), mirrors, |_ctx, (name, ms)| async move {
            ///     tokio::time::sleep(Duration::from_millis(ms)).await;
            ///     Ok::<_, anyhow::Error>(name)
            /// })
            /// .first_ok()
            /// .await;
            /// assert_eq!(first.unwrap(), "us");
            /// # }
            /// ```
            pub fn first_ok(self) -> impl Future<Output = Result<T, Errors<E>>> $($auto)* + use<S, F, Fut, T, E, P> {
                CollectFuture::new(self.$run(FirstOk::default()))
            }

            /// Gives the first `k` successes in order of completion, and stops the others; when it returns, they are gone.
            ///
            /// A quorum of 0 is empty at once, and starts nothing.
            ///
            /// # Errors
            ///
            /// Every failure so far, as soon as `k` successes cannot be reached any more, with those that were stopped for it.
            /// Where nothing failed, because there were too few items, the one error says `cannot be reached`. If the context
            /// ends first, as `first_ok`.
            ///
            /// # Panics
            ///
            /// As `all`.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future ends its context and drops what is in flight; the values that were there are lost.
            pub fn quorum(self, k: usize) -> impl Future<Output = Result<Vec<T>, Errors<E>>> $($auto)* + use<S, F, Fut, T, E, P> {
                CollectFuture::new(self.$run(Quorum::of(k)))
            }
        }
    };
}

ends!(
    Spawned,
    spawned,
    [
        S: Send + 'static,
        F: Send + 'static,
        Fut: Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
        P: Send + 'static,
    ],
    [+ Send]
);

ends!(Local, on_this_task, [], []);

impl<S, F, P> FanOut<S, F, P, Spawned> {
    fn spawned<C, Fut, T, E>(self, collector: C) -> SpawnedRun<Pull<S, F>, C, T, E>
    where
        S: Stream + Send + 'static,
        F: FnMut(Context, S::Item) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        C: Collector<T, E, Collected: Send + 'static> + Send + 'static,
        T: Send + 'static,
        E: From<ContextError> + Display + Send + 'static,
        P: FnMut(Progress) + Send + 'static,
    {
        let pull = Box::pin(Pull::new(self.items, self.f));
        let report = self.on_progress.map(|report| Box::new(report) as Report);
        let (limit, grace) = (self.limit, self.grace);
        SpawnedRun::new(
            &self.ctx,
            pull,
            collector,
            report,
            self.call_site,
            limit,
            grace,
        )
    }
}

impl<S, F, P> FanOut<S, F, P, Local> {
    fn on_this_task<C, Fut, T, E>(self, collector: C) -> LocalRun<Pull<S, F>, Fut, C, T, E, P>
    where
        S: Stream,
        F: FnMut(Context, S::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Collector<T, E>,
        E: From<ContextError> + Display,
        P: FnMut(Progress),
    {
        let pull = Box::pin(Pull::new(self.items, self.f));
        let report = self.on_progress.map(Box::new);
        let (limit, grace) = (self.limit, self.grace);
        LocalRun::new(
            &self.ctx,
            pull,
            collector,
            report,
            self.call_site,
            limit,
            grace,
        )
    }
}
