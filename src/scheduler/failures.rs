//! The failures of a group or a fan-out, in the order in which they happened, and the cause that
//! they give.

use std::fmt::Display;

use super::calls::Failure;
use crate::context::Cause;
use crate::context::ContextError;
use crate::panic;
use crate::scheduler::error::{Errors, Label, TaskError, TaskErrorKind};
use crate::sync::Arc;
use crate::tracing;

/// How many failures are kept. The others are only counted.
const KEPT: usize = 1024;

/// Makes the cause of the context from the error of a task.
pub(crate) type CauseWith<E> = Arc<dyn Fn(&E) -> Cause + Send + Sync>;

/// The effect of a failure on the other tasks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    GoOn,
    /// Only a panic cancels the context.
    EndAtPanic,
    EndContext,
}

impl OnFailure {
    /// Returns the cause with which a failure cancels the context, or `None` if it does not cancel.
    /// The text of the cause is the error in its alternate form, in which an `anyhow::Error` prints
    /// its whole chain. Sibling tasks have no other access to the error.
    ///
    /// `cause_with` is the function of [`set_cause_with`](crate::Group::set_cause_with).
    pub(crate) fn cause<E: Display>(
        self,
        label: &Label,
        kind: &TaskErrorKind<E>,
        cause_with: Option<&CauseWith<E>>,
    ) -> Option<Cause> {
        match (self, kind) {
            (OnFailure::GoOn, _) => return None,
            (OnFailure::EndAtPanic, TaskErrorKind::Panicked(_)) => {}
            (OnFailure::EndAtPanic, _) => return None,
            (OnFailure::EndContext, _) => {}
        }
        Some(match kind {
            // The user's `Display`, or the user's function, may panic.
            TaskErrorKind::Failed(error) => {
                let (made, what) = match cause_with {
                    Some(make) => (panic::catch(|| make(error)), "making its cause"),
                    None => (
                        panic::catch(|| Cause::from(format!("{error:#}"))),
                        "displaying its error",
                    ),
                };
                made.unwrap_or_else(|payload| {
                    panic::discard(payload);
                    Cause::from(format!("{label} failed, and {what} panicked"))
                })
            }
            TaskErrorKind::Panicked(panic) => Cause::from(format!("{label} panicked: {panic}")),
            TaskErrorKind::Aborted(error) => Cause::from(error.clone()),
        })
    }
}

impl<E: Display> Failure<E> {
    /// Emits the event of the failure, and returns the cause with which it cancels the context, if
    /// it does. Runs user code, so it must not be called under a lock.
    pub(crate) fn report(
        &self,
        on_failure: OnFailure,
        cause_with: Option<&CauseWith<E>>,
    ) -> Option<Cause> {
        tracing::failed(
            self.label.name.as_deref(),
            self.label.site,
            self.elapsed,
            self.kind.as_failure(),
        );
        on_failure.cause(&self.label, &self.kind, cause_with)
    }
}

impl<E: Display> Failure<E> {
    /// Returns the failure as the handle of the task gets it. Runs user code, so it must not be
    /// called under a lock.
    pub(crate) fn for_handle(&self) -> ContextError {
        match &self.kind {
            TaskErrorKind::Aborted(error) => error.clone(),
            kind => {
                // The user's `Display` may panic.
                let text = panic::catch(|| format!("{}: {kind}", self.label));
                let text = text.unwrap_or_else(|payload| {
                    panic::discard(payload);
                    format!("{} failed, and displaying its error panicked", self.label)
                });
                ContextError::task_failed(Cause::from(text))
            }
        }
    }
}

impl<E> Failure<E> {
    /// Returns whether the task failed by itself, and was not merely aborted.
    pub(crate) fn is_own(&self) -> bool {
        !matches!(self.kind, TaskErrorKind::Aborted(_))
    }
}

/// The failures of a group or a fan-out.
pub(crate) struct Failures<E> {
    /// The first `KEPT` failures, and the first panic in any case.
    tasks: Vec<TaskError<E>>,
    omitted: usize,
    panicked: bool,
    cause: Option<Cause>,
}

impl<E> Failures<E> {
    pub(crate) const fn new() -> Failures<E> {
        Failures {
            tasks: Vec::new(),
            omitted: 0,
            panicked: false,
            cause: None,
        }
    }

    /// Returns the failure as it is kept.
    fn task_error(&self, failure: Failure<E>) -> TaskError<E> {
        let Failure {
            label,
            elapsed,
            kind,
            ended,
            was_running,
            ..
        } = failure;
        let caused = match &kind {
            TaskErrorKind::Panicked(_) => true,
            TaskErrorKind::Failed(_) => !ended,
            // A task that was dropped by something else than its group, and so ends the context.
            TaskErrorKind::Aborted(_) => !ended && self.tasks.is_empty(),
        };
        TaskError::new(label, elapsed, kind, caused, was_running)
    }

    /// Keeps a failure, or returns it. It is user code, so the caller drops it outside the lock.
    fn add(&mut self, failure: Failure<E>, most: usize) -> Option<TaskError<E>> {
        let task = self.task_error(failure);
        let first_panic = task.is_panic() && !self.panicked;
        self.panicked |= first_panic;
        if self.tasks.len() < most || first_panic {
            self.tasks.push(task);
            return None;
        }
        self.omitted += 1;
        Some(task)
    }

    /// Keeps a failure that was reported with the given cause. Returns the failure if it is not
    /// kept, to be dropped outside the lock, and the cause with which to cancel the context.
    pub(crate) fn record(
        &mut self,
        failure: Failure<E>,
        cause: Option<Cause>,
    ) -> (Option<TaskError<E>>, Option<Cause>) {
        let unkept = self.add(failure, KEPT);
        (unkept, cause.map(|cause| self.cause(cause)))
    }

    /// Does the same, but keeps each failure.
    pub(crate) fn record_all(
        &mut self,
        failure: Failure<E>,
        cause: Option<Cause>,
    ) -> (Option<TaskError<E>>, Option<Cause>) {
        let unkept = self.add(failure, usize::MAX);
        (unkept, cause.map(|cause| self.cause(cause)))
    }

    /// Does the same, but does not keep the failure.
    pub(crate) fn pass(
        &mut self,
        failure: Failure<E>,
        cause: Option<Cause>,
    ) -> (Option<TaskError<E>>, Option<Cause>) {
        let unkept = Some(self.task_error(failure));
        (unkept, cause.map(|cause| self.cause(cause)))
    }

    /// Returns the cause with which to cancel the context: that of the first failure that
    /// was recorded.
    fn cause(&mut self, mine: Cause) -> Cause {
        self.cause.get_or_insert(mine).clone()
    }
}

/// The result of a wait. These run user code, so they must not be called under the lock.
impl<E> Failures<E> {
    /// Resumes the first panic, because a bug is never hidden. Otherwise returns the first error.
    pub(crate) fn into_result(self) -> Result<(), E>
    where
        E: From<ContextError>,
    {
        let mut failures = self.resume_panic();
        if failures.tasks.is_empty() {
            return Ok(());
        }
        match failures.tasks.remove(0).into_kind() {
            TaskErrorKind::Failed(error) => Err(error),
            TaskErrorKind::Aborted(error) => Err(E::from(error)),
            TaskErrorKind::Panicked(panic) => panic::resume(panic.into_payload()),
        }
    }

    /// Takes the failures that were kept, and the number of the others.
    pub(crate) fn into_parts(mut self) -> (Vec<TaskError<E>>, usize) {
        (std::mem::take(&mut self.tasks), self.omitted)
    }

    pub(crate) fn into_errors(mut self) -> Result<(), Errors<E>> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        Err(Errors::new(std::mem::take(&mut self.tasks), self.omitted))
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked
    }

    /// Returns whether a task failed by itself, and was not merely aborted.
    pub(crate) fn has_failed(&self) -> bool {
        let mut kinds = self.tasks.iter().map(TaskError::kind);
        kinds.any(|kind| !matches!(kind, TaskErrorKind::Aborted(_)))
    }

    /// Resumes the first panic, if there is one.
    pub(crate) fn resume_panic(mut self) -> Self {
        let Some(at) = self.tasks.iter().position(TaskError::is_panic) else {
            return self;
        };
        let first = self.tasks.remove(at);
        drop(self);
        match first.into_kind() {
            TaskErrorKind::Panicked(panic) => panic::resume(panic.into_payload()),
            TaskErrorKind::Failed(_) | TaskErrorKind::Aborted(_) => {
                unreachable!("a panic was looked for, and found")
            }
        }
    }
}

impl<E> Drop for Failures<E> {
    /// Errors and payloads are user code. A panic of their destructors is discarded, because no
    /// caller is left that could handle it.
    fn drop(&mut self) {
        if !self.tasks.is_empty() {
            self.tasks.drain(..).for_each(panic::discard);
        }
    }
}
