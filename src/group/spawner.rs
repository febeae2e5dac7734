//! The other two faces from which tasks are started: a builder with a name, and a handle for tasks that start siblings.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::future::Future;

use super::handle::Admission;
use super::queue::Queue;
use super::spawn_builder::SpawnBuilder;
use super::start::{self, Ready};
use super::task_handle::TaskHandle;
use crate::context::Context;
use crate::context::ContextError;
use crate::group::error::TryGoError;
use crate::scheduler::Scheduler;
use crate::scheduler::error::Label;
use crate::scheduler::job::{self, boxed_if_big};
use crate::sync::{Arc, Weak};

/// Every way to start a task, as on [`Group`](crate::Group).
macro_rules! ways_to_start {
    ($self:ident: $receiver:ty => $builder:expr) => {
        /// Starts a task, or queues it: [`Group::go`](crate::Group::go), with all that is said there.
        #[track_caller]
        pub fn go<F>($self: $receiver, future: F) -> Admission
        where
            F: Future<Output = Result<(), E>> + Send + 'static,
        {
            boxed_if_big!(future: F, Send => $builder.go(future))
        }

        /// Starts a task that is handed the group's context: [`Group::go_with`](crate::Group::go_with).
        #[track_caller]
        pub fn go_with<S, F>($self: $receiver, start: S) -> Admission
        where
            S: FnOnce(Context) -> F + Send + 'static,
            F: Future<Output = Result<(), E>> + Send + 'static,
        {
            if job::is_big::<S>() {
            return $builder.go_with(Box::new(start));
        }
        $builder.go_with(start)
        }

        /// Starts a task that may be dropped at its await:
        /// [`Group::go_cancellable`](crate::Group::go_cancellable).
        #[track_caller]
        pub fn go_cancellable<F>($self: $receiver, future: F) -> Admission
        where
            F: Future<Output = Result<(), E>> + Send + 'static,
        {
            boxed_if_big!(future: F, Send => $builder.go_cancellable(future))
        }

        /// Starts a task now, or hands the future back: [`Group::try_go`](crate::Group::try_go).
        ///
        /// # Errors
        ///
        /// As there.
        #[track_caller]
        pub fn try_go<F>($self: $receiver, future: F) -> Result<(), TryGoError<F>>
        where
            F: Future<Output = Result<(), E>> + Send + 'static,
        {
            if job::is_big::<F>() {
            return match $builder.try_go_boxed(Box::new(future)) {
                Ok(()) => Ok(()),
                Err(refused) => crate::group::error::unboxed(refused),
            };
        }
        $builder.try_go(future)
        }

        /// Starts a task on the blocking pool: [`Group::go_blocking`](crate::Group::go_blocking).
        #[track_caller]
        pub fn go_blocking<F>($self: $receiver, run: F) -> Admission
        where
            F: FnOnce(Context) -> Result<(), E> + Send + 'static,
        {
            $builder.go_blocking(Box::new(run))
        }

        /// Starts a task that is not `Send`: [`Group::go_local`](crate::Group::go_local).
        #[track_caller]
        pub fn go_local<F>($self: $receiver, future: F) -> Admission
        where
            F: Future<Output = Result<(), E>> + 'static,
        {
            boxed_if_big!(future: F => $builder.go_local(future))
        }

        /// Starts a task whose value waits in the handle: [`Group::spawn`](crate::Group::spawn).
        #[track_caller]
        pub fn spawn<T, F>($self: $receiver, future: F) -> TaskHandle<T>
        where
            T: Send + 'static,
            F: Future<Output = Result<T, E>> + Send + 'static,
        {
            boxed_if_big!(future: F, Send => $builder.spawn(future))
        }
    };
}

/// A task that has a name and has not been started yet: see [`Group::named`](crate::Group::named).
#[must_use = "a name starts nothing: go on with `go` or another way to start a task"]
pub struct Named<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    /// `None` if the group was dropped.
    scheduler: Option<Arc<Scheduler<Queue<E>>>>,
    label: Label,
}

impl<E> Named<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    #[track_caller]
    pub(crate) fn new(
        scheduler: Option<Arc<Scheduler<Queue<E>>>>,
        name: Cow<'static, str>,
    ) -> Named<E> {
        Named {
            scheduler,
            label: Label::named(name),
        }
    }

    ways_to_start!(self: Self => SpawnBuilder::new(self.scheduler.as_ref(), self.label));

    /// Starts a task, and waits until it says that it is ready: [`Group::start`](crate::Group::start).
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn start<R, S, F>(
        self,
        start: S,
    ) -> impl Future<Output = Result<R, E>> + Send + use<E, R, S, F>
    where
        R: Send + 'static,
        S: FnOnce(Ready<R>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        start::start(self.scheduler, self.label, Box::new(start))
    }
}

impl<E> fmt::Debug for Named<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named")
            .field("name", &self.label.name)
            .finish_non_exhaustive()
    }
}

/// Starts tasks in a group, from inside its tasks or from anywhere else.
///
/// A task cannot borrow its group, since it may run longer than the borrow; it takes a clone of this. A spawner is weak: it
/// does not keep the group alive. Once the group has gone (its `wait` has ended, or it was dropped) nothing starts any
/// more: what it is given is dropped, admissions resolve as not started, [`try_go`](Spawner::try_go) hands back,
/// [`spawn`](Spawner::spawn) gives an empty handle, [`start`](Spawner::start) fails.
///
/// # Examples
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
    E: From<ContextError> + Display + Send + 'static,
{
    scheduler: Weak<Scheduler<Queue<E>>>,
}

impl<E> Spawner<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    pub(crate) fn new(scheduler: &Arc<Scheduler<Queue<E>>>) -> Spawner<E> {
        Spawner {
            scheduler: Arc::downgrade(scheduler),
        }
    }

    ways_to_start!(self: &Self => SpawnBuilder::new(self.scheduler.upgrade().as_ref(), Label::unnamed()));

    /// Starts a task, and waits until it says that it is ready: [`Group::start`](crate::Group::start).
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn start<R, S, F>(
        &self,
        start: S,
    ) -> impl Future<Output = Result<R, E>> + Send + use<E, R, S, F>
    where
        R: Send + 'static,
        S: FnOnce(Ready<R>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        start::start(self.scheduler.upgrade(), Label::unnamed(), Box::new(start))
    }

    /// Gives the task that comes next a name: [`Group::named`](crate::Group::named).
    #[track_caller]
    pub fn named(&self, name: impl Into<Cow<'static, str>>) -> Named<E> {
        Named::new(self.scheduler.upgrade(), name.into())
    }
}

impl<E> Clone for Spawner<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn clone(&self) -> Self {
        Spawner {
            scheduler: self.scheduler.clone(),
        }
    }
}

impl<E> fmt::Debug for Spawner<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner")
            .field("gone", &(self.scheduler.strong_count() == 0))
            .finish_non_exhaustive()
    }
}
