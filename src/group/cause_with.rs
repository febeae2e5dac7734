//! The function that makes the cause of a group's context from the error of a task.

use super::Group;
use crate::context::Cause;
use crate::panic;
use crate::scheduler::group_error::GroupError;
use crate::sync::Arc;

/// The cause of a failure.
impl<E> Group<E>
where
    E: GroupError,
{
    /// Sets the function that makes the cause of the group's context from the error of the task
    /// that failed.
    ///
    /// Without it, the cause is the text of the error. With it, the other tasks can find the error
    /// itself, by [`Context::caused_by`](crate::Context::caused_by) or a downcast of the cause, as
    /// `context.Cause` returns the error in Go. [`wait`](Group::wait) still returns the error by
    /// value, so the function clones it, or the part that the cause needs.
    ///
    /// It is called when a task has failed with an error, in the thread that ran the task, and not
    /// for a panic. In a group from [`new`](Group::new) it is called only for a task that is
    /// [essential](crate::TaskBuilder::essential), since no other failure cancels the context. It
    /// may be set at any time, and holds for the failures that come after that. If it panics, the
    /// cause is a text that says so.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Cause, Context, ContextError, Group};
    ///
    /// #[derive(Debug, Clone, thiserror::Error)]
    /// enum FetchError {
    ///     #[error("not found")]
    ///     NotFound,
    ///     #[error(transparent)]
    ///     Stopped(#[from] ContextError),
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let (g, ctx) = Group::with_context(Context::background());
    /// g.set_cause_with(|error: &FetchError| Cause::from(error.clone()));
    /// g.go(async { Err(FetchError::NotFound) });
    ///
    /// ctx.done().await;
    /// assert!(ctx.caused_by::<FetchError>());
    /// # }
    /// ```
    pub fn set_cause_with<F>(&self, cause: F)
    where
        F: Fn(&E) -> Cause + Send + Sync + 'static,
    {
        let old = self.scheduler.set_cause_with(Arc::new(cause));
        panic::discard(old);
    }
}
