//! The future and the stream that the caller of a terminal operation gets.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use futures_core::Stream;
use tokio::task::coop;

use super::collect::{Collector, ItemOutcome, RunSummary, StreamCollector, Taken};
use super::outcomes::{Sealed, Stop};
use crate::context::ContextError;
use crate::panic;

/// A run of items: on workers, or on the caller's own task.
///
/// Dropping it half-way stops the items that it started. A poll that is ready consumes tokio's
/// cooperative budget of the task. Otherwise a loop over fan-outs that are ready at once would
/// starve the runtime.
pub(crate) trait Run<T, E>: Unpin {
    type Collector: Collector<T, E>;

    /// Waits until every item has finished or was dropped. May be polled again after that.
    fn poll_over(&mut self, cx: &mut task::Context<'_>) -> Poll<()>;
    /// Polls for the next outcome; `None` when the run is over.
    fn poll_outcome(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Taken<Self::Collector, T, E>>>
    where
        Self::Collector: StreamCollector<T, E>;
    /// Cancels the context, so that no item starts and those in flight are stopped. If the run has
    /// not started, it is over.
    fn stop(&mut self);
    /// Returns whether there is a panic to resume when the run is over.
    fn has_panicked(&self) -> bool;
    /// Returns the error of an item that was stopped.
    fn reason(&self) -> ContextError;
    /// Returns the collector and the summary. Is called once, when the run is over.
    fn finish(&mut self) -> (Self::Collector, RunSummary<E>);
}

/// The future of a terminal operation that collects.
pub(crate) struct CollectFuture<R, T, E> {
    run: Option<R>,
    result: PhantomData<fn() -> (T, E)>,
}

impl<R, T, E> CollectFuture<R, T, E> {
    pub(crate) fn new(run: R) -> Self {
        CollectFuture {
            run: Some(run),
            result: PhantomData,
        }
    }
}

impl<R, T, E> Future for CollectFuture<R, T, E>
where
    R: Run<T, E>,
{
    type Output = <R::Collector as Collector<T, E>>::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let Some(run) = &mut self.run else {
            panic!("the future of a fan-out was polled after it had completed");
        };
        ready!(run.poll_over(cx));
        let (collector, summary) = run.finish();
        self.run = None;
        Poll::Ready(collector.finish(summary))
    }
}

/// The stream of a terminal operation that hands out outcomes while the items run.
pub(crate) struct OutcomeStream<R, T, E> {
    run: Option<R>,
    /// Whether `stop` was called.
    stopped: bool,
    result: PhantomData<fn() -> (T, E)>,
}

impl<R, T, E> OutcomeStream<R, T, E> {
    pub(crate) fn new(run: R) -> Self {
        OutcomeStream {
            run: Some(run),
            stopped: false,
            result: PhantomData,
        }
    }
}

impl<R, T, E> Stream for OutcomeStream<R, T, E>
where
    R: Run<T, E, Collector: StreamCollector<T, E>>,
    E: From<ContextError>,
{
    type Item = <R::Collector as StreamCollector<T, E>>::Element;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(run) = &mut self.run else {
            ready!(coop::poll_proceed(cx)).made_progress();
            return Poll::Ready(None);
        };
        // The loop ends: each round takes an outcome, and after a panic no further item starts.
        loop {
            return Poll::Ready(match ready!(run.poll_outcome(cx)) {
                Some((key, ItemOutcome::Returned(result))) => {
                    Some(R::Collector::element(key, result))
                }
                // The error is left out: a consumer that stops at an error would not see the panic.
                Some((_, ItemOutcome::Stopped)) if run.has_panicked() => continue,
                Some((key, ItemOutcome::Stopped)) => {
                    let stopped = Err(E::from(run.reason()));
                    Some(R::Collector::element(key, stopped))
                }
                None => {
                    let (collector, summary) = run.finish();
                    self.run = None;
                    R::Collector::last(collector.finish(summary))
                }
            });
        }
    }
}

impl<R, T, E> Sealed for OutcomeStream<R, T, E> {}

impl<R, T, E> Stop for OutcomeStream<R, T, E>
where
    R: Run<T, E, Collector: StreamCollector<T, E>>,
    E: From<ContextError>,
{
    fn poll_stop(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let Some(run) = &mut self.run else {
            ready!(coop::poll_proceed(cx)).made_progress();
            return Poll::Ready(());
        };
        if !std::mem::replace(&mut self.stopped, true) {
            run.stop();
        }
        // The loop ends: each round takes an outcome, and no further item starts.
        while let Some(outcome) = ready!(run.poll_outcome(cx)) {
            panic::discard(outcome);
        }
        let (collector, summary) = run.finish();
        self.run = None;
        panic::discard(collector.finish(summary));
        Poll::Ready(())
    }
}
