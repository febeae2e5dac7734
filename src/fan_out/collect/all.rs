//! Collectors that wait for all items and stop at the first failure.

use super::{Collector, RunSummary};
use crate::context::ContextError;
use crate::panic;
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::failures::OnFailure;

/// The values of the items, in the order of the items.
pub(crate) struct Slots<V> {
    values: Vec<Option<V>>,
}

impl<V> Default for Slots<V> {
    fn default() -> Self {
        Slots { values: Vec::new() }
    }
}

impl<V> Slots<V> {
    pub(crate) fn reserve(&mut self, values: usize) {
        self.values.reserve_exact(values);
    }

    /// Sets the value of an item; `None` if the item failed or was stopped.
    pub(crate) fn put(&mut self, number: usize, value: Option<V>) {
        if self.values.len() < number {
            self.values.resize_with(number, || None);
        }
        match self.values.get_mut(number) {
            Some(slot) => *slot = value,
            None => self.values.push(value),
        }
    }

    /// Returns whether an item has no value.
    pub(crate) fn has_gap(&self) -> bool {
        self.values.iter().any(Option::is_none)
    }

    pub(crate) fn take(&mut self) -> Vec<Option<V>> {
        std::mem::take(&mut self.values)
    }
}

/// Drops the values that no caller receives one by one. Two destructors that panic in one drop
/// would abort the process.
impl<V> Drop for Slots<V> {
    fn drop(&mut self) {
        self.values.drain(..).for_each(panic::discard);
    }
}

/// The collector of `all`.
pub(crate) struct All<T> {
    slots: Slots<T>,
}

impl<T> Default for All<T> {
    fn default() -> Self {
        All {
            slots: Slots::default(),
        }
    }
}

impl<T, E: From<ContextError>> Collector<T, E> for All<T> {
    type Collected = T;
    type Output = Result<Vec<T>, E>;
    type Stopwatch = ();

    const ON_FAILURE: OnFailure = OnFailure::EndContext;
    const BATCHES: bool = true;

    fn expect(&mut self, items: usize) {
        self.slots.reserve(items);
    }

    fn classify(result: Result<T, E>) -> Result<T, TaskErrorKind<E>> {
        result.map_err(TaskErrorKind::Failed)
    }

    fn collect(&mut self, number: usize, value: Option<T>) -> Option<T> {
        self.slots.put(number, value);
        None
    }

    fn finish(mut self, summary: RunSummary<E>) -> Result<Vec<T>, E> {
        let (exhausted, reason) = (summary.exhausted, summary.reason());
        summary.failures.into_result()?;
        if !exhausted || self.slots.has_gap() {
            return Err(E::from(reason));
        }
        // Collecting into an `Option<Vec>` reuses the allocation of the slots.
        let values: Option<Vec<T>> = self.slots.take().into_iter().collect();
        Ok(values.unwrap_or_default())
    }
}

/// The collector of `for_each`. It keeps nothing.
#[derive(Default)]
pub(crate) struct ForEach;

impl<T, E: From<ContextError>> Collector<T, E> for ForEach {
    type Collected = ();
    type Output = Result<(), E>;
    type Stopwatch = ();

    const ON_FAILURE: OnFailure = OnFailure::EndContext;
    const BATCHES: bool = true;

    fn classify(result: Result<T, E>) -> Result<(), TaskErrorKind<E>> {
        result.map(drop).map_err(TaskErrorKind::Failed)
    }

    fn collect(&mut self, _: usize, _: Option<()>) -> Option<()> {
        None
    }

    fn finish(self, summary: RunSummary<E>) -> Result<(), E> {
        let (exhausted, reason) = (summary.exhausted, summary.reason());
        summary.failures.into_result()?;
        if exhausted {
            Ok(())
        } else {
            Err(E::from(reason))
        }
    }
}
