//! The trait that the error type of a group or a fan-out must implement.

use std::fmt::Display;

use crate::context::ContextError;

/// What the error type of a group or a fan-out must be: it converts from a [`ContextError`], for
/// tasks that the group itself has stopped, and it displays, for the cause that other tasks see.
///
/// You never implement it yourself: every type with these bounds has it. `anyhow::Error`, `Box<dyn
/// Error + Send + Sync>`, `std::io::Error`, `String` and `&'static str` do. For an error type of
/// your own, a variant with `#[from]` is enough:
///
/// ```
/// use errgroup::{Context, ContextError, Group};
///
/// #[derive(Debug, thiserror::Error)]
/// enum FetchError {
///     #[error("not found: {0}")]
///     NotFound(String),
///     #[error(transparent)]
///     Stopped(#[from] ContextError),
/// }
///
/// let (g, _ctx) = Group::<FetchError>::with_context(Context::background());
/// ```
///
/// # If it does not compile
///
/// The error type of a library knows nothing of contexts. The compiler then says that it cannot be
/// the error type of a group:
///
/// ```compile_fail,E0277
/// use errgroup::{Context, Group};
///
/// let (g, _ctx) = Group::<std::num::ParseIntError>::with_context(Context::background());
/// ```
///
/// Use `anyhow::Error`, into which `?` converts, or an enum like the one above with a second
/// variant for the library's error.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error type of a group or a fan-out",
    label = "does not implement `From<errgroup::ContextError> + Display + Send + 'static`",
    note = "use `anyhow::Error`, `Box<dyn Error + Send + Sync>`, `std::io::Error` or `String`, or \
            an enum of your own with a variant for it and one for the group:",
    note = "`#[derive(Debug, thiserror::Error)] enum MyError {{ #[error(transparent)] \
            Inner(#[from] {Self}), #[error(transparent)] \
            Stopped(#[from] errgroup::ContextError) }}`"
)]
pub trait GroupError: From<ContextError> + Display + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<E: From<ContextError> + Display + Send + 'static> GroupError for E {}
