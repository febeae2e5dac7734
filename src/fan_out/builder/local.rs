//! The terminal operations of a fan-out that runs on the caller's own task.

use std::fmt::Display;
use std::future::Future;

use futures_core::Stream;

use super::{FanOut, Local, pull};
use crate::context::{Context, ContextError};
use crate::fan_out::collect::Collector;
use crate::fan_out::collect::all::{All, ForEach};
use crate::fan_out::collect::indexed::Indexed;
use crate::fan_out::collect::quorum::{FirstOk, Quorum};
use crate::fan_out::collect::settle::Settle;
use crate::fan_out::collect::stream::{Ordered, TryStream, Unordered};
use crate::fan_out::items::Pull;
use crate::fan_out::local::LocalRun;
use crate::fan_out::outcomes::{Outcomes, Stop};
use crate::fan_out::progress::Progress;
use crate::fan_out::run::{CollectFuture, OutcomeStream};
use crate::scheduler::error::Errors;

/// Terminal operations of a fan-out that runs on the caller's own task.
///
/// Each of them takes the builder and returns a future or a stream, which starts the items when it
/// is first polled. It is `Send` if the items, the functions and the futures of the items are.
impl<S, F, Fut, T, E, P> FanOut<S, F, P, Local>
where
    S: Stream,
    F: FnMut(Context, S::Item) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    E: From<ContextError> + Display,
    P: FnMut(Progress),
{
    /// Waits for all items and returns their values in the order of the items. Stops at the first
    /// failure.
    ///
    /// The first failure cancels the context, which drops the items in flight (after the
    /// [`grace`](FanOut::grace) period, if one is set), and is returned when they have been
    /// dropped.
    ///
    /// Nothing moves while the future is not polled.
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
    /// # Cancel safety
    ///
    /// Dropping the future cancels the context and drops the items in flight. Values that were
    /// already collected are lost, and a panic of a destructor is discarded.
    ///
    /// # Examples
    ///
    /// The function borrows `prefix`, which a fan-out on tasks of the runtime cannot do.
    ///
    /// ```
    /// use errgroup::{Context, fan_out};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), String> {
    /// let prefix = String::from("page ");
    /// let names = fan_out(&Context::background(), 0..3, async |_ctx, n| {
    ///     Ok::<_, String>(format!("{prefix}{n}"))
    /// });
    /// assert_eq!(names.local().all().await?, ["page 0", "page 1", "page 2"]);
    /// # Ok(()) }
    /// ```
    pub fn all(self) -> impl Future<Output = Result<Vec<T>, E>> + use<S, F, Fut, T, E, P> {
        CollectFuture::new(self.into_run(All::default()))
    }

    /// Waits for all items and discards their values. Stops at the first failure.
    ///
    /// For functions that are called for their effect. Keeps nothing, so it suits any number of
    /// items. The first failure cancels the context, which drops the items in flight (after the
    /// [`grace`](FanOut::grace) period, if one is set), and is returned when they have been
    /// dropped.
    ///
    /// Nothing moves while the future is not polled.
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
    /// # Cancel safety
    ///
    /// Dropping the future cancels the context and drops the items in flight. A panic of a
    /// destructor is discarded.
    pub fn for_each(self) -> impl Future<Output = Result<(), E>> + use<S, F, Fut, T, E, P> {
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
    /// Nothing moves while the future is not polled.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these, once everything else has been dropped. A panic wins over
    /// an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the context and drops the items in flight. Results that were
    /// already collected are lost, and a panic of a destructor is discarded.
    pub fn settle(self) -> impl Future<Output = Vec<Result<T, E>>> + use<S, F, Fut, T, E, P> {
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
    /// Nothing moves while the stream is not polled.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these. A poll of the stream resumes it after the outcomes before
    /// it were handed out.
    ///
    /// # Cancel safety
    ///
    /// A stream is polled and not awaited: dropping the future of a `next()` loses nothing. If the
    /// stream is dropped half-way, a panic of a destructor is discarded.
    pub fn try_stream(self) -> Outcomes<impl Stop<Item = Result<T, E>> + use<S, F, Fut, T, E, P>> {
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
    /// Nothing moves while the stream is not polled.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these. A poll of the stream resumes it after the outcomes before
    /// it were handed out.
    ///
    /// # Cancel safety
    ///
    /// A stream is polled and not awaited: dropping the future of a `next()` loses nothing. If the
    /// stream is dropped half-way, a panic of a destructor is discarded.
    pub fn stream(self) -> Outcomes<impl Stop<Item = Result<T, E>> + use<S, F, Fut, T, E, P>> {
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
    /// Nothing moves while the stream is not polled.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these. A poll of the stream resumes it after the outcomes before
    /// it were handed out.
    ///
    /// # Cancel safety
    ///
    /// A stream is polled and not awaited: dropping the future of a `next()` loses nothing. If the
    /// stream is dropped half-way, a panic of a destructor is discarded.
    pub fn ordered_stream(
        self,
    ) -> Outcomes<impl Stop<Item = Result<T, E>> + use<S, F, Fut, T, E, P>> {
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
    /// Nothing moves while the stream is not polled.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these. A poll of the stream resumes it after the outcomes before
    /// it were handed out.
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
    /// let mut delays = delays.local().indexed_stream();
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
    ) -> Outcomes<impl Stop<Item = (usize, Result<T, E>)> + use<S, F, Fut, T, E, P>> {
        Outcomes::new(OutcomeStream::new(self.into_run(Indexed::default())))
    }

    /// Returns the first success and cancels the other items. When it returns, they have been
    /// dropped.
    ///
    /// Nothing moves while the future is not polled.
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
    /// # Cancel safety
    ///
    /// Dropping the future cancels the context and drops the items in flight. A panic of a
    /// destructor is discarded.
    pub fn first_ok(self) -> impl Future<Output = Result<T, Errors<E>>> + use<S, F, Fut, T, E, P> {
        CollectFuture::new(self.into_run(FirstOk::default()))
    }

    /// Returns the first `k` successes in order of completion and cancels the other items. When it
    /// returns, they have been dropped.
    ///
    /// A quorum of 0 returns at once and starts nothing.
    ///
    /// Nothing moves while the future is not polled.
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
    /// # Cancel safety
    ///
    /// Dropping the future cancels the context and drops the items in flight. Values that were
    /// already collected are lost, and a panic of a destructor is discarded.
    pub fn quorum(
        self,
        k: usize,
    ) -> impl Future<Output = Result<Vec<T>, Errors<E>>> + use<S, F, Fut, T, E, P> {
        CollectFuture::new(self.into_run(Quorum::of(k)))
    }
}

impl<S, F, P> FanOut<S, F, P, Local> {
    fn into_run<C, Fut, T, E>(self, collector: C) -> LocalRun<Pull<S, F, Fut>, Fut, C, T, E, P>
    where
        S: Stream,
        F: FnMut(Context, S::Item) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Collector<T, E>,
        E: From<ContextError> + Display,
        P: FnMut(Progress),
    {
        let pull = pull(self.items, self.f, self.kind, &self.limit);
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
