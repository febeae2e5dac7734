//! Starts clean-up tasks. Each is given a context that the end of the group's context does not end,
//! and is dropped at its await when the deadline of that has passed.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::SpawnBuilder;
use crate::context::{Context, RunOwned};
use crate::group::error::TryGoError;
use crate::group::handle::Admission;
use crate::group::task::Task;
use crate::group::task_handle::TaskHandle;
use crate::panic;
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{self, JobResult};

/// The function that begins a clean-up task. Its type is erased, so that the code of clean-up tasks
/// is not compiled for each call that could start one.
pub(crate) type CleanUp<T, E> = Box<dyn FnOnce(Context) -> CleanUpFuture<T, E> + Send>;

type CleanUpFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<E> SpawnBuilder<'_, E>
where
    E: GroupError,
{
    #[track_caller]
    pub(crate) fn clean_up(self, what: &str, max: Duration, start: CleanUp<(), E>) -> Admission {
        self.submit(what, None, start, |start, ctx| {
            clean_up_job(ctx.clone(), max, start)
        })
    }

    /// The same, if the task is accepted. Otherwise returns the future.
    #[track_caller]
    pub(crate) fn try_clean_up<F>(
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
    pub(crate) fn clean_up_blocking<F>(self, max: Duration, run: Box<F>) -> Admission
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
    {
        self.go_blocking(Box::new(move |group: Context| run(group.shield(max))))
    }

    #[track_caller]
    pub(crate) fn clean_up_local(
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
    pub(crate) fn spawn_clean_up<T>(self, max: Duration, start: CleanUp<T, E>) -> TaskHandle<T>
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
