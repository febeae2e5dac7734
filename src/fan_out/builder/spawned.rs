//! The terminal operations of a fan-out that runs on tasks of the runtime.

use std::future::Future;

use futures_core::Stream;

#[cfg(doc)]
use super::{Blocking, Spawned};
use super::{FanOut, OnRuntime, pull};
use crate::context::Context;
#[cfg(doc)]
use crate::context::ContextError;
use crate::fan_out::collect::Collector;
use crate::fan_out::collect::all::{All, ForEach};
use crate::fan_out::collect::indexed::Indexed;
use crate::fan_out::collect::quorum::{FirstOk, Quorum};
use crate::fan_out::collect::settle::Settle;
use crate::fan_out::collect::stream::{Ordered, TryStream, Unordered};
use crate::fan_out::item_source::Report;
use crate::fan_out::items::Pull;
use crate::fan_out::outcomes::{Outcomes, Stop};
use crate::fan_out::progress::Progress;
use crate::fan_out::run::{CollectFuture, OutcomeStream};
use crate::fan_out::spawned::{AtEnd, SpawnedRun};
use crate::scheduler::error::Errors;
use crate::scheduler::group_error::GroupError;

/// Terminal operations of a fan-out that runs on tasks of the runtime. `W` is [`Spawned`] or
/// [`Blocking`].
///
/// Of a [`fan_out_blocking`](crate::fan_out_blocking()), an item whose call has begun is never
/// dropped: the operation waits for it.
///
/// Each of them takes the builder and returns a future or a stream, which starts the items when it
/// is first polled.
impl<S, F, Fut, T, E, P, W> FanOut<S, F, P, W>
where
    S: Stream + Send + 'static,
    F: FnMut(Context, S::Item) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: GroupError,
    P: FnMut(Progress) + Send + 'static,
    T: Send + 'static,
    W: OnRuntime,
{
    /// Waits for all items and returns their values in the order of the items. Stops at the first
    /// failure.
    ///
    /// The first failure cancels the context, which drops the items in flight (after the
    /// [`grace`](FanOut::grace) period, if one is set), and is returned when they have been
    /// dropped.
    ///
    /// # Errors
    ///
    /// Returns the first error in order of completion. If the context is done before every item has
    /// finished, returns `E::from` of its [`ContextError`].
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these, once everything else has been dropped. A panic wins over
    /// an error.
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the context and drops the items in flight. Values that were
    /// already collected are lost, and a panic of a destructor is discarded.
    #[doc(alias = "try_collect")]
    pub fn all(
        self,
    ) -> impl Future<Output = Result<Vec<T>, E>> + Send + use<S, F, Fut, T, E, P, W> {
        CollectFuture::new(self.into_run(All::default()))
    }

    /// Waits for all items and discards their values. Stops at the first failure.
    ///
    /// For functions that are called for their effect. Keeps nothing, so it suits any number of
    /// items. The first failure cancels the context, which drops the items in flight (after the
    /// [`grace`](FanOut::grace) period, if one is set), and is returned when they have been
    /// dropped.
    ///
    /// # Errors
    ///
    /// Returns the first error in order of completion. If the context is done before every item has
    /// finished, returns `E::from` of its [`ContextError`].
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these, once everything else has been dropped. A panic wins over
    /// an error.
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the context and drops the items in flight. A panic of a
    /// destructor is discarded.
    #[doc(alias("for_each_concurrent", "try_for_each_concurrent"))]
    pub fn for_each(
        self,
    ) -> impl Future<Output = Result<(), E>> + Send + use<S, F, Fut, T, E, P, W> {
        CollectFuture::new(self.into_run(ForEach))
    }

    /// Waits for all items, continues after failures, and returns the result of each item in the
    /// order of the items.
    ///
    /// If the context is done first, returns the results of the items that have finished, and
    /// `E::from` of the [`ContextError`] for each item that has not. Items that were never pulled
    /// are included if the iterator's `size_hint` has an upper bound. Without an upper bound, the
    /// last result is that of the last item that was pulled.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these, once everything else has been dropped. A panic wins over
    /// an error.
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the context and drops the items in flight. Results that were
    /// already collected are lost, and a panic of a destructor is discarded.
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
    #[doc(alias("allSettled", "Promise.allSettled", "join_all"))]
    pub fn settle(
        self,
    ) -> impl Future<Output = Vec<Result<T, E>>> + Send + use<S, F, Fut, T, E, P, W> {
        CollectFuture::new(self.into_run(Settle::default()))
    }

    /// Yields the values as the items finish. Stops at the first failure, which is the last thing
    /// that the stream yields.
    ///
    /// The failure cancels the context and is yielded when the items in flight have been dropped.
    /// Values that were there before the failure are yielded before it. If the context is done
    /// before every item has finished, the stream ends with `E::from` of its [`ContextError`].
    ///
    /// Backpressure: the items in flight and the values that wait for the consumer are never more
    /// than `limit` together. Dropping the stream cancels the items in flight;
    /// [`stop`](Outcomes::stop) also waits until they have been dropped.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these. A poll of the stream resumes it after the outcomes before
    /// it were handed out.
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// A stream is polled and not awaited: dropping the future of a `next()` loses nothing. If the
    /// stream is dropped half-way, a panic of a destructor is discarded.
    #[doc(alias = "try_buffer_unordered")]
    pub fn try_stream(
        self,
    ) -> Outcomes<impl Stop<Item = Result<T, E>> + Send + use<S, F, Fut, T, E, P, W>> {
        Outcomes::new(OutcomeStream::new(self.into_run(TryStream::default())))
    }

    /// Yields the results in order of completion, failures included.
    ///
    /// If the context is done first, the stream yields `E::from` of its [`ContextError`] once for
    /// each item that has started and not finished, and then ends. It yields nothing for items that
    /// were never pulled.
    ///
    /// Backpressure: the items in flight and the results that wait for the consumer are never more
    /// than `limit` together. Dropping the stream cancels the items in flight;
    /// [`stop`](Outcomes::stop) also waits until they have been dropped.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these. A poll of the stream resumes it after the outcomes before
    /// it were handed out.
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// A stream is polled and not awaited: dropping the future of a `next()` loses nothing. If the
    /// stream is dropped half-way, a panic of a destructor is discarded.
    #[doc(alias("buffer_unordered", "as_completed", "join_next"))]
    pub fn stream(
        self,
    ) -> Outcomes<impl Stop<Item = Result<T, E>> + Send + use<S, F, Fut, T, E, P, W>> {
        Outcomes::new(OutcomeStream::new(self.into_run(Unordered::default())))
    }

    /// Yields the results in the order of the items, failures included.
    ///
    /// A slow item holds up the results behind it. The items in flight and the results that wait
    /// are never more than `limit` together, so a slow item also stops the pulling after a while.
    ///
    /// If the context is done first, the stream yields `E::from` of its [`ContextError`] for each
    /// item that has started and not finished, and then ends. It yields nothing for items that were
    /// never pulled.
    ///
    /// Dropping the stream cancels the items in flight;
    /// [`stop`](Outcomes::stop) also waits until they have been dropped.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these. A poll of the stream resumes it after the outcomes before
    /// it were handed out.
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// A stream is polled and not awaited: dropping the future of a `next()` loses nothing. If the
    /// stream is dropped half-way, a panic of a destructor is discarded.
    #[doc(alias("buffered", "FuturesOrdered"))]
    pub fn ordered_stream(
        self,
    ) -> Outcomes<impl Stop<Item = Result<T, E>> + Send + use<S, F, Fut, T, E, P, W>> {
        Outcomes::new(OutcomeStream::new(self.into_run(Ordered::default())))
    }

    /// Yields each result with the position of its item, in order of completion, failures included.
    ///
    /// Positions are counted from 0 in the order of the items. Each item that has started is
    /// yielded once. If the context is done first, the stream yields `E::from` of its
    /// [`ContextError`] for each item that has started and not finished, and then ends. It yields
    /// nothing for items that were never pulled.
    ///
    /// Backpressure: the items in flight and the results that wait for the consumer are never more
    /// than `limit` together. Dropping the stream cancels the items in flight;
    /// [`stop`](Outcomes::stop) also waits until they have been dropped.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these. A poll of the stream resumes it after the outcomes before
    /// it were handed out.
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// A stream is polled and not awaited: dropping the future of a `next()` loses nothing. If the
    /// stream is dropped half-way, a panic of a destructor is discarded.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, fan_out};
    /// use futures::StreamExt;
    /// # use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), String> {
    /// let delays = fan_out(&Context::background(), [30, 10, 20], |_ctx, ms| async move {
    ///     tokio::time::sleep(Duration::from_millis(ms)).await;
    ///     Ok::<_, String>(ms)
    /// });
    /// let mut delays = delays.indexed_stream();
    /// let mut seen = Vec::new();
    /// while let Some((index, ms)) = delays.next().await {
    ///     seen.push((index, ms?));
    /// }
    /// assert_eq!(seen, [(1, 10), (2, 20), (0, 30)]);
    /// # Ok(()) }
    /// ```
    #[doc(alias = "enumerate")]
    pub fn indexed_stream(
        self,
    ) -> Outcomes<impl Stop<Item = (usize, Result<T, E>)> + Send + use<S, F, Fut, T, E, P, W>> {
        Outcomes::new(OutcomeStream::new(self.into_run(Indexed::default())))
    }

    /// Returns the first success and cancels the other items. When it returns, they have been
    /// dropped.
    ///
    /// # Errors
    ///
    /// Returns every failure in order of completion if no item succeeds. If nothing failed because
    /// there were no items, the one error is `quorum not reached`, with the source
    /// `0 of 1 required successes`. If the context is done first, the items that were in flight are
    /// among the failures, with its [`ContextError`].
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these, once everything else has been dropped. A panic wins over
    /// an error.
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the context and drops the items in flight. A panic of a
    /// destructor is discarded.
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
    #[doc(alias(
        "select_ok",
        "Promise.any",
        "race_ok",
        "invokeAny",
        "anySuccessfulResultOrThrow"
    ))]
    pub fn first_ok(
        self,
    ) -> impl Future<Output = Result<T, Errors<E>>> + Send + use<S, F, Fut, T, E, P, W> {
        CollectFuture::new(self.into_run(FirstOk::default()))
    }

    /// Returns the first `k` successes in order of completion and cancels the other items. When it
    /// returns, they have been dropped.
    ///
    /// A quorum of 0 returns at once and starts nothing.
    ///
    /// # Errors
    ///
    /// As soon as `k` successes can no longer be reached, cancels the items in flight and returns
    /// every failure so far, those items included. If nothing failed because there were too few
    /// items, the one error is `quorum not reached`, with a source such as
    /// `1 of 3 required successes`. If the context is done first, the items that were in flight are
    /// among the failures, with its [`ContextError`].
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these, once everything else has been dropped. A panic wins over
    /// an error.
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the context and drops the items in flight. Values that were
    /// already collected are lost, and a panic of a destructor is discarded.
    #[doc(alias = "Promise.some")]
    pub fn quorum(
        self,
        k: usize,
    ) -> impl Future<Output = Result<Vec<T>, Errors<E>>> + Send + use<S, F, Fut, T, E, P, W> {
        CollectFuture::new(self.into_run(Quorum::of(k)))
    }
}

impl<S, F, P, W: OnRuntime> FanOut<S, F, P, W> {
    /// Returns the run. The items of a fan-out that blocks have no grace period: they are never
    /// dropped while they run.
    fn into_run<C, Fut, T, E>(self, collector: C) -> SpawnedRun<Pull<S, F, Fut>, C, T, E>
    where
        S: Stream + Send + 'static,
        F: FnMut(Context, S::Item) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        C: Collector<T, E, Collected: Send + 'static> + Send + 'static,
        T: Send + 'static,
        E: GroupError,
        P: FnMut(Progress) + Send + 'static,
    {
        let pull = pull(self.items, self.f, self.kind, &self.limit);
        let report = self.on_progress.map(|report| Box::new(report) as Report);
        let at_end = match self.place.into_pool() {
            Some(pool) => AtEnd::WaitFor(pool),
            None => AtEnd::Drop(self.grace),
        };
        SpawnedRun::new(
            &self.ctx,
            pull,
            collector,
            report,
            self.call_site,
            self.limit,
            at_end,
        )
    }
}
