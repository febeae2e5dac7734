//! The collectors: what a terminal operation keeps of the items' results, and what it returns.
//!
//! A collector does not know how the items run. Runs on workers and on the caller's own task use
//! the same collectors.

use super::call_site::CallSite;
use super::causes::TASKS_ABORTED;
use super::item_tag::Stopwatch;
use crate::context::ContextError;
use crate::context::{Cause, StaticCause};
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::failures::{Failures, OnFailure};

pub(super) mod all;
pub(super) mod indexed;
pub(super) mod quorum;
pub(super) mod settle;
pub(super) mod stream;

/// The collector of a terminal operation: `all`, `settle`, `first_ok`, a stream, …
///
/// Methods that take `&mut self` or `&self` run under the lock of the scheduler, so they must not
/// call user code.
pub(crate) trait Collector<T, E>: Default {
    /// The value that is kept of an item that has finished.
    type Collected;
    /// The result of the terminal operation; for a stream, its last element.
    type Output;
    /// Measures how long an item ran; `()` if no error reports that.
    type Stopwatch: Stopwatch;

    /// Says which failures cancel the other items.
    const ON_FAILURE: OnFailure;
    /// Allows a worker to report several completions at once, because no outcome is read before the
    /// last one: see [`batch`](crate::fan_out::batch).
    const BATCHES: bool = false;

    /// Reserves memory for this many values.
    fn expect(&mut self, _items: usize) {}
    /// Splits a result into a value to collect and a failure to record. Runs on the item's own
    /// worker, without the lock. Failures are recorded in order of completion.
    fn classify(result: Result<T, E>) -> Result<Self::Collected, TaskErrorKind<E>>;
    /// Returns whether a collected value counts as a success in [`Progress`](crate::Progress).
    fn succeeded(_: &Self::Collected) -> bool {
        true
    }
    /// Keeps the value of an item. It is `None` if the failure of the item was recorded or the item
    /// was stopped. Returns the value if it is not needed, so that it is dropped outside the lock.
    fn collect(
        &mut self,
        number: usize,
        collected: Option<Self::Collected>,
    ) -> Option<Self::Collected>;
    /// Returns the cause with which to cancel the context if the result is decided. At most `_more`
    /// further items may succeed.
    fn decision(&self, _more: usize) -> Option<&'static StaticCause> {
        None
    }
    /// Returns how many outcomes wait for the consumer.
    fn waiting(&self) -> usize {
        0
    }
    /// Returns whether an outcome can be handed to the consumer now.
    fn is_ready(&self) -> bool {
        false
    }
    /// Makes the output, when every item has finished or was dropped. May resume a panic of an
    /// item.
    fn finish(self, summary: RunSummary<E>) -> Self::Output;
}

/// A collector that hands outcomes to a consumer while the items run.
pub(crate) trait StreamCollector<T, E>: Collector<T, E> {
    /// What the stream yields for an item.
    type Element;
    /// What an element has beside the result: the number of its item, or nothing.
    type Key;

    /// Takes the next outcome, if one is ready.
    fn take(&mut self) -> Option<Taken<Self, T, E>>;
    /// Makes the element of a result. Runs without the lock.
    fn element(key: Self::Key, result: Result<T, E>) -> Self::Element;
    /// Returns the last element, of which `finish` has made the output.
    fn last(output: Self::Output) -> Option<Self::Element>;
}

/// An outcome that was taken from a collector.
pub(crate) type Taken<C, T, E> = (<C as StreamCollector<T, E>>::Key, ItemOutcome<T, E>);

/// The outcome of one item, as a stream hands it to its consumer.
pub(crate) enum ItemOutcome<T, E> {
    /// The item has returned.
    Returned(Result<T, E>),
    /// The item was stopped, or has panicked. A panic is recorded, and resumed when the run is
    /// over.
    Stopped,
}

impl<T, E> From<Option<Result<T, E>>> for ItemOutcome<T, E> {
    fn from(collected: Option<Result<T, E>>) -> Self {
        collected.map_or(ItemOutcome::Stopped, ItemOutcome::Returned)
    }
}

/// A summary of a run that is over.
pub(crate) struct RunSummary<E> {
    pub(crate) failures: Failures<E>,
    /// Whether the last item has been pulled.
    pub(crate) exhausted: bool,
    /// An upper bound of the items that were never pulled, if one is known.
    pub(crate) left: Option<usize>,
    /// The error of the context, if it was done before the run was over.
    pub(crate) error: Option<ContextError>,
    /// Whether the collector decided the result, so that the run was cut short.
    pub(crate) decided: bool,
    pub(crate) call_site: CallSite,
}

impl<E> RunSummary<E> {
    /// Returns the error of an item that has not finished.
    pub(crate) fn reason(&self) -> ContextError {
        reason(self.error.clone())
    }
}

/// Returns the error of an item that has not finished. If the context is not done, the runtime has
/// aborted the tasks.
pub(crate) fn reason(error: Option<ContextError>) -> ContextError {
    error.unwrap_or_else(|| ContextError::cancelled(Some(Cause::from_static(&TASKS_ABORTED))))
}
