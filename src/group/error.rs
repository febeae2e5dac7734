//! The errors of tasks that were not started.

use std::fmt;

use crate::context::{Cause, ContextError, StaticCause};

/// The reason why nothing starts through a handle that has outlived its group.
pub(super) static GROUP_DROPPED: StaticCause = StaticCause("the group was dropped");

/// Returns the error of what a group has stopped, or keeps from starting, for a reason of its own.
pub(super) fn stopped(why: &'static StaticCause) -> ContextError {
    ContextError::cancelled(Some(Cause::from_static(why)))
}

/// The reason why [`try_go`](crate::Group::try_go) did not start a task, with the future that it
/// was given.
#[doc(alias = "TryAcquireError")]
#[derive(thiserror::Error)]
pub enum TryGoError<F> {
    /// No permit is free, or other tasks are queued for one.
    #[error("every permit of the group is taken")]
    Full(F),
    /// The group's context is done, or the group was closed or dropped: no task starts any more.
    #[error("the group starts no more tasks: its context is done, or it was closed")]
    Ended(F),
}

impl<F> TryGoError<F> {
    /// Returns the future that was not started.
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

/// Takes a future that was refused out of its box.
///
/// It is not inlined into the caller, whose stack frame would otherwise hold the future even if
/// nothing was refused.
#[cold]
#[inline(never)]
pub(crate) fn unboxed<F>(refused: TryGoError<Box<F>>) -> Result<(), TryGoError<F>> {
    match refused {
        TryGoError::Full(future) => Err(TryGoError::Full(*future)),
        TryGoError::Ended(future) => Err(TryGoError::Ended(*future)),
    }
}
