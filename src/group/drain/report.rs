//! The report of a drain.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::scheduler::error::{Label, TaskError};
use crate::scheduler::ledger::Straggler;

/// The report of a [`Drain`](crate::Drain): what became of the tasks of each phase.
///
/// Each task is in it once: as finished, as stopped, as aborted, as blocking, as an error, or as
/// left running. Only a failure that [`start`](crate::Group::start) has returned to its caller is
/// in no list.
///
/// It displays as one line for a log: `http: 3 finished, 1 aborted (POST /orders, after 7.2s);
/// workers: 8 stopped`. In the alternate form, `{:#}`, each phase has a line.
#[derive(Debug, Clone)]
pub struct Drained {
    phases: Vec<DrainedPhase>,
}

impl Drained {
    pub(crate) fn new(phases: Vec<DrainedPhase>) -> Drained {
        Drained { phases }
    }

    /// Returns the phases, in their order.
    #[must_use]
    pub fn phases(&self) -> &[DrainedPhase] {
        &self.phases
    }

    /// Iterates over the tasks that were aborted, in all phases.
    pub fn aborted(&self) -> impl Iterator<Item = &DrainedTask> {
        self.phases.iter().flat_map(|phase| phase.aborted())
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if f.alternate() { "\n" } else { "; " };
        for (number, phase) in self.phases.iter().enumerate() {
            if number > 0 {
                f.write_str(separator)?;
            }
            fmt::Display::fmt(phase, f)?;
        }
        Ok(())
    }
}

/// The report on one phase of a [`Drain`](crate::Drain).
#[derive(Debug, Clone)]
pub struct DrainedPhase {
    name: Cow<'static, str>,
    tally: Tally,
}

/// The entries of a phase.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) finished: usize,
    pub(crate) stopped: usize,
    pub(crate) aborted: Vec<DrainedTask>,
    pub(crate) blocking: Vec<DrainedTask>,
    pub(crate) errors: Vec<DrainedError>,
    pub(crate) omitted: usize,
    pub(crate) left_running: usize,
}

impl Tally {
    pub(crate) fn add_error(&mut self, task: DrainedTask, text: String) {
        self.errors.push(DrainedError::new(task, text));
    }
}

impl DrainedPhase {
    pub(crate) fn new(name: Cow<'static, str>, tally: Tally) -> DrainedPhase {
        DrainedPhase { name, tally }
    }

    /// Returns the name of the phase.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of tasks that succeeded during the drain, before they were asked to stop.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.tally.finished
    }

    /// Returns the number of tasks that stopped because they were asked to, or never started. Of
    /// handlers, also the number of those that the server has dropped with their connections.
    ///
    /// A task that returned an error after it was asked is one of them if the error reads as that
    /// of the context does. Otherwise it is one of the [`errors`](DrainedPhase::errors).
    #[must_use]
    pub fn stopped(&self) -> usize {
        self.tally.stopped
    }

    /// Returns the tasks that were dropped before they had ended: when the time was over, or when
    /// the group was aborted before the drain.
    #[must_use]
    pub fn aborted(&self) -> &[DrainedTask] {
        &self.tally.aborted
    }

    /// Returns the closures that still run on the blocking pool. Nothing can abort them.
    #[must_use]
    pub fn blocking(&self) -> &[DrainedTask] {
        &self.tally.blocking
    }

    /// Returns the failures of the tasks, those from before the drain included. A panic is one of
    /// them.
    #[must_use]
    pub fn errors(&self) -> &[DrainedError] {
        &self.tally.errors
    }

    /// Returns the number of entries from before the drain that are in no list: a group keeps its
    /// first 1,024 failures, and the handlers of a server their last 1,024 aborts.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.tally.omitted
    }

    /// Returns the number of tasks that were still running when the drain gave up, and are not
    /// counted as closures. They block their threads, nothing polls them, or they were just ending.
    #[must_use]
    pub fn left_running(&self) -> usize {
        self.tally.left_running
    }
}

impl fmt::Display for DrainedPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            finished,
            stopped,
            aborted,
            blocking,
            errors,
            omitted,
            left_running,
        } = &self.tally;
        write!(f, "{}:", self.name)?;
        let mut list = List { f, is_empty: true };
        list.add(*finished, "finished", &[] as &[DrainedTask])?;
        list.add(*stopped, "stopped", &[] as &[DrainedTask])?;
        list.add(errors.len(), "failed", errors)?;
        list.add(aborted.len(), "aborted", aborted)?;
        list.add(blocking.len(), "still blocking", blocking)?;
        list.add(*left_running, "still running", &[] as &[DrainedTask])?;
        list.add(*omitted, "more not listed", &[] as &[DrainedTask])?;
        if list.is_empty {
            f.write_str(" idle")?;
        }
        Ok(())
    }
}

/// Writes the parts of a phase that are not empty.
struct List<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    is_empty: bool,
}

impl List<'_, '_> {
    fn add<T: fmt::Display>(&mut self, count: usize, what: &str, entries: &[T]) -> fmt::Result {
        if count == 0 {
            return Ok(());
        }
        let separator = if self.is_empty { " " } else { ", " };
        self.is_empty = false;
        write!(self.f, "{separator}{count} {what}")?;
        for (number, entry) in entries.iter().enumerate() {
            let separator = if number == 0 { " (" } else { "; " };
            write!(self.f, "{separator}{entry}")?;
        }
        self.f.write_str(if entries.is_empty() { "" } else { ")" })
    }
}

/// A task in the report of a [`Drain`](crate::Drain).
///
/// It displays as `task "import" (started at src/main.rs:7:5), after 7.2s`, and the handler of a
/// request as `POST /orders, after 7.2s`.
#[derive(Debug, Clone)]
pub struct DrainedTask {
    label: Label,
    age: Duration,
    is_handler: bool,
}

impl DrainedTask {
    /// Returns the entry of a handler, which is named by its request.
    #[cfg(feature = "tower")]
    pub(crate) fn of_handler(label: Label, age: Duration) -> DrainedTask {
        DrainedTask {
            label,
            age,
            is_handler: true,
        }
    }

    /// Returns the name of the task. That of a handler is its method and path: `POST /orders`.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.label.name.as_deref()
    }

    /// Returns the place where the task was started. For a handler, it is the place where its layer
    /// was made.
    #[must_use]
    pub fn site(&self) -> &'static Location<'static> {
        self.label.site
    }

    /// Returns how long the task has run: until its end or, if it still runs, until the report.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.age
    }

    fn fmt_label(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label.name {
            Some(name) if self.is_handler => f.write_str(name),
            _ => fmt::Display::fmt(&self.label, f),
        }
    }
}

impl fmt::Display for DrainedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_label(f)?;
        write!(f, ", after {:.1?}", self.age)
    }
}

impl From<Straggler> for DrainedTask {
    fn from(Straggler { label, age }: Straggler) -> DrainedTask {
        DrainedTask {
            label,
            age,
            is_handler: false,
        }
    }
}

impl<E> From<&TaskError<E>> for DrainedTask {
    fn from(task: &TaskError<E>) -> DrainedTask {
        DrainedTask {
            label: task.label().clone(),
            age: task.elapsed(),
            is_handler: false,
        }
    }
}

/// A failure in the report of a [`Drain`](crate::Drain).
///
/// It displays as `task "import" (started at src/main.rs:7:5): disk full`.
#[derive(Debug, Clone)]
pub struct DrainedError {
    task: DrainedTask,
    text: String,
}

impl DrainedError {
    pub(crate) fn new(task: DrainedTask, text: String) -> DrainedError {
        DrainedError { task, text }
    }

    /// Returns the name of the task. That of a handler is its method and path: `POST /orders`.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.task.name()
    }

    /// Returns the place where the task was started. For a handler, it is the place where its layer
    /// was made.
    #[must_use]
    pub fn site(&self) -> &'static Location<'static> {
        self.task.site()
    }

    /// Returns how long the task has run.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.task.age()
    }

    /// Returns the text of the error in its alternate form, in which an `anyhow::Error` prints its
    /// whole chain. That of a panic begins with `panicked: `.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for DrainedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.task.fmt_label(f)?;
        write!(f, ": {}", self.text)
    }
}
