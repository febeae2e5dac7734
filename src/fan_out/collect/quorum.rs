//! Collectors that wait for enough successes: `quorum` and `first_ok`.

use tokio::time::Instant;

use super::{Collector, RunSummary};
use crate::context::ContextError;
use crate::context::{Cause, StaticCause};
use crate::fan_out::causes::{ENOUGH, QUORUM_NOT_REACHED};
use crate::panic;
use crate::scheduler::error::{Errors, TaskError, TaskErrorKind};
use crate::scheduler::failures::OnFailure;

/// The collector of `quorum`.
pub(crate) struct Quorum<T> {
    required: usize,
    /// The successes in order of completion.
    values: Vec<T>,
}

impl<T> Default for Quorum<T> {
    fn default() -> Self {
        Quorum::of(0)
    }
}

impl<T> Quorum<T> {
    pub(crate) fn of(required: usize) -> Self {
        Quorum {
            required,
            values: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.values.len() >= self.required
    }
}

/// Drops the values that no caller receives one by one. Two destructors that panic in one drop
/// would abort the process.
impl<T> Drop for Quorum<T> {
    fn drop(&mut self) {
        self.values.drain(..).for_each(panic::discard);
    }
}

impl<T, E: From<ContextError>> Collector<T, E> for Quorum<T> {
    type Collected = T;
    type Output = Result<Vec<T>, Errors<E>>;
    type Stopwatch = Instant;

    const ON_FAILURE: OnFailure = OnFailure::EndAtPanic;

    fn classify(result: Result<T, E>) -> Result<T, TaskErrorKind<E>> {
        result.map_err(TaskErrorKind::Failed)
    }

    fn collect(&mut self, _: usize, value: Option<T>) -> Option<T> {
        if self.is_full() {
            return value;
        }
        self.values.extend(value);
        None
    }

    fn decision(&self, more: usize) -> Option<&'static StaticCause> {
        if self.is_full() {
            return Some(&ENOUGH);
        }
        (self.values.len().saturating_add(more) < self.required).then_some(&QUORUM_NOT_REACHED)
    }

    fn finish(mut self, mut summary: RunSummary<E>) -> Result<Vec<T>, Errors<E>> {
        let failures = summary.failures.resume_panic();
        if self.is_full() {
            return Ok(std::mem::take(&mut self.values));
        }
        let received = self.values.len();
        // After a cancellation from outside, the quorum can no longer be reached either, and
        // `decided` may be true. The error of the context says which of the two came first.
        let too_few = summary.decided && summary.error.as_ref().is_none_or(is_quorum_not_reached);
        if !too_few || failures.has_failed() {
            failures.into_errors()?;
        }
        // Nothing failed by itself: there were too few items, or the context was done before there
        // were more. Items that were stopped because the quorum cannot be reached are not listed,
        // since they do not explain the failure.
        let error = match summary.error.take() {
            Some(error) if !too_few => error,
            _ => ContextError::quorum_not_reached(Cause::from(format!(
                "{received} of {} required successes",
                self.required
            ))),
        };
        let label = summary.call_site.label(match &summary.call_site.name {
            Some(name) => name.clone(),
            None if self.required == 1 => "first_ok".into(),
            None => format!("quorum of {}", self.required).into(),
        });
        let kind = TaskErrorKind::Aborted(error);
        let task = TaskError::new(label, std::time::Duration::ZERO, kind, true, false);
        Err(Errors::new(vec![task], 0))
    }
}

/// Returns whether the context was cancelled because the quorum can no longer be reached.
fn is_quorum_not_reached(error: &ContextError) -> bool {
    let note = error
        .cause()
        .and_then(|cause| cause.downcast_ref::<StaticCause>());
    note.is_some_and(|note| std::ptr::eq(note, &QUORUM_NOT_REACHED))
}

/// The collector of `first_ok`: a quorum of one.
pub(crate) struct FirstOk<T> {
    quorum: Quorum<T>,
}

impl<T> Default for FirstOk<T> {
    fn default() -> Self {
        FirstOk {
            quorum: Quorum::of(1),
        }
    }
}

impl<T, E: From<ContextError>> Collector<T, E> for FirstOk<T> {
    type Collected = T;
    type Output = Result<T, Errors<E>>;
    type Stopwatch = Instant;

    const ON_FAILURE: OnFailure = OnFailure::EndAtPanic;

    fn classify(result: Result<T, E>) -> Result<T, TaskErrorKind<E>> {
        <Quorum<T> as Collector<T, E>>::classify(result)
    }

    fn collect(&mut self, number: usize, value: Option<T>) -> Option<T> {
        Collector::<T, E>::collect(&mut self.quorum, number, value)
    }

    fn decision(&self, more: usize) -> Option<&'static StaticCause> {
        Collector::<T, E>::decision(&self.quorum, more)
    }

    fn finish(self, summary: RunSummary<E>) -> Result<T, Errors<E>> {
        let mut values = self.quorum.finish(summary)?;
        match values.pop() {
            Some(value) => Ok(value),
            None => unreachable!("a quorum of one has one value"),
        }
    }
}
