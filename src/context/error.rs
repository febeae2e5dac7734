//! The error of a context that is done.

use std::error::Error;
use std::fmt;
use std::io;

use super::cause::Cause;
use super::find;

/// The error of a context that is done. Code that stops because its context is done returns it.
///
/// It tells whether the context was cancelled or its deadline passed. Its
/// [`source`](std::error::Error::source) is the [`Cause`], so a printed error chain contains the
/// reason: `context cancelled: eu-1 is down`. Cloning it is cheap.
///
/// It converts into `Box<dyn Error + Send + Sync>` and `anyhow::Error` like any error. It also
/// converts into [`io::Error`], `String` and `&'static str`, so that `?` works in functions that
/// return these.
///
/// # Examples
///
/// ```
/// use errgroup::Context;
/// use std::error::Error;
///
/// let (ctx, guard) = Context::background().with_cancel();
/// guard.cancel_with("the user pressed stop");
///
/// let err = ctx.check().unwrap_err();
/// assert!(err.is_cancelled());
/// assert_eq!(err.to_string(), "context cancelled");
/// assert_eq!(err.source().unwrap().to_string(), "the user pressed stop");
/// ```
#[doc(alias(
    "Canceled",
    "CancelledError",
    "CancellationException",
    "AbortError",
    "Elapsed"
))]
#[derive(Debug, Clone)]
pub struct ContextError {
    kind: Kind,
    cause: Option<Cause>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cancelled,
    DeadlineExceeded,
    /// Not the end of a context: a fan-out had too few successes for its quorum.
    QuorumNotReached,
    /// Not the end of a context: the task whose handle was awaited has failed.
    TaskFailed,
}

impl Kind {
    const fn text(self) -> &'static str {
        match self {
            Kind::Cancelled => "context cancelled",
            Kind::DeadlineExceeded => "context deadline exceeded",
            Kind::QuorumNotReached => "quorum not reached",
            Kind::TaskFailed => "task failed",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl ContextError {
    pub(crate) fn cancelled(cause: Option<Cause>) -> Self {
        ContextError {
            kind: Kind::Cancelled,
            cause,
        }
    }

    pub(crate) fn deadline_exceeded(cause: Option<Cause>) -> Self {
        ContextError {
            kind: Kind::DeadlineExceeded,
            cause,
        }
    }

    /// The error of a fan-out that finished without failures and below its quorum.
    pub(crate) fn quorum_not_reached(cause: Cause) -> Self {
        ContextError {
            kind: Kind::QuorumNotReached,
            cause: Some(cause),
        }
    }

    /// The error of a task's handle if the task has failed.
    pub(crate) fn task_failed(cause: Cause) -> Self {
        ContextError {
            kind: Kind::TaskFailed,
            cause: Some(cause),
        }
    }

    /// Returns whether this is the end of a context.
    pub(crate) fn is_end(&self) -> bool {
        self.is_cancelled() || self.is_deadline_exceeded()
    }

    /// Returns true if the context or an ancestor was cancelled: by a handle, by the drop of its
    /// guard, by a signal or by a token.
    ///
    /// For two errors both this and [`is_deadline_exceeded`](ContextError::is_deadline_exceeded)
    /// return false, since no context is done there: the error of a
    /// [`quorum`](crate::FanOut::quorum) that was not reached although nothing failed, and the
    /// error of a [`TaskHandle`](crate::TaskHandle) whose task has failed.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.kind == Kind::Cancelled
    }

    /// Returns true if the deadline of the context, or of an ancestor, passed.
    #[must_use]
    pub fn is_deadline_exceeded(&self) -> bool {
        self.kind == Kind::DeadlineExceeded
    }

    /// Returns the cause with which the context was cancelled, or the cause of the deadline. `None`
    /// if there was none.
    ///
    /// [`Context::cause`](crate::Context::cause) returns the same, but the error itself if there
    /// was none.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_ref()
    }

    /// Returns true if the [`cause`](ContextError::cause), or an error in its `source()` chain, is
    /// a `T`.
    ///
    /// An error inside an [`io::Error`], and one that [`Cause::into_error`] has returned, is found
    /// too.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::Context;
    /// use std::io;
    ///
    /// let (ctx, guard) = Context::background().with_cancel();
    /// guard.cancel_with(io::Error::other("disk full"));
    /// assert!(ctx.check().unwrap_err().caused_by::<io::Error>());
    /// ```
    #[must_use]
    pub fn caused_by<T: Error + 'static>(&self) -> bool {
        self.cause.as_ref().is_some_and(Cause::is_or_contains::<T>)
    }

    /// Searches an error and its `source()` chain for a `ContextError`, and returns the first one.
    ///
    /// It is what `errors.Is(err, context.DeadlineExceeded)` is in Go: it tells whether an
    /// operation has failed because its context was done, whatever the operation has wrapped that
    /// error in.
    ///
    /// Also finds an error inside an [`io::Error`], one that [`Cause::into_error`] has returned,
    /// and one in an error that displays as its source, as with `#[error(transparent)]`. Of
    /// [`Errors`](crate::Errors), which has one error for each task, it finds the first that there
    /// is. An error that a task has returned is found there if it is a `ContextError`, an
    /// [`io::Error`] or a `Box<dyn Error + Send + Sync>`; look for another type with
    /// [`iter`](crate::Errors::iter).
    ///
    /// An `anyhow::Error` is passed as `error.as_ref()`.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, ContextError};
    /// use std::time::Duration;
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// #[error("cannot load the page")]
    /// struct LoadError(#[source] std::io::Error);
    ///
    /// # fn main() {
    /// let ctx = Context::background().with_timeout(Duration::ZERO);
    /// let error = LoadError(ctx.check().unwrap_err().into());
    ///
    /// let found = ContextError::find(&error);
    /// assert!(found.is_some_and(ContextError::is_deadline_exceeded));
    /// # }
    /// ```
    #[doc(alias("errors.Is", "errors.As", "DeadlineExceeded"))]
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ContextError> {
        let mut next = Some(error);
        // Ends with the chain: a `ContextError`, which is its own source in a search, is found.
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = find::next(error);
        }
        None
    }
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.kind, f)
    }
}

impl Error for ContextError {
    /// Returns the cause.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if find::is_searching() {
            return Some(self);
        }
        let cause: &(dyn Error + 'static) = &**self.cause.as_ref()?;
        Some(cause)
    }
}

/// Converts into an [`io::Error`] that contains the error. The kind is
/// [`TimedOut`](io::ErrorKind::TimedOut) for a deadline and [`Other`](io::ErrorKind::Other) for
/// everything else.
///
/// It is never [`Interrupted`](io::ErrorKind::Interrupted) or
/// [`WouldBlock`](io::ErrorKind::WouldBlock). The loops of std and tokio (`copy`, `read_exact`,
/// `write_all`) try again after these kinds, so a cancelled copy would return `Ok` with a part of
/// its bytes, or would never return. An `AsyncRead` or a `Read` may therefore do `ctx.check()?`
/// itself.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, ContextError};
/// use std::io;
///
/// let (ctx, guard) = Context::background().with_cancel();
/// guard.cancel_with("the user pressed stop");
///
/// let error = io::Error::from(ctx.err().unwrap());
/// assert_eq!(error.kind(), io::ErrorKind::Other);
/// assert!(error.get_ref().unwrap().is::<ContextError>());
/// ```
impl From<ContextError> for io::Error {
    fn from(error: ContextError) -> io::Error {
        let kind = match error.kind {
            Kind::Cancelled | Kind::QuorumNotReached | Kind::TaskFailed => io::ErrorKind::Other,
            Kind::DeadlineExceeded => io::ErrorKind::TimedOut,
        };
        io::Error::new(kind, error)
    }
}

/// Converts into the text of the error, as `to_string` does. The cause is lost, since a `String`
/// has no source.
impl From<ContextError> for String {
    fn from(error: ContextError) -> String {
        error.kind.text().to_owned()
    }
}

/// Converts into the text of the error. The cause is lost, since a text has no source.
impl From<ContextError> for &'static str {
    fn from(error: ContextError) -> &'static str {
        error.kind.text()
    }
}
