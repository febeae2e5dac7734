//! What went wrong, in the order in which it did.

use crate::context::Cause;
use crate::panic::{self, Payload};

/// The failures of a group or a fan-out.
pub(crate) struct Failures<E> {
    error: Option<E>,
    panic: Option<Payload>,
    cause: Option<Cause>,
}

/// A failure that was not the first, to be dropped outside the lock: it is user code.
#[expect(dead_code, reason = "held for its destructor alone")]
pub(crate) enum Later<E> {
    Error(E),
    Panic(Payload),
}

impl<E> Failures<E> {
    pub(crate) const fn new() -> Failures<E> {
        Failures {
            error: None,
            panic: None,
            cause: None,
        }
    }

    pub(crate) fn add_error(&mut self, error: E) -> Option<Later<E>> {
        if self.error.is_none() {
            self.error = Some(error);
            return None;
        }
        Some(Later::Error(error))
    }

    pub(crate) fn add_panic(&mut self, payload: Payload) -> Option<Later<E>> {
        if self.panic.is_none() {
            self.panic = Some(payload);
            return None;
        }
        Some(Later::Panic(payload))
    }

    /// The cause that the context is to end with: that of the first failure, whoever asks.
    pub(crate) fn cause(&mut self, mine: Cause) -> Cause {
        self.cause.get_or_insert(mine).clone()
    }

    /// What a wait ends with: a panic goes on, since a bug is never hidden; else the first error. Not under the lock.
    pub(crate) fn into_result(self) -> Result<(), E> {
        if let Some(payload) = self.panic {
            panic::discard(self.error);
            panic::resume(payload);
        }
        self.error.map_or(Ok(()), Err)
    }
}
