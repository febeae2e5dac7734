//! How tasks fail, and all the failures of a group.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Debug, Display};
use std::panic::Location;
use std::time::Duration;

use crate::context::ContextError;
use crate::panic::{self, Payload};
use crate::sync::Mutex;
use crate::tracing;

/// What a task is called, and where it was started.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) site: &'static Location<'static>,
}

/// `task "fetch" (started at src/main.rs:7:5)`, or without the name if it has none.
impl Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "task {name:?} (started at {})", self.site),
            None => write!(f, "task started at {}", self.site),
        }
    }
}

/// How one task of a group failed.
///
/// Displayed, it names the task and says why: `task "fetch" (started at src/main.rs:7:5): disk full`. An error of yours is
/// displayed in its alternate form, in which an `anyhow::Error` prints its whole chain; its
/// [`source`](std::error::Error::source) is that of a [`ContextError`], the cause.
#[derive(Debug)]
pub struct TaskError<E> {
    label: Label,
    elapsed: Duration,
    kind: TaskErrorKind<E>,
    caused: bool,
}

/// The three ways for a task to fail.
#[derive(Debug, thiserror::Error)]
pub enum TaskErrorKind<E> {
    /// It returned an error.
    #[error("{0:#}")]
    Failed(E),
    /// It panicked, or its destructor did.
    #[error("panicked: {0}")]
    Panicked(Panic),
    /// The group stopped it: it never started, was dropped at an await because it may be
    /// ([`go_cancellable`](crate::Group::go_cancellable)), or was aborted.
    #[error(transparent)]
    Aborted(ContextError),
}

impl<E: Display> TaskErrorKind<E> {
    /// The same for an event.
    pub(crate) fn as_failure(&self) -> tracing::Failure<'_> {
        match self {
            TaskErrorKind::Failed(error) => tracing::Failure::Error(error),
            TaskErrorKind::Panicked(panic) => tracing::Failure::Panic(panic),
            TaskErrorKind::Aborted(reason) => tracing::Failure::Abort {
                reason,
                cause: reason.cause().map(|cause| cause as &dyn Display),
            },
        }
    }
}

impl<E> TaskError<E> {
    pub(crate) fn new(
        label: Label,
        elapsed: Duration,
        kind: TaskErrorKind<E>,
        caused: bool,
    ) -> TaskError<E> {
        TaskError {
            label,
            elapsed,
            kind,
            caused,
        }
    }

    /// The name that [`named`](crate::Group::named) gave the task.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.label.name.as_deref()
    }

    /// Where the task was started: the line that called `go`.
    #[must_use]
    pub fn site(&self) -> &'static Location<'static> {
        self.label.site
    }

    /// How long the task ran, from its start to its end, waits included; zero if it never started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// How it failed.
    #[must_use]
    pub fn kind(&self) -> &TaskErrorKind<E> {
        &self.kind
    }

    /// How it failed, by value.
    #[must_use]
    pub fn into_kind(self) -> TaskErrorKind<E> {
        self.kind
    }

    pub(crate) fn is_panic(&self) -> bool {
        matches!(self.kind, TaskErrorKind::Panicked(_))
    }
}

impl<E: Display> Display for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.label, self.kind)
    }
}

impl<E: Debug + Display> Error for TaskError<E> {
    /// What lies behind the kind: its own text is part of this error's.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            TaskErrorKind::Aborted(error) => error.source(),
            TaskErrorKind::Failed(_) | TaskErrorKind::Panicked(_) => None,
        }
    }
}

/// A panic that was caught: its payload, and its text. `Sync`, as a bare payload is not.
pub struct Panic {
    payload: Mutex<Payload>,
    text: Cow<'static, str>,
}

impl Panic {
    pub(crate) fn new(payload: Payload) -> Panic {
        Panic {
            text: panic::text(&payload),
            payload: Mutex::new(payload),
        }
    }

    /// The message of the panic, if it was one: what `panic!` was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the panic carried, for a downcast or for [`std::panic::resume_unwind`].
    #[must_use]
    pub fn into_payload(self) -> Box<dyn Any + Send + 'static> {
        self.payload.into_inner()
    }
}

impl Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panic").field(&self.text).finish()
    }
}

/// Every failure of a group, in the order in which its tasks ended: what [`wait_all`](crate::Group::wait_all) gives.
///
/// It is never empty. The first 1,024 failures are kept whole, and the first panic in any case; the others are
/// [counted](Errors::omitted).
///
/// Displayed, it is what one wants in a log: the first cause, then what became of the others.
/// `task "fetch" (started at src/main.rs:7:5): disk full (1 more failed, 6 were stopped)`.
#[derive(Debug)]
pub struct Errors<E> {
    tasks: Vec<TaskError<E>>,
    omitted: usize,
}

impl<E> Errors<E> {
    /// `tasks` is not empty.
    pub(crate) fn new(tasks: Vec<TaskError<E>>, omitted: usize) -> Errors<E> {
        debug_assert!(!tasks.is_empty());
        Errors { tasks, omitted }
    }

    /// The failures that were kept, in the order in which the tasks ended.
    pub fn iter(&self) -> std::slice::Iter<'_, TaskError<E>> {
        self.tasks.iter()
    }

    /// How many failures were kept: at least one.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// How many failures were counted only.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Those that caused: the first failure, what failed by itself before the context ended, and every panic.
    pub fn causes(&self) -> impl Iterator<Item = &TaskError<E>> {
        self.tasks.iter().filter(|task| task.caused)
    }

    /// Those that obeyed: what failed once the context had ended, was stopped, or never started.
    pub fn cancelled(&self) -> impl Iterator<Item = &TaskError<E>> {
        self.tasks.iter().filter(|task| !task.caused)
    }

    /// A panic if there is one, or else the first failure.
    fn main(&self) -> Option<&TaskError<E>> {
        let panic = self.tasks.iter().find(|task| task.is_panic());
        panic.or_else(|| self.tasks.first())
    }
}

impl<E: Display> Display for Errors<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(main) = self.main() else {
            return Ok(());
        };
        Display::fmt(main, f)?;
        let mut others = Counts::default();
        for task in &self.tasks {
            if !std::ptr::eq(task, main) {
                others.add(task);
            }
        }
        others.omitted = self.omitted;
        Display::fmt(&others, f)
    }
}

/// What became of the others.
#[derive(Default)]
struct Counts {
    panicked: usize,
    failed: usize,
    obeyed: usize,
    stopped: usize,
    omitted: usize,
}

impl Counts {
    fn add<E>(&mut self, task: &TaskError<E>) {
        let count = match task.kind {
            TaskErrorKind::Panicked(_) => &mut self.panicked,
            TaskErrorKind::Aborted(_) => &mut self.stopped,
            TaskErrorKind::Failed(_) if task.caused => &mut self.failed,
            TaskErrorKind::Failed(_) => &mut self.obeyed,
        };
        *count += 1;
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.panicked, "more panicked"),
            (self.failed, "more failed"),
            (self.obeyed, "failed when asked to stop"),
            (self.stopped, "were stopped"),
            (self.omitted, "more are not listed"),
        ];
        let mut separator = " (";
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {what}")?;
            separator = ", ";
        }
        f.write_str(if separator == ", " { ")" } else { "" })
    }
}

impl<E: Debug + Display> Error for Errors<E> {
    /// That of the failure which is displayed first.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.main().and_then(Error::source)
    }
}

impl<E> IntoIterator for Errors<E> {
    type Item = TaskError<E>;
    type IntoIter = std::vec::IntoIter<TaskError<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.tasks.into_iter()
    }
}

impl<'a, E> IntoIterator for &'a Errors<E> {
    type Item = &'a TaskError<E>;
    type IntoIter = std::slice::Iter<'a, TaskError<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
