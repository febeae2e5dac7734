//! Enough is enough: the first so many successes.

use tokio::time::Instant;

use super::{Collector, RunSummary};
use crate::context::ContextError;
use crate::context::{Cause, Note};
use crate::fan_out::causes::{ENOUGH, OUT_OF_REACH};
use crate::panic;
use crate::scheduler::error::{Errors, TaskError, TaskErrorKind};
use crate::scheduler::failures::OnFailure;

/// `quorum`; with 1, `first_ok`.
pub(crate) struct Quorum<T> {
    wanted: usize,
    /// In order of completion.
    values: Vec<T>,
}

impl<T> Default for Quorum<T> {
    fn default() -> Self {
        Quorum::of(0)
    }
}

impl<T> Quorum<T> {
    pub(crate) fn of(wanted: usize) -> Self {
        Quorum {
            wanted,
            values: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.values.len() >= self.wanted
    }
}

/// What nobody gets is dropped one by one: two destructors that panic would otherwise end the process.
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

    fn decision(&self, more: usize) -> Option<&'static Note> {
        if self.is_full() {
            return Some(&ENOUGH);
        }
        (self.values.len().saturating_add(more) < self.wanted).then_some(&OUT_OF_REACH)
    }

    fn finish(mut self, mut summary: RunSummary<E>) -> Result<Vec<T>, Errors<E>> {
        let failures = summary.failures.resume_panic();
        if self.is_full() {
            return Ok(std::mem::take(&mut self.values));
        }
        let came = self.values.len();
        // Once everything is stopped, enough cannot be reached either: what counts is which of the two came first.
        let too_few = summary.decided && summary.error.as_ref().is_none_or(is_out_of_reach);
        if !too_few || failures.has_failed() {
            failures.into_errors()?;
        }
        // Nothing failed: there were too few items, or the context ended before there were more. What was stopped because
        // there are too few does not say so.
        let error = match summary.error.take() {
            Some(error) if !too_few => error,
            _ => ContextError::out_of_reach(Cause::from(format!(
                "{} wanted, and {came} came",
                self.wanted
            ))),
        };
        let label = summary.call_site.label(match &summary.call_site.name {
            Some(name) => name.clone(),
            None if self.wanted == 1 => "first_ok".into(),
            None => format!("quorum of {}", self.wanted).into(),
        });
        let kind = TaskErrorKind::Aborted(error);
        let task = TaskError::new(label, std::time::Duration::ZERO, kind, true);
        Err(Errors::new(vec![task], 0))
    }
}

/// Whether it was that decision that ended the context.
fn is_out_of_reach(error: &ContextError) -> bool {
    let cause = error
        .cause()
        .and_then(|cause| cause.downcast_ref::<StaticCause>());
    cause.is_some_and(|cause| std::ptr::eq(cause, &OUT_OF_REACH))
}

/// `first_ok`: a quorum of one.
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

    fn decision(&self, more: usize) -> Option<&'static Note> {
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
