//! The errors of tasks: one failure, and all failures of a group.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Debug, Display};
use std::io;
use std::panic::Location;
use std::time::Duration;

use crate::context::{ContextError, is_searching};
use crate::panic::{self, Payload};
use crate::sync::Mutex;
use crate::tracing;

/// The name of a task, and the place where it was started.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) site: &'static Location<'static>,
}

/// Writes `task "fetch" (started at src/main.rs:7:5)`, or without the name if the task has none.
impl Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "task {name:?} (started at {})", self.site),
            None => write!(f, "task started at {}", self.site),
        }
    }
}

/// A failure of one task of a group.
///
/// [`Display`] names the task and the reason: `task "fetch" (started at src/main.rs:7:5): disk
/// full`. The error that your task returned is displayed in its alternate form, in which an
/// `anyhow::Error` prints its whole chain. For a task that the group stopped, it gives the cause:
/// `task "fetch" (started at src/main.rs:7:5) was stopped: shutting down`. The
/// [`source`](std::error::Error::source) is then that of the cause; other failures have none.
#[doc(alias = "JoinError")]
#[derive(Debug)]
pub struct TaskError<E> {
    label: Label,
    elapsed: Duration,
    kind: TaskErrorKind<E>,
    caused: bool,
    /// Whether the task was dropped after it had started and before it had ended.
    was_running: bool,
}

/// The reason why a task failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskErrorKind<E> {
    /// The task returned an error.
    #[error("{0:#}")]
    Failed(E),
    /// The task panicked, or its destructor did.
    #[error("panicked: {0}")]
    Panicked(Panic),
    /// The group aborted the task: it never started, it was dropped at an await because
    /// [`go_cancellable`](crate::Group::go_cancellable) allows that, or it was dropped when the
    /// group was aborted.
    #[error(transparent)]
    Aborted(ContextError),
}

impl<E: Display> TaskErrorKind<E> {
    /// Returns the failure as an event needs it.
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
        was_running: bool,
    ) -> TaskError<E> {
        TaskError {
            label,
            elapsed,
            kind,
            caused,
            was_running,
        }
    }

    pub(crate) fn label(&self) -> &Label {
        &self.label
    }

    /// Returns the name that [`named`](crate::Group::named) gave the task.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.label.name.as_deref()
    }

    /// Returns the place where the task was started: the line that called `go`.
    #[must_use]
    pub fn site(&self) -> &'static Location<'static> {
        self.label.site
    }

    /// Returns how long the task ran, from its start to its end, including the time that it waited.
    /// It is zero if the task never started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Returns the reason why the task failed.
    #[must_use]
    pub fn kind(&self) -> &TaskErrorKind<E> {
        &self.kind
    }

    /// Consumes the error and returns the reason why the task failed.
    #[must_use]
    pub fn into_kind(self) -> TaskErrorKind<E> {
        self.kind
    }

    /// Returns whether the task failed before its context was done, or panicked.
    pub(crate) fn is_cause(&self) -> bool {
        self.caused
    }

    /// Returns whether the task was dropped after it had started and before it had ended.
    pub(crate) fn was_running(&self) -> bool {
        self.was_running
    }

    pub(crate) fn is_panic(&self) -> bool {
        matches!(self.kind, TaskErrorKind::Panicked(_))
    }
}

impl<E: Display> Display for TaskError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            TaskErrorKind::Aborted(error) if error.is_end() => match error.cause() {
                Some(cause) => write!(f, "{} was stopped: {cause}", self.label),
                None => write!(f, "{} was stopped: {error}", self.label),
            },
            kind => write!(f, "{}: {kind}", self.label),
        }
    }
}

impl<E: Debug + Display + 'static> Error for TaskError<E> {
    /// Returns the source of the reason. The text of the reason is part of this error's own text.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            TaskErrorKind::Aborted(error) if is_searching() => Some(error),
            TaskErrorKind::Aborted(error) if error.is_end() => {
                error.cause().and_then(|cause| cause.source())
            }
            TaskErrorKind::Aborted(error) => error.source(),
            TaskErrorKind::Failed(error) if is_searching() => as_error(error),
            TaskErrorKind::Failed(_) | TaskErrorKind::Panicked(_) => None,
        }
    }
}

/// Returns the error that a task has returned, if its type is one of those that usually contain the
/// error of a context. `E` need not be an error.
fn as_error<E: 'static>(error: &E) -> Option<&(dyn Error + 'static)> {
    type Boxed = Box<dyn Error + Send + Sync + 'static>;
    let error: &dyn Any = error;
    if let Some(error) = error.downcast_ref::<ContextError>() {
        return Some(error);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(error);
    }
    let error = error.downcast_ref::<Boxed>()?;
    Some(&**error)
}

/// A panic that was caught, with its payload and its text.
///
/// It is `Sync`, unlike a bare payload.
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

    /// Returns the message of the panic, or a placeholder if its payload is not a text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the payload of the panic, for a downcast or for [`std::panic::resume_unwind`].
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

/// All failures of a group, in the order in which its tasks finished.
///
/// [`wait_all`](crate::Group::wait_all) returns it. It is never empty. It keeps the first 1,024
/// failures, and the first panic in any case. The others are only [counted](Errors::omitted).
///
/// [`Display`] writes one line for a log: the first panic, or the first failure if no task has
/// panicked, and then how many other tasks failed and how. An example is `task "fetch" (started at
/// src/main.rs:7:5): disk full (1 more failed, 6 were stopped)`.
#[doc(alias("ExceptionGroup", "AggregateError"))]
#[derive(Debug)]
pub struct Errors<E> {
    tasks: Vec<TaskError<E>>,
    omitted: usize,
}

impl<E> Errors<E> {
    /// Creates the error. `tasks` must not be empty.
    pub(crate) fn new(tasks: Vec<TaskError<E>>, omitted: usize) -> Errors<E> {
        debug_assert!(!tasks.is_empty());
        Errors { tasks, omitted }
    }

    /// Iterates over the failures that were kept, in the order in which the tasks finished.
    pub fn iter(&self) -> std::slice::Iter<'_, TaskError<E>> {
        self.tasks.iter()
    }

    /// Returns how many failures were kept, which is at least one.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Returns how many failures were only counted.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Iterates over the failures that are causes: those from before the context was done, and
    /// every panic.
    ///
    /// If the context was cancelled from outside, or passed its deadline, before anything failed,
    /// only panics are causes.
    pub fn causes(&self) -> impl Iterator<Item = &TaskError<E>> {
        self.tasks.iter().filter(|task| task.caused)
    }

    /// Returns true if there is no [cause](Errors::causes): the context was cancelled or passed its
    /// deadline first, and every failure came after that, or is a task that the group refused.
    ///
    /// # Examples
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let (g, _ctx) = Group::<String>::with_context(Context::background());
    /// g.go_cancellable(std::future::pending());
    /// g.cancel_with("the user pressed stop");
    /// assert!(g.wait_all().await.unwrap_err().only_cancelled());
    /// # }
    /// ```
    #[must_use]
    pub fn only_cancelled(&self) -> bool {
        self.causes().next().is_none()
    }

    /// Iterates over the failures that are consequences: tasks that failed after the context was
    /// done, were aborted, or never started.
    pub fn cancelled(&self) -> impl Iterator<Item = &TaskError<E>> {
        self.tasks.iter().filter(|task| !task.caused)
    }

    /// Returns the first panic, or the first failure if there is no panic.
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

/// How many of the other tasks failed, by kind of failure.
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

impl<E: Debug + Display + 'static> Error for Errors<E> {
    /// Returns the source of the failure that is displayed first.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if is_searching() {
            return self
                .tasks
                .iter()
                .find_map(|task| ContextError::find(task).map(|it| it as _));
        }
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
