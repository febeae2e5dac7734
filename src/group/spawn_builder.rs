//! The implementation of every method that starts a task, shared by `Group`, `TaskBuilder` and
//! `Spawner`.

mod clean_up;
mod with_value;

use std::borrow::Cow;
use std::future::Future;
use std::panic::Location;

use super::handle::Admission;
use super::policy::Options;
use super::queue::Queue;
use super::task::{Task, Work};
use crate::context::{Context, RunOwned};
use crate::group::error::TryGoError;
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::effects::Observer;
use crate::scheduler::error::Label;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{self, JobResult};
use crate::sync::Arc;

impl Label {
    /// Returns the label of a task that has no name and that the caller starts.
    #[track_caller]
    pub(crate) fn unnamed() -> Label {
        Label {
            name: None,
            site: Location::caller(),
        }
    }

    /// Returns the label of a task with a name, to which the caller gave it.
    #[track_caller]
    pub(crate) fn named(name: Cow<'static, str>) -> Label {
        Label {
            name: Some(name),
            site: Location::caller(),
        }
    }
}

/// A task about to be started: in which group, and under which name.
///
/// It borrows the scheduler: counting a reference to it for each task would have workers and the
/// threads that start tasks contend for the count.
pub(crate) struct SpawnBuilder<'a, E>
where
    E: GroupError,
{
    /// `None` if the group was dropped: nothing starts any more.
    scheduler: Option<&'a Arc<Scheduler<Queue<E>>>>,
    label: Label,
    options: Options,
}

impl<'a, E> SpawnBuilder<'a, E>
where
    E: GroupError,
{
    pub(crate) fn new(
        scheduler: Option<&'a Arc<Scheduler<Queue<E>>>>,
        label: Label,
    ) -> SpawnBuilder<'a, E> {
        SpawnBuilder::with_options(scheduler, label, Options::default())
    }

    pub(super) fn with_options(
        scheduler: Option<&'a Arc<Scheduler<Queue<E>>>>,
        label: Label,
        options: Options,
    ) -> SpawnBuilder<'a, E> {
        SpawnBuilder {
            scheduler,
            label,
            options,
        }
    }

    /// Starts the job that `into_job` makes of `work`.
    #[track_caller]
    fn submit<W, J>(
        self,
        what: &str,
        observer: Option<Arc<dyn Observer>>,
        work: W,
        into_job: impl FnOnce(W, &Context) -> J,
    ) -> Admission
    where
        J: Future<Output = JobResult<E>> + Send + 'static,
    {
        let Some(scheduler) = self.scheduler else {
            // The group was dropped, so there is nothing to which a panic of the destructor could
            // be reported.
            panic::discard(into_job(work, &Context::background()));
            return Admission::never_started();
        };
        scheduler.bind(what);
        let job = into_job(work, scheduler.ctx());
        let task = Task::with_policy(self.label, observer, self.options.policy);
        scheduler.submit_with(task, job)
    }

    #[track_caller]
    pub(crate) fn go<F>(self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.submit("go", None, future, |future, _| {
            job::of_future(future, job::result)
        })
    }

    #[track_caller]
    pub(crate) fn go_with<S, F>(self, start: S) -> Admission
    where
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        if const { job::is_big::<F>() } {
            return self.go_made(|ctx| Box::pin(start(ctx)));
        }
        self.go_made(start)
    }

    #[track_caller]
    fn go_made<S, F>(self, start: S) -> Admission
    where
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.submit("go_with", None, start, |start, ctx| {
            let ctx = ctx.clone();
            job::of_start(move || start(ctx), job::result)
        })
    }

    #[track_caller]
    pub(crate) fn go_cancellable<F>(self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.submit("go_cancellable", None, future, |future, ctx| {
            job::of_future(RunOwned::new(ctx.clone(), future), job::result_under)
        })
    }

    #[track_caller]
    pub(crate) fn try_go<F>(self, future: F) -> Result<(), TryGoError<F>>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.try_submit(future, |future| job::of_future(future, job::result))
    }

    /// Starts a boxed future if a permit is free. The box is not pinned yet, since it may have to
    /// be returned.
    #[track_caller]
    pub(crate) fn try_go_boxed<F>(self, future: Box<F>) -> Result<(), TryGoError<Box<F>>>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.try_submit(future, |future| {
            let future = Box::into_pin(future);
            job::of_future(future, job::result)
        })
    }

    #[track_caller]
    fn try_submit<F, J>(self, future: F, into_job: impl FnOnce(F) -> J) -> Result<(), TryGoError<F>>
    where
        J: Future<Output = JobResult<E>> + Send + 'static,
    {
        let Some(scheduler) = self.scheduler else {
            return Err(TryGoError::Ended(future));
        };
        scheduler.bind("try_go");
        let task = Task::with_policy(self.label, None, self.options.policy);
        if task.policy.takes_permit() {
            scheduler.try_submit(task, future, |future| {
                Work::Future(Box::pin(into_job(future)))
            })
        } else {
            scheduler.try_submit_without_permit(task, future, |future| Box::pin(into_job(future)))
        }
    }

    /// Starts a closure on the blocking pool. It stays in the box that it comes in.
    #[track_caller]
    pub(crate) fn go_blocking<F>(self, run: Box<F>) -> Admission
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
    {
        let Some(scheduler) = self.scheduler else {
            Work::<E>::Blocking(run).discard();
            return Admission::never_started();
        };
        scheduler.bind("go_blocking");
        let task = Task::with_policy(self.label, None, self.options.policy);
        scheduler.submit_blocking(task, run)
    }

    #[track_caller]
    pub(crate) fn go_local<F>(self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + 'static,
    {
        let Some(scheduler) = self.scheduler else {
            panic::discard(future);
            return Admission::never_started();
        };
        scheduler.bind("go_local");
        let task = Task::with_policy(self.label, None, self.options.policy);
        scheduler.go_local(task, job::of_future(future, job::result))
    }
}
