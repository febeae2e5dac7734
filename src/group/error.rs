//! The error of a task that was not started.

use std::fmt;

/// Why [`try_go`](crate::Group::try_go) did not start a future, and the future itself.
#[derive(thiserror::Error)]
pub enum TryGoError<F> {
    /// As many tasks run as the limit allows.
    #[error("every permit of the group is taken")]
    Full(F),
    /// The group's context has ended, or the group has gone: nothing starts any more.
    #[error("the group has ended")]
    Ended(F),
}

impl<F> TryGoError<F> {
    /// The future that was not started.
    pub fn into_inner(self) -> F {
        match self {
            TryGoError::Full(future) | TryGoError::Ended(future) => future,
        }
    }
}

impl<F> fmt::Debug for TryGoError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryGoError::Full(_) => "Full(..)",
            TryGoError::Ended(_) => "Ended(..)",
        })
    }
}

/// Hands back a future that was boxed. Not inlined into the call, whose stack would hold it even
/// where nothing is handed back.
#[cold]
#[inline(never)]
pub(crate) fn unboxed<F>(refused: TryGoError<Box<F>>) -> Result<(), TryGoError<F>> {
    match refused {
        TryGoError::Full(future) => Err(TryGoError::Full(*future)),
        TryGoError::Ended(future) => Err(TryGoError::Ended(*future)),
    }
}
