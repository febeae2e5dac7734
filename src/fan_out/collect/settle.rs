//! A collector that waits for all items and continues after failures.

use super::all::Slots;
use super::{Collector, RunSummary};
use crate::context::ContextError;
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::failures::OnFailure;

/// The collector of `settle`.
pub(crate) struct Settle<T, E> {
    slots: Slots<Result<T, E>>,
}

impl<T, E> Default for Settle<T, E> {
    fn default() -> Self {
        Settle {
            slots: Slots::default(),
        }
    }
}

impl<T, E: From<ContextError>> Collector<T, E> for Settle<T, E> {
    type Collected = Result<T, E>;
    type Output = Vec<Result<T, E>>;
    type Stopwatch = ();

    const ON_FAILURE: OnFailure = OnFailure::EndAtPanic;
    const BATCHES: bool = true;

    fn expect(&mut self, items: usize) {
        self.slots.reserve(items);
    }

    fn classify(result: Result<T, E>) -> Result<Result<T, E>, TaskErrorKind<E>> {
        Ok(result)
    }

    fn succeeded(result: &Result<T, E>) -> bool {
        result.is_ok()
    }

    fn collect(&mut self, number: usize, result: Option<Result<T, E>>) -> Option<Result<T, E>> {
        self.slots.put(number, result);
        None
    }

    fn finish(mut self, summary: RunSummary<E>) -> Vec<Result<T, E>> {
        let (exhausted, reason) = (summary.exhausted, summary.reason());
        let left = if exhausted {
            0
        } else {
            summary.left.unwrap_or(0)
        };
        summary.failures.resume_panic();
        let stopped = || Err(E::from(reason.clone()));
        let results = self.slots.take().into_iter();
        let mut results: Vec<_> = results
            .map(|result| result.unwrap_or_else(stopped))
            .collect();
        // An upper bound that does not fit into memory, such as that of `0..usize::MAX`, is treated
        // as no bound.
        if results.try_reserve_exact(left).is_ok() {
            results.extend(std::iter::repeat_with(stopped).take(left));
        }
        results
    }
}
