//! What the crate knows of a task beside its future: the span for `tracing`, and the entry in the
//! registry that `inspect` reads.
//!
//! A [`TaskSpan`] is made when the task is submitted and closed when its outcome has been recorded.
//! It is entered around each poll and each drop of user code. Without the two features it has no
//! size. A span is made, entered and dropped outside every lock, because a subscriber is user code.

use std::borrow::Cow;
use std::panic::Location;

use tokio::time::Instant;

use crate::registry::{self, First, TaskKind, TaskRef};
use crate::tracing;

/// The code in which a group or a fan-out was made, or a function was registered.
#[derive(Clone)]
pub(crate) struct Span {
    log: tracing::Span,
    caller: registry::Caller,
}

/// The span of a task or of an item.
pub(crate) struct TaskSpan {
    log: tracing::Span,
    entry: registry::Entry,
}

impl Span {
    /// Returns the span in which the caller runs.
    pub(crate) fn current() -> Span {
        Span {
            log: tracing::Span::current(),
            caller: registry::Caller::current(),
        }
    }

    /// Makes the span of a task of the group that was made in `self`.
    #[inline]
    pub(crate) fn task(
        &self,
        name: Option<&Cow<'static, str>>,
        site: &'static Location<'static>,
        kind: TaskKind,
        first: First,
    ) -> TaskSpan {
        TaskSpan {
            log: self.log.task(name.map(|name| &**name), site),
            entry: self.caller.task(name, site, kind, first),
        }
    }

    /// Makes the span of a task that has its entry elsewhere.
    #[cfg(all(feature = "inspect", feature = "tower"))]
    pub(crate) fn task_without_entry(
        &self,
        name: Option<&Cow<'static, str>>,
        site: &'static Location<'static>,
    ) -> TaskSpan {
        TaskSpan {
            log: self.log.task(name.map(|name| &**name), site),
            entry: registry::Entry::none(),
        }
    }

    /// Makes the span of an item of the fan-out that was made in `self`.
    #[inline]
    pub(crate) fn item(
        &self,
        name: Option<&Cow<'static, str>>,
        number: usize,
        site: &'static Location<'static>,
    ) -> TaskSpan {
        TaskSpan {
            log: self.log.item(name, number, site),
            entry: self.caller.item(number, site),
        }
    }

    /// Returns what the registry has of the code that made a group.
    #[cfg(feature = "inspect")]
    pub(crate) fn caller(&self) -> &registry::Caller {
        &self.caller
    }
}

impl TaskSpan {
    pub(crate) const fn none() -> TaskSpan {
        TaskSpan {
            log: tracing::Span::none(),
            entry: registry::Entry::none(),
        }
    }

    /// Notes that the task waits for a permit from now on.
    pub(crate) fn queued(&self) {
        self.entry.queued();
    }

    /// Notes that the task has started. Returns where its handle finds its entry.
    pub(crate) fn started(&self, at: Instant) -> Option<TaskRef> {
        self.entry.started(at)
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

/// Enters the span of a task, if there is one, around a poll or a drop.
#[inline]
pub(crate) fn enter(span: Option<&TaskSpan>) -> Entered<'_> {
    Entered {
        _log: tracing::enter(span.map(|span| &span.log)),
        _task: registry::enter(span.map(|span| &span.entry)),
    }
}

/// Enters the span of a caller, around a call of its function.
#[inline]
pub(crate) fn enter_caller(span: &Span) -> Entered<'_> {
    Entered {
        _log: tracing::enter(Some(&span.log)),
        _task: registry::enter_caller(&span.caller),
    }
}
