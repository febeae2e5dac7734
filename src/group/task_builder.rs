//! A builder with the options of a task.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::error::{self, TryGoError};
use super::handle::Admission;
use super::policy::{Options, Role};
use super::queue::Queue;
use super::spawn_builder::SpawnBuilder;
use super::start::{self, Ready};
use super::task_handle::TaskHandle;
use super::tracked::{self, Tracked};
use crate::context::Context;
use crate::scheduler::Scheduler;
use crate::scheduler::error::Label;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{self, boxed_if_big};
use crate::sync::Arc;

/// A task with options that has not been started yet, from [`Group::task`](crate::Group::task),
/// [`Group::named`](crate::Group::named) and the same methods of [`Spawner`](crate::Spawner).
///
/// | option | the task |
/// |---|---|
/// | [`name`](TaskBuilder::name) | has a name in errors, spans and reports |
/// | [`background`](TaskBuilder::background) | runs as long as others do: a heartbeat, a lease |
/// | [`essential`](TaskBuilder::essential) | ends the group's context when it ends |
/// | [`non_fatal`](TaskBuilder::non_fatal) | does not cancel the others if it fails |
/// | [`cleanup`](TaskBuilder::cleanup) | may start and run after the context is done |
///
/// The options hold for this task only. The tasks that it starts do not inherit them. Each of the
/// other methods starts the task and consumes the builder. A builder that is dropped starts
/// nothing.
///
/// It does not keep the group alive: if the group is dropped first, the task never starts.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, Group};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (g, _ctx) = Group::<String>::with_context(Context::background());
/// g.named("replica eu-1").go(async { Err("refused".into()) });
/// g.task().background().go_with(async |ctx| {
///     // Renew the lease, until all other tasks have finished.
///     ctx.done().await;
///     Ok(())
/// });
///
/// let errors = g.wait_all().await.unwrap_err();
/// assert_eq!(errors.iter().next().unwrap().name(), Some("replica eu-1"));
/// # }
/// ```
#[must_use = "options start nothing: call `go` or another method that starts the task"]
pub struct TaskBuilder<E>
where
    E: GroupError,
{
    /// `None` if the group was dropped.
    scheduler: Option<Arc<Scheduler<Queue<E>>>>,
    label: Label,
    options: Options,
}

impl<E> TaskBuilder<E>
where
    E: GroupError,
{
    pub(crate) fn new(scheduler: Option<Arc<Scheduler<Queue<E>>>>, label: Label) -> TaskBuilder<E> {
        TaskBuilder {
            scheduler,
            label,
            options: Options::default(),
        }
    }

    /// Makes the task one that has its entry in the registry already, which its future keeps.
    #[cfg(all(feature = "inspect", feature = "tower"))]
    pub(crate) fn without_entry(mut self) -> TaskBuilder<E> {
        self.options.policy.has_entry = true;
        self
    }

    /// Takes the name out.
    fn spawn_builder(&mut self) -> SpawnBuilder<'_, E> {
        let label = Label {
            name: self.label.name.take(),
            site: self.label.site,
        };
        SpawnBuilder::with_options(self.scheduler.as_ref(), label, self.options)
    }
}

/// Options.
impl<E> TaskBuilder<E>
where
    E: GroupError,
{
    /// Gives the task a name. It appears in the errors of the task and, with feature `tracing`, in
    /// its span.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> TaskBuilder<E> {
        self.label.name = Some(name.into());
        self
    }

    /// Marks the task as a helper of the others: a heartbeat, the renewal of a lease, metrics, a
    /// server that only other tasks use.
    ///
    /// It takes no permit, and starts whatever the limit is. Once all other tasks have ended and
    /// the group is waited for, the group's context is done with the cause `all tasks have
    /// finished`, and [`wait`](crate::Group::wait) returns when the background tasks have ended,
    /// too. So the task must observe the context, or be a
    /// [`go_cancellable`](TaskBuilder::go_cancellable) task. It may keep a permit that it has
    /// reserved until then, such as the one for the next connection that a server accepts.
    ///
    /// What it returns after that moment is not a failure of the group (with feature `tracing`, it
    /// is an event). What it returns before is. A panic always is.
    ///
    /// It has no effect together with [`cleanup`](TaskBuilder::cleanup), which a wait waits for.
    #[doc(alias("daemon", "heartbeat"))]
    pub fn background(mut self) -> TaskBuilder<E> {
        if self.options.cleanup.is_none() {
            self.options.policy.role = Role::Background;
        }
        self
    }

    /// Cancels the group's context when the task has ended, whatever it returns.
    ///
    /// The cause is the task's failure, or `essential task NAME has ended` if it has none. A task
    /// without a name is called by the place where it was started. The context is done before the
    /// task's permit is free, so no queued task starts any more.
    ///
    /// It holds in a [`Group::new`](crate::Group::new), too, and also if the task is stopped
    /// through its [`TaskHandle`].
    pub fn essential(mut self) -> TaskBuilder<E> {
        self.options.policy.is_essential = true;
        self
    }

    /// Keeps a failure of the task from cancelling the group's context. The failure is reported
    /// like any other.
    ///
    /// It concerns errors only. A panic cancels the context all the same, if panics do so in the
    /// group.
    pub fn non_fatal(mut self) -> TaskBuilder<E> {
        self.options.policy.is_non_fatal = true;
        self
    }

    /// Lets the task start and run after the group's context is done, for at most `max` from its
    /// start. It is for work that must follow a failure or a cancellation: giving something back,
    /// compensation.
    ///
    /// The task is accepted until [`wait`](crate::Group::wait) has returned, also when a destructor
    /// starts it through a [`Spawner`](crate::Spawner). It takes no permit. The context that it is
    /// given has the values of the group's context and a deadline after `max`
    /// ([`Context::shield`]). When that has passed, the task is dropped at its await, and counts as
    /// aborted.
    ///
    /// `wait` waits for it. A [grace period](crate::Group::set_grace) does not cut it short.
    /// [`abort`](crate::Group::abort) and dropping the group do.
    pub fn cleanup(mut self, max: Duration) -> TaskBuilder<E> {
        self.options.policy.role = Role::Cleanup;
        self.options.cleanup = Some(max);
        self
    }
}

/// Starting the task.
impl<E> TaskBuilder<E>
where
    E: GroupError,
{
    /// Starts the task, or queues it if it needs a permit and none is free.
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
    pub fn go<F>(self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        boxed_if_big!(future: F, Send => self.go_as_is(future))
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
    pub fn go_with<S, F>(self, start: S) -> Admission
    where
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        if const { job::is_big::<S>() } {
            return self.go_with_as_is(Box::new(start));
        }
        self.go_with_as_is(start)
    }

    /// Starts the task if a permit is free now, and otherwise returns the future in the error.
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
    pub fn try_go<F>(mut self, future: F) -> Result<(), TryGoError<F>>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let cleanup = self.options.cleanup;
        let builder = self.spawn_builder();
        if const { !job::is_big::<F>() } && cleanup.is_none() {
            return builder.try_go(future);
        }
        let future = Box::new(future);
        let refused = match cleanup {
            Some(max) => builder.try_clean_up(max, future),
            None => builder.try_go_boxed(future),
        };
        match refused {
            Ok(()) => Ok(()),
            Err(refused) => error::unboxed(refused),
        }
    }

    /// Starts a task that is dropped at its current await when the group's context is done.
    ///
    /// It then counts as failed with the [`ContextError`](crate::ContextError). Until then it is a
    /// task like that of [`go`](TaskBuilder::go): it is queued if no permit is free. If the group's
    /// context is done before the task starts, or if the group was dropped, it never starts:
    /// `future` is dropped, and the admission says so.
    ///
    /// See [`Group::go_cancellable`](crate::Group::go_cancellable).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[track_caller]
    pub fn go_cancellable<F>(self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        boxed_if_big!(future: F, Send => self.go_cancellable_as_is(future))
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
    pub fn go_blocking<F>(mut self, run: F) -> Admission
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
    {
        let cleanup = self.options.cleanup;
        let builder = self.spawn_builder();
        let run = Box::new(run);
        match cleanup {
            Some(max) => builder.clean_up_blocking(max, run),
            None => builder.go_blocking(run),
        }
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
    pub fn go_local<F>(self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + 'static,
    {
        boxed_if_big!(future: F => self.go_local_as_is(future))
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
    pub fn spawn<T, F>(self, future: F) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        boxed_if_big!(future: F, Send => self.spawn_as_is(future))
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
    pub fn spawn_with<S, T, F>(self, start: S) -> TaskHandle<T>
    where
        T: Send + 'static,
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        if const { job::is_big::<S>() } {
            return self.spawn_with_as_is(Box::new(start));
        }
        self.spawn_with_as_is(start)
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
    pub fn spawn_blocking<T, F>(mut self, run: F) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: FnOnce(Context) -> Result<T, E> + Send + 'static,
    {
        self.spawn_builder().spawn_blocking(Box::new(run))
    }

    /// Starts a task and waits until it is ready, then lets it run on as a task of the group.
    ///
    /// Returns the value that the task passes to [`Ready::ok`]. A failure before that is the
    /// failure of this call, and one after it is a failure of the group. `start` is called with the
    /// group's context when the task starts. The task keeps its permit until it has finished,
    /// unless it is a [`background`](TaskBuilder::background) task, which takes none.
    ///
    /// See [`Group::start`](crate::Group::start).
    ///
    /// # Errors
    ///
    /// Returns the error of the task if it fails before it is ready. Returns `E::from` of a
    /// [`ContextError`](crate::ContextError), whose cause says why, if the task returns `Ok` before
    /// it is ready, panics, is stopped or never starts, or if the group was dropped.
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
        self,
        start: S,
    ) -> impl Future<Output = Result<R, E>> + Send + use<E, R, S, F>
    where
        R: Send + 'static,
        S: FnOnce(Context, Ready<R>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        start::start(self.scheduler, self.label, self.options, Box::new(start))
    }
}

/// Futures that the caller polls.
impl<E> TaskBuilder<E>
where
    E: GroupError,
{
    /// Has the group wait for a future that the caller polls.
    ///
    /// Its error or panic is a failure of the group. It takes no permit and cannot be aborted, so
    /// the time of [`cleanup`](TaskBuilder::cleanup) does not limit it.
    ///
    /// See [`Group::track`](crate::Group::track).
    #[track_caller]
    pub fn track<F>(self, future: F) -> Tracked<F>
    where
        F: Future<Output = Result<(), E>>,
    {
        let policy = self.options.policy;
        tracked::track(self.scheduler.as_ref(), self.label, policy, future)
    }
}

/// The same, for a future that is in a box if it is big. These are functions of their own, so that
/// the stack frames of the public ones have no place for its copies.
impl<E> TaskBuilder<E>
where
    E: GroupError,
{
    #[track_caller]
    fn go_as_is<F>(mut self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let cleanup = self.options.cleanup;
        let builder = self.spawn_builder();
        match cleanup {
            Some(max) => builder.clean_up("go", max, Box::new(|_| Box::pin(future))),
            None => builder.go(future),
        }
    }

    #[track_caller]
    fn go_with_as_is<S, F>(mut self, start: S) -> Admission
    where
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let cleanup = self.options.cleanup;
        let builder = self.spawn_builder();
        match cleanup {
            Some(max) => builder.clean_up("go_with", max, Box::new(|ctx| Box::pin(start(ctx)))),
            None => builder.go_with(start),
        }
    }

    #[track_caller]
    fn go_cancellable_as_is<F>(mut self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let cleanup = self.options.cleanup;
        let builder = self.spawn_builder();
        match cleanup {
            Some(max) => builder.clean_up("go_cancellable", max, Box::new(|_| Box::pin(future))),
            None => builder.go_cancellable(future),
        }
    }

    #[track_caller]
    fn go_local_as_is<F>(mut self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + 'static,
    {
        let cleanup = self.options.cleanup;
        let builder = self.spawn_builder();
        match cleanup {
            Some(max) => builder.clean_up_local(max, Box::pin(future)),
            None => builder.go_local(future),
        }
    }

    #[track_caller]
    fn spawn_as_is<T, F>(mut self, future: F) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let cleanup = self.options.cleanup;
        let builder = self.spawn_builder();
        match cleanup {
            Some(max) => builder.spawn_clean_up(max, Box::new(|_| Box::pin(future))),
            None => builder.spawn(future),
        }
    }

    #[track_caller]
    fn spawn_with_as_is<S, T, F>(mut self, start: S) -> TaskHandle<T>
    where
        T: Send + 'static,
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let cleanup = self.options.cleanup;
        let builder = self.spawn_builder();
        match cleanup {
            Some(max) => builder.spawn_clean_up(max, Box::new(|ctx| Box::pin(start(ctx)))),
            None => builder.spawn_with(start),
        }
    }
}

impl<E> fmt::Debug for TaskBuilder<E>
where
    E: GroupError,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder")
            .field("name", &self.label.name)
            .finish_non_exhaustive()
    }
}
