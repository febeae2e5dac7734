//! What the crate knows of a task beside its future: the span for `tracing`, and the entry in the
//! registry that `inspect` reads.
//!
//! A [`Span`] of a task is made when the task is submitted and closed when its outcome has been
//! recorded. It is entered around each poll and each drop of user code. Without the two features it
//! has no size. A span is made, entered and dropped outside every lock, because a subscriber is
//! user code.

use std::borrow::Cow;
use std::panic::Location;

use tokio::time::Instant;

use crate::registry::{self, TaskKind};
use crate::tracing;

/// The span of a task or of an item, or of the code in which a group or a fan-out was made or a
/// function was registered.
#[derive(Clone)]
pub(crate) struct Span {
    log: tracing::Span,
    entry: registry::Entry,
}

impl Span {
    pub(crate) const fn none() -> Span {
        Span {
            log: tracing::Span::none(),
            entry: registry::Entry::none(),
        }
    }

    /// Returns the span in which the caller runs.
    pub(crate) fn current() -> Span {
        Span {
            log: tracing::Span::current(),
            entry: registry::Entry::caller(),
        }
    }

    /// Makes the span of a task of the group that was made in `self`.
    #[inline]
    pub(crate) fn task(
        &self,
        name: Option<&Cow<'static, str>>,
        site: &'static Location<'static>,
        kind: TaskKind,
    ) -> Span {
        Span {
            log: self.log.task(name.map(|name| &**name), site),
            entry: self.entry.task(name, site, kind),
        }
    }

    /// Makes the span of an item of the fan-out that was made in `self`.
    #[inline]
    pub(crate) fn item(
        &self,
        name: Option<&Cow<'static, str>>,
        number: usize,
        site: &'static Location<'static>,
    ) -> Span {
        Span {
            log: self.log.item(name, number, site),
            entry: self.entry.item(number, site),
        }
    }

    /// Notes that the task waits for a permit from now on.
    pub(crate) fn queued(&self) {
        self.entry.queued();
    }

    /// Notes that the task has started.
    pub(crate) fn started(&self, at: Instant) {
        self.entry.started(at);
    }

    /// Notes that the task has failed and is about to end, and whether its context was done. Runs
    /// user code, so it must be called without a lock.
    pub(crate) fn failed(&self, failure: tracing::Failure<'_>, was_done: bool) {
        self.entry.failed(failure, was_done);
    }

    /// Closes the span. Must be called without a lock.
    #[inline]
    pub(crate) fn close(&mut self) {
        self.log.close();
        self.entry.close();
    }

    /// Returns the entry of the code that made a group.
    #[cfg(feature = "inspect")]
    pub(crate) fn caller(&self) -> &registry::Entry {
        &self.entry
    }
}

/// A span that has been entered. Dropping this leaves it.
pub(crate) struct Entered<'a> {
    _log: tracing::Entered<'a>,
    _task: registry::Entered,
}

// So that callers can drop it by name, with and without the features.
impl Drop for Entered<'_> {
    fn drop(&mut self) {}
}

/// Enters `span`, if there is one, around a poll or a drop.
#[inline]
pub(crate) fn enter(span: Option<&Span>) -> Entered<'_> {
    Entered {
        _log: tracing::enter(span.map(|span| &span.log)),
        _task: registry::enter(span.map(|span| &span.entry)),
    }
}
