//! The error types that the bodies and the client's layer share.

use std::error::Error;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::sync::Arc;

/// A boxed error: the error of the inner service or body, or a
/// [`ContextError`](crate::ContextError).
///
/// `error.downcast_ref::<ContextError>()` tells them apart.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// The error of a body, which both the reader of the body and the cause of the context have.
///
/// It displays as the error itself, which is its source.
#[derive(Clone)]
pub(super) struct SharedError {
    error: Arc<dyn Error + Send + Sync + 'static>,
}

impl SharedError {
    pub(super) fn new(error: impl Into<BoxError>) -> SharedError {
        SharedError {
            error: Arc::from(error.into()),
        }
    }

    /// Returns the error itself.
    pub(super) fn original(&self) -> &(dyn Error + 'static) {
        &*self.error
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl Error for SharedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.original())
    }
}

// The error is only read, so a panic cannot leave it half-changed.
impl UnwindSafe for SharedError {}
impl RefUnwindSafe for SharedError {}
