//! A handle for tasks that start siblings.

use std::fmt::{self, Display};
use std::future::Future;
use std::panic::Location;

use super::handle::Admission;
use super::queue::{Queue, Site, deferred};
use super::state::Core;
use crate::context::Context;
use crate::error::{ContextError, TryGoError};
use crate::panic;
use crate::sync::{Arc, Weak};

/// Starts tasks in a group, from inside its tasks or from anywhere else.
///
/// A task cannot borrow its group, since it may run longer than the borrow; it takes a clone of this. A spawner is weak: it
/// does not keep the group alive. Once the group has gone (its `wait` has ended, or it was dropped) nothing starts any
/// more: what it is given is dropped, admissions resolve as not started, [`try_go`](Spawner::try_go) hands back.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, Group, Spawner};
///
/// use futures::future::{BoxFuture, FutureExt};
///
/// fn visit(s: Spawner<String>, depth: u32) -> BoxFuture<'static, Result<(), String>> {
///     async move {
///         if depth > 0 {
///             s.go(visit(s.clone(), depth - 1)).await; // lends its place while it waits
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
    core: Weak<Core<Queue<E>>>,
}

impl<E> Spawner<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    pub(crate) fn new(core: &Arc<Core<Queue<E>>>) -> Spawner<E> {
        Spawner {
            core: Arc::downgrade(core),
        }
    }

    /// Starts a task, or queues it: [`Group::go`](crate::Group::go).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, as `Group::go` does.
    #[track_caller]
    pub fn go<F>(&self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let Some(core) = self.core.upgrade() else {
            return refuse(future);
        };
        core.bind("Spawner::go");
        core.submit(Site(Location::caller()), Box::pin(future))
    }

    /// Starts a task that is handed the group's context: [`Group::go_with`](crate::Group::go_with).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, as `Group::go_with` does.
    #[track_caller]
    pub fn go_with<S, F>(&self, start: S) -> Admission
    where
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let Some(core) = self.core.upgrade() else {
            return refuse(start);
        };
        core.bind("Spawner::go_with");
        let job = Box::pin(deferred(start, core.ctx().clone()));
        core.submit(Site(Location::caller()), job)
    }

    /// Starts a task now, or hands the future back: [`Group::try_go`](crate::Group::try_go).
    ///
    /// # Errors
    ///
    /// As `Group::try_go`; [`TryGoError::Ended`] too once the group has gone.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, as `Group::try_go` does.
    #[track_caller]
    pub fn try_go<F>(&self, future: F) -> Result<(), TryGoError<F>>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let Some(core) = self.core.upgrade() else {
            return Err(TryGoError::Ended(future));
        };
        core.bind("Spawner::try_go");
        core.try_submit(Site(Location::caller()), future)
    }
}

/// The group has gone: there is nobody left to tell of a panic in what is dropped here.
fn refuse<T>(unstarted: T) -> Admission {
    panic::discard(unstarted);
    Admission::decided(false)
}

impl<E> Clone for Spawner<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn clone(&self) -> Self {
        Spawner {
            core: self.core.clone(),
        }
    }
}

impl<E> fmt::Debug for Spawner<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner")
            .field("gone", &(self.core.strong_count() == 0))
            .finish_non_exhaustive()
    }
}
