//! Starts tasks that return a value to a handle.

use std::future::Future;

use super::SpawnBuilder;
use crate::context::{CancelHandle, Context};
use crate::group::queue::Queue;
use crate::group::stoppable::Stoppable;
use crate::group::task::{Task, Work};
use crate::group::task_handle::{self, StopQueued, TaskHandle};
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::effects::Observer;
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job;
use crate::sync::{Arc, Weak};

impl<E> SpawnBuilder<'_, E>
where
    E: GroupError,
{
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
    pub(super) fn spawn_job<W, T, J>(
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
    pub(super) fn own_context(&self) -> (Context, Option<CancelHandle>) {
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

fn downgrade<E: GroupError>(scheduler: &Arc<Scheduler<Queue<E>>>) -> Weak<dyn StopQueued> {
    Arc::<Scheduler<Queue<E>>>::downgrade(scheduler)
}
