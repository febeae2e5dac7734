//! The error type that the bodies and the client's layer share.

use std::error::Error;

/// A boxed error: the error of the inner service or body, or a
/// [`ContextError`](crate::ContextError).
///
/// `error.downcast_ref::<ContextError>()` tells them apart.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;
