//! The face of the group.

mod blocking;
mod burst;
mod error;
mod handle;
mod local;
mod named;
mod queue;
mod scope;
mod spawn_builder;
mod spawner;
mod start;
mod submit;
mod task_handle;
mod worker;

pub use error::TryGoError;
pub use handle::{Admission, Admitted};
pub use named::Named;
pub use spawner::Spawner;
pub use start::Ready;
pub use task_handle::TaskHandle;

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::future::Future;
use std::time::Duration;

use crate::context::ContextError;
use crate::context::{Cause, Context, StaticCause};
use crate::scheduler::Scheduler;
use crate::scheduler::error::{Errors, Label};
use crate::scheduler::failures::OnFailure;
use crate::scheduler::job::{self, boxed_if_big};
use crate::sync::Arc;
use crate::tracing::Span;
use queue::Queue;
use spawn_builder::SpawnBuilder;

static WAIT_ENDED: StaticCause = StaticCause("the group's wait has ended");
static GROUP_ABORTED: StaticCause = StaticCause("the group was aborted");
static GROUP_DROPPED: StaticCause = StaticCause("the group was dropped");

/// Tasks that belong together: they are waited for together, stopped together, and bounded together.
///
/// ```text
///     with_context ──┬── go(a) ──────────────┐
///                    ├── go(b) ─────── Err ──┼─► the context ends: a and c are asked to stop
///                    ├── go(c) ───────────┐  │
///                    │                    ▼  ▼
///     wait ──────────┴────────────────────────── every task has ended ──► b's error
/// ```
///
/// # What it promises
///
/// - **No task outlives its group.** [`wait`](Group::wait) returns when all have ended. Dropping the group, or the future of
///   `wait`, ends the context and aborts the tasks: none is polled again once its present poll returns.
/// - **The first failure stops the rest**, politely: it ends the context that [`with_context`](Group::with_context)
///   derived, with a cause that reads as the error does. Tasks see it in the context and return when it suits them;
///   nothing is dropped at an await that was not told it may be. What is queued and has not started never starts.
/// - **Nothing is lost.** `wait` gives the first error in order of completion, by value. A panic ends the context at the
///   instant it happens, and `wait` resumes it with its payload, before any error.
/// - **The limit holds and cannot deadlock**, also where tasks start tasks and wait for that: see
///   [`set_limit`](Group::set_limit).
/// - **It holds what runs now, no more.** A finished task leaves nothing behind, so a group may live as long as the program.
///
/// # Which one do I want
///
/// | the task | start it with |
/// |---|---|
/// | looks at the context by itself, or need not | [`go`](Group::go) |
/// | is to be handed the group's context | [`go_with`](Group::go_with) |
/// | may be dropped at any await once the context has ended | [`go_cancellable`](Group::go_cancellable) |
/// | is worth starting only if there is a permit right now | [`try_go`](Group::try_go) |
/// | blocks its thread: a synchronous library, a computation | [`go_blocking`](Group::go_blocking) |
/// | is not `Send` | [`go_local`](Group::go_local) |
/// | gives a value | [`spawn`](Group::spawn) |
/// | has to be ready before you go on: a server, a connection | [`start`](Group::start) |
/// | is started by another task of the group | any of these, through a [`Spawner`] |
///
/// All of them stand under the same limit, in the same queue, and under the same failure rule; each can be
/// [`named`](Group::named).
///
/// # Winding down
///
/// ```text
///  the context ends      go_cancellable tasks        what still runs is        wait returns: the
///  (failure, cancel,     are dropped, queued ones    aborted, if there         last destructor
///  deadline, parent)     never start                 is a set_grace            has run
///     ──●──────────────────────●──────────────────────────●───────────────────────●──►
///       │   the others see it, and finish by themselves   │
///       └───────────────── the grace ─────────────────────┘
/// ```
///
/// # The error type
///
/// `E` is yours. It must say how a task ended that the group itself had to stop (`From<ContextError>`), and read as a cause
/// (`Display`): `anyhow::Error`, `Box<dyn Error + Send + Sync>`, `std::io::Error`, `String`, and a `thiserror` enum with a
/// `#[from] ContextError` variant all do. Rust does not infer it through `g.wait().await?`; say
/// `Group::<anyhow::Error>::with_context(..)`, or end the function with `g.wait().await`.
///
/// # Next to its neighbours
///
/// A tokio `JoinSet` is the tasks alone: errors, stopping, bounding and the order of all that are yours to write. A
/// `TaskTracker` waits, and knows of no errors. `try_join_all` runs a fixed set in one task and drops the rest at the first
/// error. Go's `errgroup.Group` is the model; its words mean here what they mean there.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, Group};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (g, ctx) = Group::<anyhow::Error>::with_context(Context::background());
/// g.go(async move {
///     // Asked to stop by the other's failure.
///     let why = ctx.done().await;
///     assert_eq!(ctx.cause().unwrap().to_string(), "disk full");
///     Err(why.into())
/// });
/// g.go(async { anyhow::bail!("disk full") });
///
/// assert_eq!(g.wait().await.unwrap_err().to_string(), "disk full");
/// # }
/// ```
#[must_use = "dropping a group aborts its tasks: end it with `wait().await`"]
pub struct Group<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    scheduler: Arc<Scheduler<Queue<E>>>,
}

/// Making one.
impl<E> Group<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    /// A group that waits for all its tasks and gives the first error; a failure stops nobody. Go's zero `Group`.
    ///
    /// It has a context, which no failure and no panic ends: only [`cancel`](Group::cancel), [`abort`](Group::abort), the end
    /// of `wait`, and dropping the group.
    pub fn new() -> Group<E> {
        Group::with_parent(&Context::background(), OnFailure::GoOn).0
    }

    /// A group, and the child of `parent` that ends when a task fails, when `wait` ends, or when `parent` ends.
    ///
    /// Give the child to the tasks, as [`go_with`](Group::go_with) does by itself. Keep the group: in
    /// `let (_, ctx) = Group::with_context(..)` the context is born ended, and its cause says so.
    ///
    /// `parent` may be a [`Context`] or a reference to one.
    pub fn with_context(parent: impl AsRef<Context>) -> (Group<E>, Context) {
        Group::with_parent(parent.as_ref(), OnFailure::EndContext)
    }

    fn with_parent(parent: &Context, on_failure: OnFailure) -> (Group<E>, Context) {
        let (ctx, guard) = parent.with_cancel();
        let scheduler = Scheduler::new(
            Queue::new(),
            Span::current(),
            (ctx.clone(), guard.disarm()),
            usize::MAX,
            on_failure,
        );
        (Group { scheduler }, ctx)
    }
}

/// Starting tasks.
impl<E> Group<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    /// Starts a task, or queues it: awaiting what it returns waits until the task has *started*, not until it has ended.
    ///
    /// The call itself never waits. If there is a permit, the task starts now; otherwise it starts the moment a permit
    /// is free, first in, first out. Await the [`Admission`] for backpressure, as Go's `Go` blocks at the limit; or do not, and
    /// the queue grows.
    ///
    /// Once the group's context has ended, nothing starts any more: `future` is dropped, counts as ended with the
    /// [`ContextError`], and the admission says so.
    ///
    /// A task that fails ends the group's context (see [`with_context`](Group::with_context)). One that panics does too, and
    /// the panic goes on in [`wait`](Group::wait).
    ///
    /// On a runtime of several threads, tasks start on idle threads while the caller computes. As
    /// with `tokio::spawn`, the last task may wait until the caller yields, and of tasks that are
    /// started in quick succession up to seven may. So do not block a thread until they have run.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime. All tasks of a group run on the runtime of the first.
    ///
    /// # Examples
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # async fn store(_: u32) -> std::io::Result<()> { Ok(()) }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> std::io::Result<()> {
    /// let (g, _ctx) = Group::with_context(Context::background());
    /// g.set_limit(8);
    /// for page in 0..1_000 {
    ///     g.go(store(page)).await; // at most eight run, and no queue builds up
    /// }
    /// g.wait().await
    /// # }
    /// ```
    #[track_caller]
    pub fn go<F>(&self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        boxed_if_big!(future: F, Send => self.builder().go(future))
    }

    /// Starts a task that is handed the *group's* context, so that it cannot use the wrong one.
    ///
    /// `start` is called by the task's worker when the task starts; it may so make what should not exist before: a buffer, a
    /// connection. In all else this is [`go`](Group::go).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime. A panic in `start` is the task's.
    #[track_caller]
    pub fn go_with<S, F>(&self, start: S) -> Admission
    where
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        if job::is_big::<S>() {
            return self.builder().go_with(Box::new(start));
        }
        self.builder().go_with(start)
    }

    /// Starts a task now, or hands the future back.
    ///
    /// # Errors
    ///
    /// [`TryGoError::Full`] if every permit is taken or others queue for one; [`TryGoError::Ended`] if the group's context has
    /// ended. Neither counts as a failure of the group.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn try_go<F>(&self, future: F) -> Result<(), TryGoError<F>>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        if job::is_big::<F>() {
            return match self.builder().try_go_boxed(Box::new(future)) {
                Ok(()) => Ok(()),
                Err(refused) => error::unboxed(refused),
            };
        }
        self.builder().try_go(future)
    }

    /// Starts a task that may be dropped: the moment the group's context ends, `future` is dropped at its await, and the
    /// task counts as ended with that [`ContextError`].
    ///
    /// It is for what knows nothing of contexts and has nothing to clean up: a read, a computation in pieces, a wait. If `future`
    /// is ready in the poll in which the context's end is seen, its output wins.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn go_cancellable<F>(&self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        boxed_if_big!(future: F, Send => self.builder().go_cancellable(future))
    }

    /// Starts a closure on the blocking pool, under the same limit and the same failure rule; it is handed the group's
    /// context.
    ///
    /// **A closure that runs cannot be aborted by anyone**: not by [`abort`](Group::abort), not by a grace, not by dropping
    /// the group. It is told through its context, so ask it in every loop; or have what it calls interrupted:
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # use std::sync::Arc;
    /// # struct Query; impl Query { fn interrupt(&self) {} fn rows(&self) -> std::ops::Range<u32> { 0..3 } }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let (g, _ctx) = Group::<String>::with_context(Context::background());
    /// # let query = Arc::new(Query);
    /// g.go_blocking(move |ctx| {
    ///     let handle = Arc::clone(&query);
    ///     let _interrupt = ctx.after_func(move || handle.interrupt()).guard();
    ///     for _row in query.rows() {
    ///         ctx.check()?;
    ///     }
    ///     Ok(())
    /// });
    /// # g.wait().await.unwrap() }
    /// ```
    ///
    /// The guard disarms the interrupt at the end of the closure, also at an early return and a
    /// panic, so that it cannot hit the next query of the same connection: see
    /// [`AfterFunc::guard`](crate::AfterFunc::guard).
    ///
    /// A closure that has not begun on its thread when the context is done never begins. It is
    /// dropped on the blocking pool, since what it owns may block in its destructor. `wait` waits
    /// for that, except after an [`abort`](Group::abort) or when a grace period has passed: then
    /// the closure counts as ended at once, however long the pool has no thread for it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn go_blocking<F>(&self, run: F) -> Admission
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
    {
        self.builder().go_blocking(Box::new(run))
    }

    /// Starts a task that is not `Send`, on the current `LocalSet` or local runtime, under the same limit and in the same queue.
    ///
    /// # Panics
    ///
    /// Outside a `LocalSet` or local runtime.
    #[track_caller]
    pub fn go_local<F>(&self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + 'static,
    {
        boxed_if_big!(future: F => self.builder().go_local(future))
    }

    /// Starts a task that gives a value, which waits in the [`TaskHandle`]. Tasks may give values of different types.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn<T, F>(&self, future: F) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        boxed_if_big!(future: F, Send => self.builder().spawn(future))
    }

    /// Starts a task, and waits until it says that it is ready; the task then goes on.
    ///
    /// What the task passes to [`Ready::ok`] is returned: the address that a server is bound to, say. Until then its failure
    /// is this call's, and not the group's; from then on it is a task like any other. A panic is
    /// the group's in any case. The first decides: a value that is passed to `ok` after the failure
    /// is dropped.
    ///
    /// # Errors
    ///
    /// What the task fails with before it is ready. If it ends `Ok` without having been ready, panics, or is stopped, `E::from` of a
    /// [`ContextError`] whose cause says so.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, when polled.
    ///
    /// # Cancel safety
    ///
    /// Nothing starts before the first poll. Dropped after that and before the task is ready, it leaves an ordinary task of the
    /// group. If the task has failed, was stopped or was kept from starting, and this future is
    /// dropped before it has returned that, the failure is the group's: it ends the group's
    /// context, and `wait` returns it.
    ///
    /// `wait` does not wait for this future, which may have been leaked, or be alive and not polled
    /// any more. If nothing else is left to wait for, `wait` yields some turns, so that a call that
    /// was woken takes its failure; then it returns the failure itself, and this call returns the
    /// [`ContextError`].
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, Group};
    /// use tokio::net::TcpListener;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let (g, ctx) = Group::<std::io::Error>::with_context(Context::background());
    /// let addr = g
    ///     .start(|ready| async move {
    ///         let listener = TcpListener::bind("127.0.0.1:0").await?;
    ///         ready.ok(listener.local_addr()?);
    ///         ctx.done().await; // serve
    ///         Ok(())
    ///     })
    ///     .await?;
    /// assert_ne!(addr.port(), 0);
    /// g.cancel();
    /// g.wait().await
    /// # }
    /// ```
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
        start::start(
            Some(self.scheduler.clone()),
            Label::unnamed(),
            Box::new(start),
        )
    }

    /// Gives the task that comes next a name, which stands in its errors; then any way to start it.
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let (g, _ctx) = Group::<String>::with_context(Context::background());
    /// g.named("replica eu-1").go(async { Err("refused".into()) });
    ///
    /// let errors = g.wait_all().await.unwrap_err();
    /// assert_eq!(errors.iter().next().unwrap().name(), Some("replica eu-1"));
    /// # }
    /// ```
    #[track_caller]
    pub fn named(&self, name: impl Into<Cow<'static, str>>) -> Named<E> {
        Named::new(Some(self.scheduler.clone()), name.into())
    }

    #[track_caller]
    fn builder(&self) -> SpawnBuilder<'_, E> {
        SpawnBuilder::new(Some(&self.scheduler), Label::unnamed())
    }

    /// A handle for tasks that start siblings. It is weak: it does not keep the group alive, and cannot wait for it.
    #[must_use]
    pub fn spawner(&self) -> Spawner<E> {
        Spawner::new(&self.scheduler)
    }
}

/// Bounding.
impl<E> Group<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    /// Lets at most `limit` tasks run at once; `None` is no limit, `0` pauses.
    ///
    /// It may change at any time: raising it starts queued tasks at once, lowering it stops no task.
    /// A task that has lent its permit goes on even in a paused group, one at a time.
    ///
    /// # No deadlock at the limit
    ///
    /// A task that awaits the [`Admission`] or the [`TaskHandle`] of a sibling lends its permit
    /// meanwhile, and is not polled again before it has one; such tasks come before queued ones. So
    /// no more than `limit` tasks run, and a limit of 1 with tasks that start tasks that start
    /// tasks, each awaiting the next, finishes.
    ///
    /// A task also lends if it awaits a nested group, a scope or a fan-out whose tasks await tasks of
    /// this group, to any depth, and if a [`go_blocking`](Group::go_blocking) closure awaits a
    /// sibling with `Handle::block_on`.
    ///
    /// While its permit is lent, the whole task waits, other branches of a `join!` or a `select!`
    /// too: a timeout around an admission is seen when the task has a permit again. So a task must
    /// not await a sibling in one branch and feed that sibling in another if the limit leaves no
    /// permit for both: at a limit of 1 neither would go on.
    ///
    /// Not covered:
    ///
    /// - What a task starts with `tokio::spawn`, and `block_on` inside `block_in_place`: they are
    ///   not found, so the task keeps its permit and such a wait may never end.
    /// - A blocking closure cannot be held back. If it gives up what it awaits, it has its permit
    ///   again at once, and counts on top of the limit until a permit is free.
    ///
    /// # Examples
    ///
    /// ```
    /// # let g = errgroup::Group::<String>::new();
    /// g.set_limit(64);
    /// assert_eq!(g.limit(), Some(64));
    /// g.set_limit(None);
    /// assert_eq!(g.limit(), None);
    /// ```
    pub fn set_limit(&self, limit: impl Into<Option<usize>>) {
        let limit = limit.into().unwrap_or(usize::MAX);
        let ended = self.scheduler.ctx().is_done();
        self.scheduler.with(|state, effects| {
            state.permits.set_limit(limit);
            state.hand_out(ended, effects);
        });
    }

    /// How many tasks may run at once; `None` if there is no limit.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        let limit = self.scheduler.read(|state| state.permits.limit());
        (limit != usize::MAX).then_some(limit)
    }

    /// How many tasks run now: they have started, have not ended, and have not lent their permit.
    ///
    /// By the time it is looked at, it may have changed.
    #[must_use]
    pub fn running(&self) -> usize {
        self.scheduler.read(|state| state.permits.running())
    }

    /// How many tasks wait for a permit.
    ///
    /// By the time it is looked at, it may have changed.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.scheduler.read(|state| state.source.waiting())
    }
}

/// Stopping and waiting.
impl<E> Group<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    /// The group's context: the one that [`with_context`](Group::with_context) gave.
    #[must_use]
    pub fn context(&self) -> Context {
        self.scheduler.ctx().clone()
    }

    /// Asks every task to stop: ends the group's context, without a cause.
    ///
    /// What runs decides for itself; what is queued never starts, and so `wait` gives a [`ContextError`] for it.
    pub fn cancel(&self) {
        self.scheduler.cancel(None);
    }

    /// Asks every task to stop, and says why.
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        self.scheduler.cancel(Some(cause.into()));
    }

    /// Drops every task now: ends the group's context, and aborts what runs.
    ///
    /// None is polled again once its present poll returns. What was dropped counts as ended with the [`ContextError`]. When
    /// this returns, tasks may still be in their last poll or in a destructor: only [`wait`](Group::wait) proves that they
    /// are gone. What was queued is dropped by the group's workers, not in the calling thread.
    pub fn abort(&self) {
        self.scheduler.abort(&GROUP_ABORTED);
    }

    /// Lets tasks run on for at most `grace` once the group's context has ended; what runs then is aborted, and counts as
    /// ended with the [`ContextError`]. `None`, the default, waits for them as Go does.
    ///
    /// It needs a runtime with its timer enabled; without one, the group fails with the panic that says so.
    ///
    /// It may be set at any time, also while a grace runs: it counts from the end. Only `wait` makes use of it: a group that is
    /// dropped aborts at once. A blocking closure that runs is not aborted by it ([`go_blocking`](Group::go_blocking)).
    pub fn set_grace(&self, grace: impl Into<Option<Duration>>) {
        let grace = grace.into();
        self.scheduler
            .with(|state, effects| state.set_grace(grace, effects));
    }

    /// Waits until every task has ended, then ends the group's context, and gives the first error.
    ///
    /// When it returns, every destructor of every task has run, except of blocking closures that an
    /// abort or a grace period has kept from beginning ([`go_blocking`](Group::go_blocking)). Tasks
    /// may start others meanwhile, through a [`Spawner`]; these are waited for too.
    ///
    /// If the parent's end stopped the tasks but each returned `Ok`, this is `Ok`: nothing was lost.
    ///
    /// # Errors
    ///
    /// The first error in order of completion, by value, as the task made it. A task that never started or was aborted
    /// fails with `E::from` of the [`ContextError`].
    ///
    /// # Panics
    ///
    /// With the payload of the first task that panicked, if one did, whatever errors there were.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is dropping the group: the context ends and the tasks are aborted. An error that a task had
    /// returned by then is lost.
    pub async fn wait(self) -> Result<(), E> {
        self.scheduler.over().await;
        self.scheduler.end_context(&WAIT_ENDED);
        self.scheduler.take_failures().into_result()
    }

    /// Waits as [`wait`](Group::wait) does, and gives every failure, in the order in which the tasks ended.
    ///
    /// # Errors
    ///
    /// All of them, as [`Errors`]. A panic is one of them, and is not resumed.
    ///
    /// # Cancel safety
    ///
    /// As [`wait`](Group::wait): dropping the future is dropping the group.
    pub async fn wait_all(self) -> Result<(), Errors<E>> {
        self.scheduler.over().await;
        self.scheduler.end_context(&WAIT_ENDED);
        self.scheduler.take_failures().into_errors()
    }
}

impl<E> Drop for Group<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    /// Ends the context and aborts the tasks; it waits for nothing.
    fn drop(&mut self) {
        self.scheduler.abort(&GROUP_DROPPED);
    }
}

impl<E> Default for Group<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    /// [`Group::new`].
    fn default() -> Group<E> {
        Group::new()
    }
}

impl<E> fmt::Debug for Group<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.scheduler.try_read(|state| {
            let permits = &state.permits;
            (permits.running(), state.source.waiting(), permits.limit())
        });
        let mut debug = f.debug_struct("Group");
        match counts {
            Some((running, queued, limit)) => debug
                .field("running", &running)
                .field("queued", &queued)
                .field("limit", &(limit != usize::MAX).then_some(limit)),
            None => debug.field("state", &format_args!("<locked>")),
        };
        debug.finish_non_exhaustive()
    }
}
