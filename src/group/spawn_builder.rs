//! The implementation of every method that starts a task, shared by `Group`, `TaskBuilder` and
//! `Spawner`.

use std::borrow::Cow;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::time::Duration;

use super::handle::Admission;
use super::policy::Options;
use super::queue::Queue;
use super::stoppable::Stoppable;
use super::task::{Task, Work};
use super::task_handle::{self, StopQueued, TaskHandle};
use crate::context::{CancelHandle, Context, RunOwned};
use crate::group::error::TryGoError;
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::effects::Observer;
use crate::scheduler::error::{Label, TaskErrorKind};
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{self, JobResult};
use crate::sync::{Arc, Weak};

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

    #[track_caller]
    pub(crate) fn spawn<T, F>(self, future: F) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.spawn_job("spawn", None, future, |future, _| {
            job::of_future(future, job::result)
        })
    }

    /// Starts a task that is given a context of its own.
    #[track_caller]
    pub(crate) fn spawn_with<S, T, F>(self, start: S) -> TaskHandle<T>
    where
        T: Send + 'static,
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        if const { job::is_big::<F>() } {
            return self.spawn_made(|ctx| Box::pin(start(ctx)));
        }
        self.spawn_made(start)
    }

    #[track_caller]
    fn spawn_made<S, T, F>(self, start: S) -> TaskHandle<T>
    where
        T: Send + 'static,
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (own, cancel) = self.own_context();
        self.spawn_job("spawn_with", cancel, start, |start, _| {
            job::of_start(move || start(own), job::result)
        })
    }

    /// Starts a closure that returns a value, and is given a context of its own, on the blocking
    /// pool.
    #[track_caller]
    pub(crate) fn spawn_blocking<T, F>(self, run: Box<F>) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    {
        let Some(scheduler) = self.scheduler else {
            Work::<E>::Blocking(Box::new(|ctx| run(ctx).map(drop))).discard();
            return TaskHandle::empty();
        };
        scheduler.bind("spawn_blocking");
        let (own, cancel) = self.own_context();
        let (slot, handle) = task_handle::of_task(scheduler, cancel);
        let observer: Arc<dyn Observer> = slot.clone();
        let task = Task::with_policy(self.label, Some(observer), self.options.policy);
        let cleanup = self.options.cleanup;
        let run = Box::new(move |_: Context| {
            let value = run(cleanup.map_or_else(|| own.clone(), |max| own.with_timeout(max)))?;
            slot.put(value);
            Ok(())
        });
        let admission = scheduler.submit_blocking(task, run);
        handle.with_admission(&admission, || downgrade(scheduler))
    }

    /// Starts the job that `into_job` makes of `work`, and whose handle can stop it.
    #[track_caller]
    fn spawn_job<W, T, J>(
        self,
        what: &str,
        cancel: Option<CancelHandle>,
        work: W,
        into_job: impl FnOnce(W, &Context) -> J,
    ) -> TaskHandle<T>
    where
        T: Send + 'static,
        J: Future<Output = Result<T, TaskErrorKind<E>>> + Send + 'static,
    {
        let Some(scheduler) = self.scheduler else {
            panic::discard(into_job(work, &Context::background()));
            return TaskHandle::empty();
        };
        let (slot, handle) = task_handle::of_task(scheduler, cancel);
        let observer: Arc<dyn Observer> = slot.clone();
        let admission = self.submit(what, Some(observer), work, |work, ctx| {
            Stoppable::new(slot, into_job(work, ctx))
        });
        handle.with_admission(&admission, || downgrade(scheduler))
    }

    /// Makes the context of a task's own, which its handle cancels. That of a clean-up task has its
    /// deadline from the start of the task.
    fn own_context(&self) -> (Context, Option<CancelHandle>) {
        let Some(scheduler) = self.scheduler else {
            return (Context::background(), None);
        };
        let group = scheduler.ctx();
        let (own, guard) = match self.options.cleanup {
            None => group.with_cancel(),
            Some(_) => group.without_cancel().with_cancel(),
        };
        (own, Some(guard.disarm()))
    }
}

/// The function that begins a clean-up task. Its type is erased, so that the code of clean-up tasks
/// is not compiled for each call that could start one.
pub(super) type CleanUp<T, E> = Box<dyn FnOnce(Context) -> CleanUpFuture<T, E> + Send>;

type CleanUpFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Clean-up tasks. Each is given a context that the end of the group's context does not end, and is
/// dropped at its await when the deadline of that has passed.
impl<E> SpawnBuilder<'_, E>
where
    E: GroupError,
{
    #[track_caller]
    pub(super) fn clean_up(self, what: &str, max: Duration, start: CleanUp<(), E>) -> Admission {
        self.submit(what, None, start, |start, ctx| {
            clean_up_job(ctx.clone(), max, start)
        })
    }

    /// The same, if the task is accepted. Otherwise returns the future.
    #[track_caller]
    pub(super) fn try_clean_up<F>(
        self,
        max: Duration,
        future: Box<F>,
    ) -> Result<(), TryGoError<Box<F>>>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let group = self.scheduler.map(|scheduler| scheduler.ctx().clone());
        self.try_submit(future, |future| {
            let future = Box::into_pin(future);
            clean_up_job(group.unwrap_or_default(), max, Box::new(|_| future))
        })
    }

    #[track_caller]
    pub(super) fn clean_up_blocking<F>(self, max: Duration, run: Box<F>) -> Admission
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
    {
        self.go_blocking(Box::new(move |group: Context| run(group.shield(max))))
    }

    #[track_caller]
    pub(super) fn clean_up_local(
        self,
        max: Duration,
        future: Pin<Box<dyn Future<Output = Result<(), E>>>>,
    ) -> Admission {
        let Some(scheduler) = self.scheduler else {
            panic::discard(future);
            return Admission::never_started();
        };
        scheduler.bind("go_local");
        let task = Task::with_policy(self.label, None, self.options.policy);
        let group = scheduler.ctx().clone();
        scheduler.go_local(task, under_deadline(move || group.shield(max), |_| future))
    }

    #[track_caller]
    pub(super) fn spawn_clean_up<T>(self, max: Duration, start: CleanUp<T, E>) -> TaskHandle<T>
    where
        T: Send + 'static,
    {
        let (own, cancel) = self.own_context();
        self.spawn_job("spawn_with", cancel, start, |start, _| {
            under_deadline(move || own.with_timeout(max), start)
        })
    }
}

fn clean_up_job<E>(
    group: Context,
    max: Duration,
    start: CleanUp<(), E>,
) -> impl Future<Output = JobResult<E>> {
    under_deadline(move || group.shield(max), start)
}

/// Returns a job that makes its context when it starts, and is dropped when that is done.
fn under_deadline<C, S, T, E, F>(
    make: C,
    start: S,
) -> impl Future<Output = Result<T, TaskErrorKind<E>>>
where
    C: FnOnce() -> Context,
    S: FnOnce(Context) -> F,
    F: Future<Output = Result<T, E>>,
{
    let start = move || {
        let ctx = make();
        RunOwned::new(ctx.clone(), start(ctx))
    };
    job::of_start(start, job::result_under)
}

fn downgrade<E: GroupError>(scheduler: &Arc<Scheduler<Queue<E>>>) -> Weak<dyn StopQueued> {
    Arc::<Scheduler<Queue<E>>>::downgrade(scheduler)
}
