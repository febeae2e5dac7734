//! A handle with which tasks start other tasks of their group.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;

use super::error::{self, TryGoError};
use super::handle::Admission;
use super::permit::Permit;
use super::policy::{Options, Policy};
use super::queue::Queue;
use super::reserve::Reserve;
use super::spawn_builder::SpawnBuilder;
use super::start::{self, Ready};
use super::steer;
use super::task_builder::TaskBuilder;
use super::task_handle::TaskHandle;
use super::tracked::{self, Tracked};
use crate::context::{Cause, Context, ContextError};
use crate::scheduler::Scheduler;
use crate::scheduler::error::Label;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{self, boxed_if_big};
use crate::sync::{Arc, Weak};

/// A handle that starts tasks in a group, from inside its tasks or from anywhere else.
///
/// A task cannot borrow its group, since it may outlive the borrow. Give it a clone of a spawner
/// instead, from [`Group::spawner`](crate::Group::spawner).
///
/// A spawner is weak: it does not keep the group alive, and it cannot wait for the tasks. Once the
/// group was dropped, or its `wait` has returned, nothing starts any more: futures and closures are
/// dropped, admissions say that the task was not started, [`try_go`](Spawner::try_go) returns the
/// future, the handle of [`spawn`](Spawner::spawn) resolves to an error, and
/// [`start`](Spawner::start) fails.
///
/// # If it does not compile
///
/// A task that starts itself again has a future whose type would contain itself. For an `async fn`
/// the compiler says `type annotations needed: cannot satisfy impl Future<..>: Send` (E0283):
///
/// ```compile_fail,E0283
/// # use errgroup::Spawner;
/// async fn visit(s: Spawner<String>, depth: u32) -> Result<(), String> {
///     if depth > 0 {
///         s.go(visit(s.clone(), depth - 1)).await;
///     }
///     Ok(())
/// }
/// ```
///
/// Return a boxed future, whose type has a name, as the example below does. A `Box::pin` around the
/// call is not enough.
///
/// # Examples
///
/// A task that starts a task, and so on, under a limit of 1:
///
/// ```
/// use errgroup::{Context, Group, Spawner};
/// use futures::future::{BoxFuture, FutureExt};
///
/// fn visit(s: Spawner<String>, depth: u32) -> BoxFuture<'static, Result<(), String>> {
///     async move {
///         if depth > 0 {
///             s.go(visit(s.clone(), depth - 1)).await; // lends its permit while it waits
///         }
///         Ok(())
///     }
///     .boxed()
/// }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (g, _ctx) = Group::with_context(Context::background());
/// g.set_limit(1);
/// g.go(visit(g.spawner(), 10));
/// assert!(g.wait().await.is_ok());
/// # }
/// ```
pub struct Spawner<E>
where
    E: GroupError,
{
    scheduler: Weak<Scheduler<Queue<E>>>,
    ctx: Context,
}

impl<E> Spawner<E>
where
    E: GroupError,
{
    pub(crate) fn new(scheduler: &Arc<Scheduler<Queue<E>>>) -> Spawner<E> {
        Spawner {
            scheduler: Arc::downgrade(scheduler),
            ctx: scheduler.ctx().clone(),
        }
    }

    /// Starts a task, or queues it if no permit is free.
    ///
    /// The call never waits. Awaiting the returned [`Admission`] waits until the task has started,
    /// for backpressure; not awaiting it is fine. If the group's context is done before the task
    /// starts, or if the group was dropped, it never starts: `future` is dropped, and the admission
    /// says so.
    ///
    /// See [`Group::go`](crate::Group::go).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, unless a task of the group was started before: all run on
    /// the runtime of the first.
    #[track_caller]
    pub fn go<F>(&self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let scheduler = self.upgrade();
        let builder = SpawnBuilder::new(scheduler.as_ref(), Label::unnamed());
        boxed_if_big!(future: F, Send => builder.go(future))
    }

    /// Starts a task that is given the group's context, or queues it if no permit is free.
    ///
    /// `start` is called when the task starts, by the worker that runs it. If the group's context
    /// is done before the task starts, or if the group was dropped, it never starts: `start` is
    /// dropped, and the admission says so.
    ///
    /// See [`Group::go_with`](crate::Group::go_with).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime. A panic of `start` is a panic of the task.
    #[track_caller]
    pub fn go_with<S, F>(&self, start: S) -> Admission
    where
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let scheduler = self.upgrade();
        let builder = SpawnBuilder::new(scheduler.as_ref(), Label::unnamed());
        if const { job::is_big::<S>() } {
            return builder.go_with(Box::new(start));
        }
        builder.go_with(start)
    }

    /// Starts a task if a permit is free now, and otherwise returns the future in the error.
    ///
    /// See [`Group::try_go`](crate::Group::try_go).
    ///
    /// # Errors
    ///
    /// Returns [`TryGoError::Full`] if no permit is free or other tasks are queued for one, and
    /// [`TryGoError::Ended`] if the group's context is done, or the group was closed or dropped.
    /// Neither counts as a failure of the group.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[track_caller]
    pub fn try_go<F>(&self, future: F) -> Result<(), TryGoError<F>>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let scheduler = self.upgrade();
        let builder = SpawnBuilder::new(scheduler.as_ref(), Label::unnamed());
        if const { job::is_big::<F>() } {
            return match builder.try_go_boxed(Box::new(future)) {
                Ok(()) => Ok(()),
                Err(refused) => error::unboxed(refused),
            };
        }
        builder.try_go(future)
    }

    /// Starts a task that is dropped at its current await when the group's context is done.
    ///
    /// It then counts as failed with the [`ContextError`]. Until then it is a task like that of
    /// [`go`](Spawner::go): it is queued if no permit is free. If the group's context is done
    /// before the task starts, or if the group was dropped, it never starts: `future` is dropped,
    /// and the admission says so.
    ///
    /// See [`Group::go_cancellable`](crate::Group::go_cancellable).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[track_caller]
    pub fn go_cancellable<F>(&self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let scheduler = self.upgrade();
        let builder = SpawnBuilder::new(scheduler.as_ref(), Label::unnamed());
        boxed_if_big!(future: F, Send => builder.go_cancellable(future))
    }

    /// Starts a closure on the blocking pool, or queues it if no permit is free.
    ///
    /// The closure is given the group's context. Once it runs, it cannot be aborted, so it should
    /// check the context in each loop. If the group's context is done before the task starts, or if
    /// the group was dropped, it never starts: the closure is dropped on the pool, and the
    /// admission says so.
    ///
    /// See [`Group::go_blocking`](crate::Group::go_blocking).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[track_caller]
    pub fn go_blocking<F>(&self, run: F) -> Admission
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
    {
        let scheduler = self.upgrade();
        let builder = SpawnBuilder::new(scheduler.as_ref(), Label::unnamed());
        builder.go_blocking(Box::new(run))
    }

    /// Starts a task that is not `Send` on the current `LocalSet` or local runtime, or queues it if
    /// no permit is free.
    ///
    /// If the group's context is done before the task starts, or if the group was dropped, it never
    /// starts: `future` is dropped, and the admission says so.
    ///
    /// See [`Group::go_local`](crate::Group::go_local).
    ///
    /// # Panics
    ///
    /// Panics outside a `LocalSet` or local runtime.
    #[track_caller]
    pub fn go_local<F>(&self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + 'static,
    {
        let scheduler = self.upgrade();
        let builder = SpawnBuilder::new(scheduler.as_ref(), Label::unnamed());
        boxed_if_big!(future: F => builder.go_local(future))
    }

    /// Starts a task that returns a value, or queues it if no permit is free.
    ///
    /// The value is kept in the returned [`TaskHandle`]. If the task fails or never starts, or if
    /// the group was dropped, the handle resolves to a [`ContextError`](crate::ContextError).
    ///
    /// See [`Group::spawn`](crate::Group::spawn).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[track_caller]
    pub fn spawn<T, F>(&self, future: F) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let scheduler = self.upgrade();
        let builder = SpawnBuilder::new(scheduler.as_ref(), Label::unnamed());
        boxed_if_big!(future: F, Send => builder.spawn(future))
    }

    /// Starts a task that returns a value and is given a context of its own, or queues it if no
    /// permit is free.
    ///
    /// The context is a child of the group's, which [`TaskHandle::cancel`] cancels. If the task
    /// never starts, or if the group was dropped, `start` is dropped and the handle resolves to a
    /// [`ContextError`](crate::ContextError).
    ///
    /// See [`Group::spawn_with`](crate::Group::spawn_with).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime. A panic of `start` is a panic of the task.
    #[track_caller]
    pub fn spawn_with<S, T, F>(&self, start: S) -> TaskHandle<T>
    where
        T: Send + 'static,
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let scheduler = self.upgrade();
        let builder = SpawnBuilder::new(scheduler.as_ref(), Label::unnamed());
        if const { job::is_big::<S>() } {
            return builder.spawn_with(Box::new(start));
        }
        builder.spawn_with(start)
    }

    /// Starts a closure that returns a value on the blocking pool, or queues it if no permit is
    /// free.
    ///
    /// The closure is given a context of its own, a child of the group's, which
    /// [`TaskHandle::cancel`] cancels. Once it runs, it cannot be aborted, so it should check the
    /// context in each loop. If it never begins, or if the group was dropped, it is dropped on the
    /// pool and the handle resolves to a [`ContextError`](crate::ContextError).
    ///
    /// See [`Group::spawn_blocking`](crate::Group::spawn_blocking).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[track_caller]
    pub fn spawn_blocking<T, F>(&self, run: F) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    {
        let scheduler = self.upgrade();
        let builder = SpawnBuilder::new(scheduler.as_ref(), Label::unnamed());
        builder.spawn_blocking(Box::new(run))
    }

    /// Starts a task and waits until it is ready, then lets it run on as a task of the group.
    ///
    /// Returns the value that the task passes to [`Ready::ok`]. A failure before that is the
    /// failure of this call, and one after it is a failure of the group. `start` is called with the
    /// group's context when the task starts. The task keeps its permit until it has finished.
    ///
    /// See [`Group::start`](crate::Group::start).
    ///
    /// # Errors
    ///
    /// Returns the error of the task if it fails before it is ready. Returns `E::from` of a
    /// [`ContextError`], whose cause says why, if the task returns `Ok` before it is ready, panics,
    /// is stopped or never starts, or if the group was dropped.
    ///
    /// # Panics
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Nothing starts before the first poll. If the future is dropped after that and before the
    /// task is ready, the task becomes an ordinary task of the group, and a failure that this call
    /// has not returned becomes a failure of the group.
    #[track_caller]
    pub fn start<R, S, F>(
        &self,
        start: S,
    ) -> impl Future<Output = Result<R, E>> + Send + use<E, R, S, F>
    where
        R: Send + 'static,
        S: FnOnce(Context, Ready<R>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        start::start(
            self.upgrade(),
            Label::unnamed(),
            Options::default(),
            Box::new(start),
        )
    }

    /// Waits for a permit, with which a task can be started later.
    ///
    /// It waits in the same queue as tasks, first in, first out, from its first poll on. A task of
    /// the group that awaits it lends its own permit, and continues on the reserved one: see
    /// [`Permit`].
    ///
    /// See [`Group::reserve`](crate::Group::reserve).
    ///
    /// # Errors
    ///
    /// Returns the [`ContextError`] if the group's context is done, also if a deadline passes while
    /// it waits, or if the group was closed or dropped or its `wait` has returned.
    ///
    /// # Panics
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses its position in the queue. A permit that was granted meanwhile is
    /// given back.
    pub fn reserve(&self) -> impl Future<Output = Result<Permit<E>, ContextError>> + Send + use<E> {
        Reserve::new(self.upgrade())
    }

    /// Has the group wait for a future that the caller polls.
    ///
    /// [`Group::wait`](crate::Group::wait) waits until the returned [`Tracked`] has finished or was
    /// dropped. An error or a panic of the future is a failure of the group. It takes no permit and
    /// cannot be aborted. If the group was dropped, or its `wait` has returned, the future is only
    /// polled: its error is dropped, and its panic unwinds into the caller.
    ///
    /// See [`Group::track`](crate::Group::track).
    #[track_caller]
    pub fn track<F>(&self, future: F) -> Tracked<F>
    where
        F: Future<Output = Result<(), E>>,
    {
        tracked::track(
            self.upgrade().as_ref(),
            Label::unnamed(),
            Policy::default(),
            future,
        )
    }

    /// Returns a builder that gives the next task a name.
    ///
    /// The name appears in the errors of the task and, with feature `tracing`, in its span. See
    /// [`Group::named`](crate::Group::named).
    #[track_caller]
    pub fn named(&self, name: impl Into<Cow<'static, str>>) -> TaskBuilder<E> {
        TaskBuilder::new(self.upgrade(), Label::named(name.into()))
    }

    /// Returns a builder for the options of the next task.
    ///
    /// See [`Group::task`](crate::Group::task).
    #[track_caller]
    pub fn task(&self) -> TaskBuilder<E> {
        TaskBuilder::new(self.upgrade(), Label::unnamed())
    }

    /// Returns the group's context. That of a group that was dropped is done.
    #[must_use]
    pub fn context(&self) -> Context {
        self.ctx.clone()
    }

    /// Lets at most `limit` tasks run at once. `None` is no limit, and `0` pauses the group.
    ///
    /// So the limit of a group that is being waited for can be changed. It has no effect if the
    /// group was dropped. See [`Group::set_limit`](crate::Group::set_limit).
    pub fn set_limit(&self, limit: impl Into<Option<usize>>) {
        if let Some(scheduler) = self.upgrade() {
            steer::set_limit(&scheduler, limit.into());
        }
    }

    /// Returns how many tasks may run at once, or `None` if there is no limit. It is zero if the
    /// group was dropped or its `wait` has returned.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        match self.upgrade().filter(|it| !steer::is_gone(it)) {
            Some(scheduler) => steer::limit(&scheduler),
            None => Some(0),
        }
    }

    /// Returns how many tasks run now: they have started, have not finished, and have not lent
    /// their permit. It is zero if the group was dropped.
    ///
    /// The number may have changed by the time you look at it.
    #[must_use]
    pub fn running(&self) -> usize {
        self.upgrade().map_or(0, |it| steer::running(&it))
    }

    /// Returns how many tasks are queued for a permit. It is zero if the group was dropped.
    ///
    /// The number may have changed by the time you look at it.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.upgrade().map_or(0, |it| steer::queued(&it))
    }

    /// Cancels the group's context, without a cause.
    ///
    /// Running tasks observe that and return in their own time. Queued tasks never start. It has no
    /// effect if the group was dropped: its context is done.
    pub fn cancel(&self) {
        if let Some(scheduler) = self.upgrade() {
            scheduler.cancel(None);
        }
    }

    /// Cancels the group's context with a cause.
    ///
    /// Running tasks observe that and return in their own time. Queued tasks never start. It has no
    /// effect if the group was dropped: its context is done.
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        if let Some(scheduler) = self.upgrade() {
            scheduler.cancel(Some(cause.into()));
        }
    }

    fn upgrade(&self) -> Option<Arc<Scheduler<Queue<E>>>> {
        self.scheduler.upgrade()
    }
}

impl<E> Clone for Spawner<E>
where
    E: GroupError,
{
    fn clone(&self) -> Self {
        Spawner {
            scheduler: self.scheduler.clone(),
            ctx: self.ctx.clone(),
        }
    }
}

impl<E> fmt::Debug for Spawner<E>
where
    E: GroupError,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner")
            .field("gone", &(self.scheduler.strong_count() == 0))
            .finish_non_exhaustive()
    }
}
