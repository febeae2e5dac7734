//! The collectors of the streams: they hand out outcomes while the items run.
//!
//! An outcome waits here for the consumer and counts against the limit while it does. This is the
//! backpressure.

use std::collections::VecDeque;

use super::{Collector, ItemOutcome, RunSummary, StreamCollector, Taken};
use crate::context::ContextError;
use crate::panic;
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::failures::OnFailure;

/// Outcomes that wait for the consumer. Those that no consumer receives are dropped one by one: two
/// destructors that panic in one drop would abort the process.
pub(super) struct Waiting<V> {
    pub(super) outcomes: VecDeque<V>,
}

impl<V> Default for Waiting<V> {
    fn default() -> Self {
        Waiting {
            outcomes: VecDeque::new(),
        }
    }
}

impl<V> Drop for Waiting<V> {
    fn drop(&mut self) {
        self.outcomes.drain(..).for_each(panic::discard);
    }
}

/// The collector of `try_stream`. It stops at the first failure, which the stream yields last.
pub(crate) struct TryStream<T> {
    waiting: Waiting<T>,
}

impl<T> Default for TryStream<T> {
    fn default() -> Self {
        TryStream {
            waiting: Waiting::default(),
        }
    }
}

impl<T, E: From<ContextError>> Collector<T, E> for TryStream<T> {
    type Collected = T;
    type Output = Option<Result<T, E>>;
    type Stopwatch = ();

    const ON_FAILURE: OnFailure = OnFailure::EndContext;

    fn classify(result: Result<T, E>) -> Result<T, TaskErrorKind<E>> {
        result.map_err(TaskErrorKind::Failed)
    }

    fn collect(&mut self, _: usize, value: Option<T>) -> Option<T> {
        self.waiting.outcomes.extend(value);
        None
    }

    fn waiting(&self) -> usize {
        self.waiting.outcomes.len()
    }

    fn is_ready(&self) -> bool {
        !self.waiting.outcomes.is_empty()
    }

    fn finish(self, summary: RunSummary<E>) -> Option<Result<T, E>> {
        let (exhausted, reason) = (summary.exhausted, summary.reason());
        match summary.failures.into_result() {
            Err(error) => Some(Err(error)),
            Ok(()) if exhausted => None,
            Ok(()) => Some(Err(E::from(reason))),
        }
    }
}

impl<T, E: From<ContextError>> StreamCollector<T, E> for TryStream<T> {
    type Element = Result<T, E>;
    type Key = ();

    fn take(&mut self) -> Option<Taken<Self, T, E>> {
        let value = self.waiting.outcomes.pop_front()?;
        Some(((), ItemOutcome::Returned(Ok(value))))
    }

    fn element((): (), result: Result<T, E>) -> Result<T, E> {
        result
    }

    fn last(output: Option<Result<T, E>>) -> Option<Result<T, E>> {
        output
    }
}

/// The collector of `stream`: outcomes in order of completion.
pub(crate) struct Unordered<T, E> {
    waiting: Waiting<ItemOutcome<T, E>>,
}

impl<T, E> Default for Unordered<T, E> {
    fn default() -> Self {
        Unordered {
            waiting: Waiting::default(),
        }
    }
}

impl<T, E> Collector<T, E> for Unordered<T, E> {
    type Collected = Result<T, E>;
    type Output = Option<Result<T, E>>;
    type Stopwatch = ();

    const ON_FAILURE: OnFailure = OnFailure::EndAtPanic;

    fn classify(result: Result<T, E>) -> Result<Result<T, E>, TaskErrorKind<E>> {
        Ok(result)
    }

    fn succeeded(result: &Result<T, E>) -> bool {
        result.is_ok()
    }

    fn collect(&mut self, _: usize, result: Option<Result<T, E>>) -> Option<Result<T, E>> {
        self.waiting.outcomes.push_back(result.into());
        None
    }

    fn waiting(&self) -> usize {
        self.waiting.outcomes.len()
    }

    fn is_ready(&self) -> bool {
        !self.waiting.outcomes.is_empty()
    }

    fn finish(self, summary: RunSummary<E>) -> Option<Result<T, E>> {
        summary.failures.resume_panic();
        None
    }
}

impl<T, E> StreamCollector<T, E> for Unordered<T, E> {
    type Element = Result<T, E>;
    type Key = ();

    fn take(&mut self) -> Option<Taken<Self, T, E>> {
        Some(((), self.waiting.outcomes.pop_front()?))
    }

    fn element((): (), result: Result<T, E>) -> Result<T, E> {
        result
    }

    fn last(output: Option<Result<T, E>>) -> Option<Result<T, E>> {
        output
    }
}

/// The collector of `ordered_stream`: outcomes in the order of the items.
pub(crate) struct Ordered<T, E> {
    /// The outcomes from item `next` on; `None` is an item that has not finished.
    window: Waiting<Option<ItemOutcome<T, E>>>,
    /// The number of the next item whose outcome is handed out.
    next: usize,
    /// How many outcomes in the window are not `None`.
    waiting: usize,
}

impl<T, E> Default for Ordered<T, E> {
    fn default() -> Self {
        Ordered {
            window: Waiting::default(),
            next: 0,
            waiting: 0,
        }
    }
}

impl<T, E> Collector<T, E> for Ordered<T, E> {
    type Collected = Result<T, E>;
    type Output = Option<Result<T, E>>;
    type Stopwatch = ();

    const ON_FAILURE: OnFailure = OnFailure::EndAtPanic;

    fn classify(result: Result<T, E>) -> Result<Result<T, E>, TaskErrorKind<E>> {
        Ok(result)
    }

    fn succeeded(result: &Result<T, E>) -> bool {
        result.is_ok()
    }

    fn collect(&mut self, number: usize, result: Option<Result<T, E>>) -> Option<Result<T, E>> {
        let at = number - self.next;
        if self.window.outcomes.len() <= at {
            self.window.outcomes.resize_with(at + 1, || None);
        }
        self.window.outcomes[at] = Some(result.into());
        self.waiting += 1;
        None
    }

    fn waiting(&self) -> usize {
        self.waiting
    }

    fn is_ready(&self) -> bool {
        matches!(self.window.outcomes.front(), Some(Some(_)))
    }

    fn finish(self, summary: RunSummary<E>) -> Option<Result<T, E>> {
        summary.failures.resume_panic();
        None
    }
}

impl<T, E> StreamCollector<T, E> for Ordered<T, E> {
    type Element = Result<T, E>;
    type Key = ();

    fn take(&mut self) -> Option<Taken<Self, T, E>> {
        let taken = self.window.outcomes.front_mut()?.take()?;
        self.window.outcomes.pop_front();
        self.next += 1;
        self.waiting -= 1;
        Some(((), taken))
    }

    fn element((): (), result: Result<T, E>) -> Result<T, E> {
        result
    }

    fn last(output: Option<Result<T, E>>) -> Option<Result<T, E>> {
        output
    }
}
