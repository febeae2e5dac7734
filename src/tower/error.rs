//! The error type that the bodies and the client's layer share.

use std::error::Error;

/// The error of what may fail in more than one way: the inner one's own, or a [`ContextError`](crate::ContextError).
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;
