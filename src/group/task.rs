//! A task of a group: its bookkeeping and its work.

use tokio::time::Instant;

use super::policy::{Policy, Role};
use crate::context::{Cause, Context, ContextError};
use crate::panic;
use crate::registry::{First, TaskKind};
use crate::scheduler::calls::{CallId, PoolId};
use crate::scheduler::effects::Observer;
use crate::scheduler::error::Label;
use crate::scheduler::failures::OnFailure;
use crate::scheduler::job::Job;
use crate::scheduler::source::Tag;
use crate::span::{Span, TaskSpan};
use crate::sync::{Arc, Handle};

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

impl<E> Work<E> {
    pub(super) fn kind(&self) -> TaskKind {
        match self {
            Work::Future(_) => TaskKind::Task,
            Work::Blocking(_) => TaskKind::Blocking,
        }
    }
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

impl Label {
    /// Returns the cause with which the end of an essential task cancels the context.
    #[cold]
    fn cause_of_end(&self) -> Cause {
        Cause::from(match &self.name {
            Some(name) => format!("essential task {name} has ended"),
            None => format!("essential task {} has ended", self.site),
        })
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
    pub(super) policy: Policy,
    span: TaskSpan,
}

impl Task {
    /// Creates the bookkeeping of a task without options.
    pub(crate) fn new(label: Label, observer: Option<Arc<dyn Observer>>) -> Task {
        Task::with_policy(label, observer, Policy::default())
    }

    pub(super) fn with_policy(
        label: Label,
        observer: Option<Arc<dyn Observer>>,
        policy: Policy,
    ) -> Task {
        Task {
            label,
            observer,
            place: Place::Worker,
            started: None,
            policy,
            span: TaskSpan::none(),
        }
    }

    /// Returns the address of the observer, which identifies the task to its handle.
    pub(super) fn observer_id(&self) -> Option<usize> {
        let observer = self.observer.as_ref()?;
        Some(Arc::as_ptr(observer).cast::<()>() as usize)
    }

    /// Notes that the task waits for a permit from now on.
    pub(super) fn queued(&self) {
        self.span.queued();
    }

    /// Opens the task's span. `group` is the span in which its group was made.
    pub(crate) fn open_span(&mut self, group: &Span) {
        self.open_span_of(group, TaskKind::Task, First::Starts);
    }

    /// Opens the span of a task of this kind, unless the options of the task make it another one.
    #[inline]
    pub(crate) fn open_span_of(&mut self, group: &Span, kind: TaskKind, first: First) {
        let kind = match self.policy.role {
            Role::Plain => kind,
            Role::Background => TaskKind::Background,
            Role::Cleanup => TaskKind::Cleanup,
        };
        #[cfg(all(feature = "inspect", feature = "tower"))]
        if self.policy.has_entry {
            self.span = group.task_without_entry(self.label.name.as_ref(), self.label.site);
            return;
        }
        self.span = group.task(self.label.name.as_ref(), self.label.site, kind, first);
    }
}

impl Tag for Task {
    fn started(&mut self) {
        let now = Instant::now();
        self.started = Some(now);
        let entry = self.span.started(now);
        if let (Some(observer), Some(entry)) = (&self.observer, entry) {
            observer.started(entry);
        }
    }

    fn span(&self) -> Option<&TaskSpan> {
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

    fn takes_permit(&self) -> bool {
        self.policy.takes_permit()
    }

    fn is_background(&self) -> bool {
        self.policy.is_background()
    }

    fn on_failure(&self, group: OnFailure) -> OnFailure {
        match group {
            _ if self.policy.is_essential => OnFailure::EndContext,
            OnFailure::EndContext if self.policy.is_non_fatal => OnFailure::EndAtPanic,
            group => group,
        }
    }

    #[inline]
    fn cause_of_end(&self) -> Option<Cause> {
        self.policy.is_essential.then(|| self.label.cause_of_end())
    }

    fn is_stopped(&self) -> bool {
        self.observer
            .as_ref()
            .is_some_and(|observer| observer.is_stopped())
    }

    fn hand_failure(&self, failure: ContextError, is_panic: bool) {
        if let Some(observer) = &self.observer {
            observer.failed(failure, is_panic);
        }
    }
}
