//! A task of a group: its bookkeeping and its work.

use tokio::time::Instant;

use crate::context::Context;
use crate::panic;
use crate::scheduler::calls::{CallId, PoolId};
use crate::scheduler::effects::Observer;
use crate::scheduler::error::Label;
use crate::scheduler::job::Job;
use crate::scheduler::source::Tag;
use crate::sync::{Arc, Handle};
use crate::tracing::Span;

/// Identifies a local task within its group.
pub(crate) type LocalId = usize;

/// A closure for the blocking pool.
pub(crate) type BlockingJob<E> = Box<dyn FnOnce(Context) -> Result<(), E> + Send>;

/// A task and its work, as `go` was given them.
pub(crate) struct Entry<E> {
    pub(crate) task: Task,
    pub(crate) work: Work<E>,
}

pub(crate) enum Work<E> {
    Future(Job<E>),
    Blocking(BlockingJob<E>),
}

impl<E: 'static> Work<E> {
    /// Drops the work when there is no group left to which a panic of its destructor could be
    /// reported.
    pub(crate) fn discard(self) {
        match self {
            Work::Future(job) => panic::discard(job),
            Work::Blocking(job) => discard(job),
        }
    }
}

/// Drops a job for which no group waits, on the pool if there is a runtime.
fn discard<E: 'static>(job: BlockingJob<E>) {
    match Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn_blocking(move || panic::discard(job));
        }
        Err(_) => panic::discard(job),
    }
}

/// Where a task runs, if that is entered in its group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Worker,
    LocalSet(LocalId),
    /// On a thread of the blocking pool.
    Pool(PoolId),
}

/// The bookkeeping of a task while it waits and while it runs.
pub(crate) struct Task {
    pub(crate) label: Label,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) place: Place,
    pub(super) started: Option<Instant>,
    span: Span,
}

impl Task {
    pub(crate) fn new(label: Label, observer: Option<Arc<dyn Observer>>) -> Task {
        Task {
            label,
            observer,
            place: Place::Worker,
            started: None,
            span: Span::none(),
        }
    }

    /// Opens the task's span. `group` is the span in which its group was made.
    pub(crate) fn open_span(&mut self, group: &Span) {
        self.span = group.task(self.label.name.as_deref(), self.label.site);
    }
}

impl Tag for Task {
    fn started(&mut self) {
        self.started = Some(Instant::now());
    }

    fn span(&self) -> Option<&Span> {
        Some(&self.span)
    }

    fn close_span(&mut self) {
        self.span.close();
    }

    fn failed_call(&self) -> Option<CallId> {
        self.observer.as_ref()?.failed_call()
    }

    fn has_started(&self) -> bool {
        self.started.is_some()
    }

    fn on_pool(&self) -> Option<PoolId> {
        match self.place {
            Place::Pool(id) => Some(id),
            Place::Worker | Place::LocalSet(_) => None,
        }
    }

    fn is_observed(&self) -> bool {
        self.observer.is_some()
    }
}
