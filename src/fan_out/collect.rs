//! What an end does with outcomes. How the items run is none of its business.

use super::call_site::CallSite;
use super::causes::TASKS_ABORTED;
use super::item_tag::Stopwatch;
use crate::context::ContextError;
use crate::context::{Cause, Note};
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::failures::{Failures, OnFailure};

pub(super) mod all;
pub(super) mod quorum;
pub(super) mod settle;
pub(super) mod stream;

/// One of the ends: `all`, `settle`, `first_ok`, a stream, …
///
/// Methods that take `&mut self` run under the lock of the core, and call no user code.
pub(crate) trait Collector<T, E>: Default {
    /// What is collected of an item that has ended.
    type Collected;
    /// What comes out when all is over; of a stream, what it gives last.
    type Output;
    /// What says how long an item ran; `()` where no error is to say so.
    type Stopwatch: Stopwatch;

    const ON_FAILURE: OnFailure;
    /// Whether nobody looks at an outcome before the last: see [`batch`](crate::scheduler::batch).
    const BATCHES: bool = false;

    /// Decides, in the item's own worker, what its result is to the others: a failure is recorded, in the order in which
    /// items end.
    fn classify(result: Result<T, E>) -> Result<Self::Collected, TaskErrorKind<E>>;
    /// Whether what is collected is a success; for whoever counts.
    fn succeeded(_: &Self::Collected) -> bool {
        true
    }
    /// Takes what an item gave: nothing, if its failure was recorded or it was stopped. Hands back what is not needed.
    fn collect(
        &mut self,
        number: usize,
        collected: Option<Self::Collected>,
    ) -> Option<Self::Collected>;
    /// Whether it has been decided how this ends, if at most so many successes may still come; and why.
    fn decision(&self, _more: usize) -> Option<&'static Note> {
        None
    }
    /// How many outcomes wait for the consumer.
    fn waiting(&self) -> usize {
        0
    }
    /// Whether one of them may go out.
    fn is_ready(&self) -> bool {
        false
    }
    /// Makes the output, when all is over and gone.
    fn finish(self, summary: RunSummary<E>) -> Self::Output;
}

/// An end that hands outcomes out as they come.
pub(crate) trait StreamCollector<T, E>:
    Collector<T, E, Output = Option<Result<T, E>>>
{
    /// Takes the next outcome that may go out.
    fn take(&mut self) -> Option<ItemOutcome<T, E>>;
}

/// The outcome of one item, as a stream hands it to its consumer.
pub(crate) enum ItemOutcome<T, E> {
    /// The item has returned.
    Returned(Result<T, E>),
    /// The item was stopped, or has panicked. A panic is recorded, and resumed when the run is over.
    Stopped,
}

impl<T, E> From<Option<Result<T, E>>> for ItemOutcome<T, E> {
    fn from(collected: Option<Result<T, E>>) -> Self {
        collected.map_or(ItemOutcome::Stopped, ItemOutcome::Returned)
    }
}

/// How the whole has ended.
pub(crate) struct RunSummary<E> {
    pub(crate) failures: Failures<E>,
    /// Whether the last item has been pulled.
    pub(crate) exhausted: bool,
    /// At most how many items were never pulled, where that is known.
    pub(crate) left: Option<usize>,
    /// How the context ended, if it did before all was over.
    pub(crate) error: Option<ContextError>,
    /// Whether it was the end's own decision that ended it.
    pub(crate) decided: bool,
    pub(crate) call_site: CallSite,
}

impl<E> RunSummary<E> {
    /// Why an item has not come to its end.
    pub(crate) fn reason(&self) -> ContextError {
        reason(self.error.clone())
    }
}

/// Without an end of the context, it was the runtime that stopped the items.
pub(crate) fn reason(error: Option<ContextError>) -> ContextError {
    error.unwrap_or_else(|| ContextError::cancelled(Some(Cause::note(&TASKS_ABORTED))))
}
