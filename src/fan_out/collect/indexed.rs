//! The collector of `indexed_stream`: outcomes in order of completion, with the number of the item.

use super::stream::Waiting;
use super::{Collector, ItemOutcome, RunSummary, StreamCollector, Taken};
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::failures::OnFailure;

/// The outcomes that wait for the consumer, each with the number of its item.
pub(crate) struct Indexed<T, E> {
    waiting: Waiting<(usize, ItemOutcome<T, E>)>,
}

impl<T, E> Default for Indexed<T, E> {
    fn default() -> Self {
        Indexed {
            waiting: Waiting::default(),
        }
    }
}

impl<T, E> Collector<T, E> for Indexed<T, E> {
    type Collected = Result<T, E>;
    type Output = Option<(usize, Result<T, E>)>;
    type Stopwatch = ();

    const ON_FAILURE: OnFailure = OnFailure::EndAtPanic;

    fn classify(result: Result<T, E>) -> Result<Result<T, E>, TaskErrorKind<E>> {
        Ok(result)
    }

    fn succeeded(result: &Result<T, E>) -> bool {
        result.is_ok()
    }

    fn collect(&mut self, number: usize, result: Option<Result<T, E>>) -> Option<Result<T, E>> {
        self.waiting.outcomes.push_back((number, result.into()));
        None
    }

    fn waiting(&self) -> usize {
        self.waiting.outcomes.len()
    }

    fn is_ready(&self) -> bool {
        !self.waiting.outcomes.is_empty()
    }

    fn finish(self, summary: RunSummary<E>) -> Self::Output {
        summary.failures.resume_panic();
        None
    }
}

impl<T, E> StreamCollector<T, E> for Indexed<T, E> {
    type Element = (usize, Result<T, E>);
    type Key = usize;

    fn take(&mut self) -> Option<Taken<Self, T, E>> {
        self.waiting.outcomes.pop_front()
    }

    fn element(number: usize, result: Result<T, E>) -> Self::Element {
        (number, result)
    }

    fn last(output: Self::Output) -> Option<Self::Element> {
        output
    }
}
