//! What a handler has returned, for a recorder.

use crate::registry::Entry;
use crate::tower::cause::HANDLER_FAILED;
use crate::tracing::Failure;

/// What a handler has returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::tower) enum Answer {
    Response,
    Error,
}

impl Answer {
    pub(in crate::tower) fn of<T, E>(output: &Result<T, E>) -> Answer {
        match output {
            Ok(_) => Answer::Response,
            Err(_) => Answer::Error,
        }
    }

    /// Notes an error as the failure of the handler. The error may be of any type, so its text is
    /// not known. `was_done` returns whether the handler's context was done.
    pub(super) fn note(self, entry: &Entry, was_done: impl FnOnce() -> bool) {
        if self == Answer::Error {
            entry.failed(Failure::Error(&HANDLER_FAILED), was_done());
        }
    }
}
