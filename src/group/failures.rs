//! What went wrong, in the order in which it did.

use crate::context::Cause;
use crate::error::{ContextError, Errors, TaskError, TaskErrorKind};
use crate::panic;

/// How many failures are kept whole.
const KEPT: usize = 1024;

/// The failures of a group or a fan-out.
pub(crate) struct Failures<E> {
    /// The first `KEPT`, and the first panic in any case.
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

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Keeps a failure, or hands it back, to be dropped outside the lock: it is user code.
    pub(crate) fn add(&mut self, task: TaskError<E>) -> Option<TaskError<E>> {
        let first_panic = task.is_panic() && !self.panicked;
        self.panicked |= first_panic;
        if self.tasks.len() < KEPT || first_panic {
            self.tasks.push(task);
            return None;
        }
        self.omitted += 1;
        Some(task)
    }

    /// The cause that the context is to end with: that of the first failure, whoever asks.
    pub(crate) fn cause(&mut self, mine: Cause) -> Cause {
        self.cause.get_or_insert(mine).clone()
    }
}

/// What a wait ends with. Not under the lock.
impl<E: From<ContextError>> Failures<E> {
    /// The first panic goes on, since a bug is never hidden; else it is the first error.
    pub(crate) fn into_result(mut self) -> Result<(), E> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        let panic = self.tasks.iter().position(TaskError::is_panic);
        let main = self.tasks.remove(panic.unwrap_or(0));
        drop(self);
        match main.into_kind() {
            TaskErrorKind::Failed(error) => Err(error),
            TaskErrorKind::Aborted(error) => Err(E::from(error)),
            TaskErrorKind::Panicked(panic) => panic::resume(panic.into_payload()),
        }
    }

    pub(crate) fn into_errors(mut self) -> Result<(), Errors<E>> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        Err(Errors::new(std::mem::take(&mut self.tasks), self.omitted))
    }
}

impl<E> Drop for Failures<E> {
    /// Errors and payloads are user code; nobody could be told of a panic in their destructors.
    fn drop(&mut self) {
        self.tasks.drain(..).for_each(panic::discard);
    }
}
