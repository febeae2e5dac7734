//! A group in a scope: its tasks are waited for however the body ends.

use std::future::{Future, poll_fn};
use std::pin::pin;

use super::task::Task;
use super::{Group, job};
use crate::context::Context;
use crate::panic::{self, Payload};
use crate::scheduler::error::{Errors, Label, TaskErrorKind};
use crate::scheduler::group_error::GroupError;
use crate::scheduler::source::Outcome;

impl<E> Group<E>
where
    E: GroupError,
{
    /// Runs `body` with a group of its own, and waits for all tasks of the group before it returns.
    ///
    /// It waits whatever the body returned, so an early `?` cannot leave a task behind. An error of
    /// the body is a failure of the group, which cancels the context of the tasks. So does a panic
    /// of the body, which is resumed when every task has finished. The future does not borrow
    /// `parent`, and can be spawned.
    ///
    /// # Errors
    ///
    /// Returns the first failure, of the body or of a task, in order of completion.
    ///
    /// # Panics
    ///
    /// Resumes the first panic, of the body or of a task, when every task has finished. A panic
    /// wins over an error. Starting a task outside a tokio runtime panics, as [`go`](Group::go)
    /// does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and the group: it cancels the context and aborts the
    /// tasks.
    ///
    /// # If it does not compile
    ///
    /// The body is an async closure, `async |g, ctx| ..`. With `|g, ctx| async move { .. }`, the
    /// compiler says `type annotations needed` (E0282):
    ///
    /// ```compile_fail,E0282
    /// # use errgroup::{Context, Group};
    /// # async fn example() -> anyhow::Result<()> {
    /// Group::scope(&Context::background(), |g, _ctx| async move {
    ///     g.go(async { Ok(()) });
    ///     Ok(())
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// A task cannot borrow its group. The compiler says `borrowed data escapes outside of closure`
    /// (E0521):
    ///
    /// ```compile_fail,E0521
    /// # use errgroup::{Context, Group};
    /// # async fn example() -> anyhow::Result<()> {
    /// Group::scope(&Context::background(), async |g, _ctx| {
    ///     g.go(async {
    ///         g.go(async { Ok(()) });
    ///         Ok(())
    ///     });
    ///     Ok(())
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// Give it a [`spawner`](Group::spawner):
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> anyhow::Result<()> {
    /// Group::scope(&Context::background(), async |g, _ctx| {
    ///     let s = g.spawner();
    ///     g.go(async move {
    ///         s.go(async { Ok(()) });
    ///         Ok(())
    ///     });
    ///     Ok(())
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// Nor can it borrow from the function around the scope. The compiler says `lifetime may not
    /// live long enough`:
    ///
    /// ```compile_fail
    /// # use errgroup::{Context, Group};
    /// # async fn send(_: &str) -> anyhow::Result<()> { Ok(()) }
    /// async fn notify(user: &str) -> anyhow::Result<()> {
    ///     Group::scope(&Context::background(), async |g, _ctx| {
    ///         g.go(async move { send(user).await });
    ///         Ok(())
    ///     })
    ///     .await
    /// }
    /// ```
    ///
    /// Clone the data, or share it in an [`Arc`](std::sync::Arc), and move it into the task:
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # async fn send(_: &str) -> anyhow::Result<()> { Ok(()) }
    /// async fn notify(user: &str) -> anyhow::Result<()> {
    ///     Group::scope(&Context::background(), async |g, _ctx| {
    ///         let user = user.to_owned();
    ///         g.go(async move { send(&user).await });
    ///         Ok(())
    ///     })
    ///     .await
    /// }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() { notify("ada").await.unwrap() }
    /// ```
    ///
    /// If nothing says what `E` is, because the result goes through a `?` or into a `match`, the
    /// compiler says `type annotations needed` (E0283, or E0282 for the result):
    ///
    /// ```compile_fail,E0283
    /// # use errgroup::{Context, Group};
    /// # async fn example() -> anyhow::Result<()> {
    /// let sum: u32 = Group::scope(&Context::background(), async |g, _ctx| {
    ///     let a = g.spawn(async { Ok(1) });
    ///     Ok(a.await?)
    /// })
    /// .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Name it:
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> anyhow::Result<()> {
    /// let sum: u32 = Group::<anyhow::Error>::scope(&Context::background(), async |g, _ctx| {
    ///     let a = g.spawn(async { Ok(1) });
    ///     Ok(a.await?)
    /// })
    /// .await?;
    /// # assert_eq!(sum, 1);
    /// # Ok(()) }
    /// ```
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
    ///     Ok::<_, String>(a.await? + b.await?)
    /// })
    /// .await;
    /// assert_eq!(sum, Ok(3));
    /// # }
    /// ```
    #[doc(alias(
        "coroutineScope",
        "StructuredTaskScope",
        "withTaskGroup",
        "withThrowingTaskGroup",
        "open_nursery",
        "thread::scope",
    ))]
    #[track_caller]
    pub fn scope<T, F>(
        parent: &Context,
        body: F,
    ) -> impl Future<Output = Result<T, E>> + use<E, T, F>
    where
        F: AsyncFnOnce(&Group<E>, Context) -> Result<T, E>,
    {
        run(parent, body, Group::wait)
    }

    /// Runs `body` with a group of its own, waits for all tasks of the group, and returns every
    /// failure.
    ///
    /// It is [`scope`](Group::scope), but it ends as [`wait_all`](Group::wait_all) does: it waits
    /// whatever the body returned, an error of the body is a failure of the group, and all failures
    /// are returned. That of the body is among them, with the name `the body of the scope`. The
    /// future does not borrow `parent`, and can be spawned.
    ///
    /// # Errors
    ///
    /// Returns all failures, of the body and of the tasks, in order of completion. A panic is one
    /// of them, and is not resumed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the body and the group: it cancels the context and aborts the
    /// tasks.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, Group};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let failed = Group::<String>::scope_all(&Context::background(), async |g, _ctx| {
    ///     g.named("left").go(async { Err("no disk".to_owned()) });
    ///     g.named("right").go(async { Err("no network".to_owned()) });
    ///     Ok(())
    /// })
    /// .await
    /// .unwrap_err();
    /// assert_eq!(failed.len(), 2);
    /// # }
    /// ```
    #[doc(alias("StructuredTaskScope", "withThrowingTaskGroup", "open_nursery"))]
    #[track_caller]
    pub fn scope_all<T, F>(
        parent: &Context,
        body: F,
    ) -> impl Future<Output = Result<T, Errors<E>>> + use<E, T, F>
    where
        F: AsyncFnOnce(&Group<E>, Context) -> Result<T, E>,
    {
        run(parent, body, Group::wait_all)
    }
}

/// Runs the body of a scope with a group of its own, and then `wait`.
///
/// The future of the body is a part of this one, and not of a further future inside, whose making
/// would copy it.
#[track_caller]
fn run<E, T, F, W, R>(
    parent: &Context,
    body: F,
    wait: W,
) -> impl Future<Output = Result<T, R>> + use<E, T, F, W, R>
where
    E: GroupError,
    F: AsyncFnOnce(&Group<E>, Context) -> Result<T, E>,
    W: AsyncFnOnce(Group<E>) -> Result<(), R>,
{
    let (g, ctx) = Group::with_context(parent);
    #[cfg(feature = "inspect")]
    g.set_kind(crate::registry::GroupKind::Scope);
    let label = Label::named("the body of the scope".into());
    async move {
        let ended = {
            // The call, each poll and the drop are user code. A panic in any of them must not skip
            // the wait that follows.
            let mut running = pin!(None);
            match panic::catch(|| running.set(Some(body(&g, ctx)))) {
                Err(payload) => Err(payload),
                Ok(()) => poll_fn(|cx| job::poll_to_end(running.as_mut(), cx)).await,
            }
        };
        let value = record(&g, label, ended);
        wait(g).await?;
        Ok(value_of_success(value))
    }
}

/// Returns the value of a body, or records its failure.
fn record<E, T>(g: &Group<E>, label: Label, ended: Result<Result<T, E>, Payload>) -> Option<T>
where
    E: GroupError,
{
    let outcome = match ended {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => Outcome::Returned(Err(TaskErrorKind::Failed(error))),
        Err(payload) => Outcome::Panicked(payload),
    };
    let mut body = Task::new(label, None);
    body.open_span(&g.scheduler.shared.span);
    g.scheduler.record_beside_jobs(&mut body, outcome);
    None
}

/// Returns the value of a body whose group has no failure.
fn value_of_success<T>(value: Option<T>) -> T {
    match value {
        Some(value) => value,
        None => {
            unreachable!("a body without a value has failed, so the wait has returned its failure")
        }
    }
}
