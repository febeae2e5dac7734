//! A permit that was reserved: the right to start one task.

use std::fmt;
use std::future::Future;

use super::permit_wait::PermitWait;
use super::queue::Queue;
use super::stoppable::Stoppable;
use super::task::{Entry, Task, Work};
use super::task_handle::{self, TaskHandle};
use crate::context::{CancelHandle, Context, RunOwned};
use crate::registry::First;
use crate::scheduler::Scheduler;
use crate::scheduler::current;
use crate::scheduler::effects::Observer;
use crate::scheduler::error::{Label, TaskErrorKind};
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{self, Job, JobResult, boxed_if_big};
use crate::scheduler::permits::lending::Lending;
use crate::sync::Arc;

/// The right to start one task of a group, from [`Group::reserve`](crate::Group::reserve).
///
/// Each method that starts a task uses the permit up: the task has it until it has finished.
/// Dropping a permit gives it back, and the next queued task starts. That is not a failure.
///
/// A permit counts in [`running`](crate::Group::running) and against the limit. It does not keep
/// the group alive, and [`wait`](crate::Group::wait) does not wait for it.
/// [`idle`](crate::Group::idle) and [`close_and_wait`](crate::Group::close_and_wait) do.
///
/// Once the group's context is done it starts nothing: what it was given is dropped and counts as
/// failed with the [`ContextError`](crate::ContextError), as with [`go`](crate::Group::go). After
/// `wait` has returned it is dropped and does not count.
///
/// tokio's `mpsc::Permit` is the same for a place in a channel, and its `OwnedSemaphorePermit` is a
/// permit that the caller holds until it drops it. This one is passed to a task.
///
/// # Permits that a task of the group has reserved
///
/// A task that awaits a reservation lends its own permit meanwhile. When the reservation is
/// granted, the task continues with the reserved permit as its own, until that is used or dropped.
/// Then it needs one again, and is polled further only when it has one. So at a limit of 1, a task
/// can reserve a permit and start a task with it, in a loop, and no more than `limit` tasks run at
/// once. A task that is started in this way starts when the current poll of its starter ends, and
/// not before, since both have the same permit.
///
/// - While a task keeps the permit, it does not lend it. If it awaits its group meanwhile, the
///   limit must have room for what it awaits: at a limit of 1 it would wait forever.
/// - A permit may be sent to another task or thread, in the group or outside. The task that has
///   reserved it continues with it as long as it exists. If it is used elsewhere while that task is
///   being polled, the new task may start at once: until that poll ends, one more than `limit` may
///   run.
/// - A [`go_blocking`](crate::Group::go_blocking) closure that awaits a reservation with
///   `Handle::block_on` cannot be held back. It has its own permit back when it continues, beyond
///   the limit if none is free.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, Group};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), errgroup::ContextError> {
/// let (g, _ctx) = Group::<errgroup::ContextError>::with_context(Context::background());
/// g.set_limit(2);
/// let (first, _second) = (g.reserve().await?, g.reserve().await?);
/// assert_eq!(g.running(), 2);
/// first.go(async { Ok(()) });
/// g.wait().await
/// # }
/// ```
#[doc(alias("OwnedPermit", "OwnedSemaphorePermit"))]
#[must_use = "a permit that is dropped is given back: start a task with it"]
pub struct Permit<E>
where
    E: GroupError,
{
    /// `None` once it is used.
    reserved: Option<Reserved<E>>,
}

struct Reserved<E>
where
    E: GroupError,
{
    scheduler: Arc<Scheduler<Queue<E>>>,
    /// Keeps the id of the permit in use.
    wait: Arc<PermitWait>,
}

impl<E> Permit<E>
where
    E: GroupError,
{
    /// Returns the permit of a reservation, which is counted as in use.
    pub(super) fn new(scheduler: Arc<Scheduler<Queue<E>>>, wait: Arc<PermitWait>) -> Permit<E> {
        Permit {
            reserved: Some(Reserved { scheduler, wait }),
        }
    }

    /// Starts a task with this permit.
    ///
    /// If the group's context is done, `future` is dropped and counts as failed with the
    /// [`ContextError`](crate::ContextError).
    ///
    /// See [`Group::go`](crate::Group::go).
    #[track_caller]
    pub fn go<F>(self, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let label = Label::unnamed();
        boxed_if_big!(future: F, Send => self.start(label, job::of_future(future, job::result)));
    }

    /// Starts a task that is given the *group's* context, with this permit.
    ///
    /// `start` is called by the worker that runs the task. If the group's context is done, `start`
    /// is dropped, which counts as a failure with the [`ContextError`](crate::ContextError).
    ///
    /// See [`Group::go_with`](crate::Group::go_with).
    #[track_caller]
    pub fn go_with<S, F>(self, start: S)
    where
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let label = Label::unnamed();
        let start = Box::new(start);
        let Some(ctx) = self.ctx() else { return };
        if const { job::is_big::<F>() } {
            self.start(
                label,
                job::of_start(move || Box::pin(start(ctx)), job::result),
            );
        } else {
            self.start(label, job::of_start(move || start(ctx), job::result));
        }
    }

    /// Starts a task with this permit that is dropped at its current await when the group's context
    /// is done.
    ///
    /// It then counts as failed with the [`ContextError`](crate::ContextError), as it does if the
    /// context is done already.
    ///
    /// See [`Group::go_cancellable`](crate::Group::go_cancellable).
    #[track_caller]
    pub fn go_cancellable<F>(self, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let label = Label::unnamed();
        let Some(ctx) = self.ctx() else { return };
        boxed_if_big!(future: F, Send => {
            self.start(label, job::of_future(RunOwned::new(ctx, future), job::result_under));
        });
    }

    /// Starts a closure on the blocking pool with this permit.
    ///
    /// The closure is given the group's context. Once it runs, it cannot be aborted. If the context
    /// is done, the closure is dropped on the pool, which counts as a failure with the
    /// [`ContextError`](crate::ContextError).
    ///
    /// See [`Group::go_blocking`](crate::Group::go_blocking).
    #[track_caller]
    pub fn go_blocking<F>(self, run: F)
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
    {
        let task = Task::new(Label::unnamed(), None);
        self.submit(task, Work::Blocking(Box::new(run)));
    }

    /// Starts a task that returns a value, with this permit.
    ///
    /// The value is kept in the returned [`TaskHandle`], which resolves to an error if the task
    /// fails, or if the group's context is done and it never starts.
    ///
    /// See [`Group::spawn`](crate::Group::spawn).
    #[track_caller]
    pub fn spawn<T, F>(self, future: F) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let label = Label::unnamed();
        boxed_if_big!(future: F, Send => {
            self.spawn_job(label, None, job::of_future(future, job::result))
        })
    }

    /// Starts a task that returns a value and is given a context of its own, with this permit.
    ///
    /// The context is a child of the group's, which [`TaskHandle::cancel`] cancels. The handle
    /// resolves to an error if the task fails, or if the group's context is done and it never
    /// starts.
    ///
    /// See [`Group::spawn_with`](crate::Group::spawn_with).
    #[track_caller]
    pub fn spawn_with<S, T, F>(self, start: S) -> TaskHandle<T>
    where
        T: Send + 'static,
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let label = Label::unnamed();
        let start = Box::new(start);
        let Some(ctx) = self.ctx() else {
            return TaskHandle::empty();
        };
        let (own, guard) = ctx.with_cancel();
        let own_cancel = Some(guard.disarm());
        let job = job::of_start(move || Box::pin(start(own)), job::result);
        self.spawn_job(label, own_cancel, job)
    }

    /// Starts a closure that returns a value on the blocking pool, with this permit.
    ///
    /// The closure is given a context of its own, a child of the group's, which
    /// [`TaskHandle::cancel`] cancels. Once it runs, it cannot be aborted. The handle resolves to
    /// an error if the closure fails, or if the group's context is done and it never begins.
    ///
    /// See [`Group::spawn_blocking`](crate::Group::spawn_blocking).
    #[track_caller]
    pub fn spawn_blocking<T, F>(self, run: F) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    {
        let Some(reserved) = &self.reserved else {
            return TaskHandle::empty();
        };
        let (own, guard) = reserved.scheduler.ctx().with_cancel();
        let (slot, handle) = task_handle::of_task(&reserved.scheduler, Some(guard.disarm()));
        let observer: Arc<dyn Observer> = slot.clone();
        let task = Task::new(Label::unnamed(), Some(observer));
        let run = Box::new(run);
        let run = move |_: Context| run(own).map(|value| slot.put(value));
        self.submit(task, Work::Blocking(Box::new(run)));
        handle
    }

    fn spawn_job<T, J>(self, label: Label, own: Option<CancelHandle>, job: J) -> TaskHandle<T>
    where
        T: Send + 'static,
        J: Future<Output = Result<T, TaskErrorKind<E>>> + Send + 'static,
    {
        let Some(reserved) = &self.reserved else {
            return TaskHandle::empty();
        };
        let (slot, handle) = task_handle::of_task(&reserved.scheduler, own);
        let observer: Arc<dyn Observer> = slot.clone();
        let job: Job<E> = Box::pin(Stoppable::new(slot, job));
        self.submit(Task::new(label, Some(observer)), Work::Future(job));
        handle
    }

    fn ctx(&self) -> Option<Context> {
        let reserved = self.reserved.as_ref()?;
        Some(reserved.scheduler.ctx().clone())
    }

    fn start<J>(self, label: Label, job: J)
    where
        J: Future<Output = JobResult<E>> + Send + 'static,
    {
        self.submit(Task::new(label, None), Work::Future(Box::pin(job)));
    }

    /// Starts a task: now, or at the end of the poll on this thread if that runs on this permit.
    fn submit(mut self, mut task: Task, work: Work<E>) {
        let Some(Reserved { scheduler, wait }) = self.reserved.take() else {
            return;
        };
        task.open_span_of(&scheduler.shared.span, work.kind(), First::Starts);
        let id = wait.reserved_id();
        let lender = scheduler.with_permits(|permits| permits.attached_to(id));
        let entry = Entry { task, work };
        let Some(lender) = lender else {
            scheduler.submit_reserved(&wait, entry);
            return;
        };
        let scheduler_id = Lending::id(&*scheduler);
        let start = Box::new(move || {
            scheduler.submit_reserved(&wait, entry);
        });
        if let Err(start) = current::defer(scheduler_id, lender, start) {
            start();
        }
    }
}

impl<E> Drop for Permit<E>
where
    E: GroupError,
{
    fn drop(&mut self) {
        if let Some(Reserved { scheduler, wait }) = self.reserved.take() {
            scheduler.give_back(&wait);
        }
    }
}

impl<E> fmt::Debug for Permit<E>
where
    E: GroupError,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
