//! The form of a group that cannot be left early.

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::pin;

use super::queue::Task;
use super::{Group, job};
use crate::context::Context;
use crate::context::ContextError;
use crate::panic;
use crate::scheduler::error::{Label, TaskErrorKind};
use crate::scheduler::source::Outcome;

impl<E> Group<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    /// Runs `body` with a group of its own, and waits for the tasks whatever the body returned: an early `?` cannot leave one
    /// behind.
    ///
    /// The body's error counts as a failure of the group, so the tasks are asked to stop. A panic in the body does the same,
    /// and goes on when they have ended. The future does not borrow `parent`; it can be spawned.
    ///
    /// Inside, `g.go(async { g.go(..) })` does not compile: a task cannot borrow its group. Take a
    /// [`spawner`](Group::spawner).
    ///
    /// # Errors
    ///
    /// The first failure, the body's or a task's.
    ///
    /// # Panics
    ///
    /// With the first panic, the body's or a task's, when every task has ended. As [`go`](Group::go) does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and the group: the context ends and the tasks are aborted.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, Group};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let sum = Group::scope(&Context::background(), async |g, _ctx| {
    ///     let a = g.spawn(async { Ok(1) });
    ///     let b = g.spawn(async { Ok(2) });
    ///     let a = a.await.unwrap_or_default();
    ///     Ok::<_, String>(a + b.await.unwrap_or_default())
    /// })
    /// .await;
    /// assert_eq!(sum, Ok(3));
    /// # }
    /// ```
    #[track_caller]
    pub fn scope<T, F>(
        parent: &Context,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + use<E, T, F>
    where
        F: AsyncFnOnce(&Group<E>, Context) -> Result<T, E>,
    {
        let (g, ctx) = Group::with_context(parent);
        let label = Label::named("the body of the scope".into());
        async move {
            let ended = {
                // The call, each poll and the drop are the user's code: none of them may get past `wait`.
                let mut running = pin!(None);
                match panic::catch(|| running.set(Some(body(&g, ctx)))) {
                    Err(payload) => Err(payload),
                    Ok(()) => poll_fn(|cx| job::poll_to_end(running.as_mut(), cx)).await,
                }
            };
            let (value, failure) = match ended {
                Ok(Ok(value)) => (Some(value), None),
                Ok(Err(error)) => {
                    let failed = Outcome::Returned(Err(TaskErrorKind::Failed(error)));
                    (None, Some(failed))
                }
                Err(payload) => (None, Some(Outcome::Panicked(payload))),
            };
            if let Some(outcome) = failure {
                let mut body = Task::new(label, None);
                body.open_span(&g.scheduler.shared);
                g.scheduler.record(&mut body, outcome);
            }
            g.wait().await?;
            match value {
                Some(value) => Ok(value),
                None => unreachable!("a body without a value has failed, and `wait` has said so"),
            }
        }
    }
}
