//! The public type [`Group`]: starts tasks, limits them, cancels them and waits for them.

mod background;
mod blocking;
mod burst;
mod cause_with;
mod close;
mod decide_admission;
pub(crate) mod drain;
mod error;
mod handle;
#[cfg(feature = "inspect")]
mod inspected;
mod local;
mod name;
mod no_permit;
mod on_pool;
mod one_job;
mod permit;
mod permit_wait;
mod policy;
mod queue;
mod refuse;
mod reserve;
mod scope;
mod source;
mod spawn_builder;
mod spawner;
mod start;
mod steer;
mod stoppable;
mod submit;
mod task;
mod task_builder;
mod task_handle;
mod tracked;
mod worker;

pub use drain::{Drain, DrainPhase, Drained, DrainedError, DrainedPhase, DrainedTask};
pub use error::TryGoError;
pub use handle::{Admission, Admitted};
pub use permit::Permit;
pub use spawner::Spawner;
pub use start::Ready;
pub use task_builder::TaskBuilder;
pub use task_handle::TaskHandle;
pub use tracked::Tracked;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::context::{Cause, Context, ContextError};
use crate::scheduler::Scheduler;
use crate::scheduler::error::{Errors, Label};
use crate::scheduler::failures::OnFailure;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{self, boxed_if_big};
use crate::sync::Arc;
use name::{GROUP_ABORTED, GROUP_DROPPED, WAIT_ENDED, why};
use policy::{Options, Policy};
use queue::Queue;
use reserve::Reserve;
use source::Shared;
use spawn_builder::SpawnBuilder;

/// A group of tasks that are waited for, cancelled and limited together.
///
/// ```text
///     with_context ──┬── go(a) ──────────────┐
///                    ├── go(b) ─────── Err ──┼─► cancels the context: a and c are asked to stop
///                    ├── go(c) ───────────┐  │
///                    │                    ▼  ▼
///     wait ──────────┴────────────────────────── every task has finished ──► returns b's error
/// ```
///
/// # Guarantees
///
/// - **No task outlives its group.** [`wait`](Group::wait) returns when every task has finished.
///   Dropping the group, or the future of `wait`, cancels the context and aborts the tasks: no task
///   is polled again once its current poll returns.
/// - **The first failure cancels the others.** It cancels the context that
///   [`with_context`](Group::with_context) derived, with a cause that displays as the error does.
///   Running tasks see that in the context and return in their own time. A task is dropped at an
///   await only if it opted in, or when a [grace period](Group::set_grace) has passed. Queued tasks
///   never start.
/// - **Failures reach the caller.** `wait` returns the first error in order of completion, by
///   value, and [`wait_all`](Group::wait_all) every failure. A panic cancels the context as soon as
///   it happens, and `wait` resumes it with its payload. A panic wins over an error.
/// - **The limit holds and cannot deadlock**, even if tasks start tasks and wait for them: see
///   [`set_limit`](Group::set_limit).
/// - **A finished task uses no memory.** A group holds its running and queued tasks only, so it may
///   live as long as the program.
///
/// # Choosing a method
///
/// | the task | start it with |
/// |---|---|
/// | observes the context itself, or does not need to | [`go`](Group::go) |
/// | is given the group's context | [`go_with`](Group::go_with) |
/// | may be dropped when the context is done | [`go_cancellable`](Group::go_cancellable) |
/// | should start only if a permit is free now | [`try_go`](Group::try_go) |
/// | blocks its thread: synchronous I/O, a computation | [`go_blocking`](Group::go_blocking) |
/// | is not `Send` | [`go_local`](Group::go_local) |
/// | returns a value | [`spawn`](Group::spawn) |
/// | should be created only when it can start | [`reserve`](Group::reserve) |
/// | must be ready before you continue: a server, a connection | [`start`](Group::start) |
/// | is a future that you, or a library, must poll | [`track`](Group::track) |
/// | is started by another task of the group | any of these, through a [`Spawner`] |
///
/// All of them share one limit, one queue and one failure rule, and each can be
/// [`named`](Group::named).
///
/// # Shutdown
///
/// ```text
///  the context is done   go_cancellable tasks        tasks that still run      wait returns: the
///  (failure, cancel,     are dropped, queued ones    are aborted, if there     last destructor
///  deadline, parent)     never start                 is a set_grace            has run
///     ──●──────────────────────●──────────────────────────●───────────────────────●──►
///       │   the others observe it and return by themselves│
///       └────────────── the grace period ─────────────────┘
/// ```
///
/// # The error type
///
/// `E` is your error type. It needs `From<ContextError>`, for tasks that the group itself stopped,
/// and `Display`, for the cause of the context. `anyhow::Error`, `Box<dyn Error + Send + Sync>`,
/// `std::io::Error`, `String` and a `thiserror` enum with a `#[from] ContextError` variant all
/// work.
///
/// If the result of `wait` goes through a `?`, which converts the error, the compiler cannot infer
/// `E`. It says `type annotations needed` (E0283):
///
/// ```compile_fail,E0283
/// # use errgroup::{Context, Group};
/// # async fn fetch() -> std::io::Result<()> { Ok(()) }
/// # async fn example() -> anyhow::Result<()> {
/// let (g, _ctx) = Group::with_context(Context::background());
/// g.go(async { Ok(fetch().await?) });
/// g.wait().await?;
/// # Ok(()) }
/// ```
///
/// Name the type, or end the function with `g.wait().await`:
///
/// ```
/// # use errgroup::{Context, Group};
/// # async fn fetch() -> std::io::Result<()> { Ok(()) }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> anyhow::Result<()> {
/// let (g, _ctx) = Group::<anyhow::Error>::with_context(Context::background());
/// g.go(async { Ok(fetch().await?) });
/// g.wait().await?;
/// # Ok(()) }
/// ```
///
/// # Comparison
///
/// A tokio `JoinSet` holds tasks and nothing else: errors, cancellation and a limit are yours to
/// write. A `TaskTracker` waits for tasks and ignores their results. `try_join_all` runs a fixed
/// set of futures in one task and drops the rest at the first error. Go's `errgroup.Group` is the
/// model: its names mean here what they mean there.
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
///     // Cancelled by the failure of the other task.
///     let why = ctx.done().await;
///     assert_eq!(ctx.cause().unwrap().to_string(), "disk full");
///     Err(why.into())
/// });
/// g.go(async { anyhow::bail!("disk full") });
///
/// assert_eq!(g.wait().await.unwrap_err().to_string(), "disk full");
/// # }
/// ```
#[doc(alias(
    "errgroup",
    "TaskGroup",
    "nursery",
    "JoinSet",
    "TaskTracker",
    "WaitGroup"
))]
#[must_use = "dropping a group aborts its tasks: call `wait().await`"]
pub struct Group<E>
where
    E: GroupError,
{
    scheduler: Arc<Scheduler<Queue<E>>>,
}

/// Constructors.
impl<E> Group<E>
where
    E: GroupError,
{
    /// Creates a group in which a failure does not cancel the other tasks, like a Go `Group`
    /// without a context.
    ///
    /// [`wait`](Group::wait) waits for all tasks and returns the first error. The group has a
    /// context, but no failure and no panic cancels it, except of a task that is
    /// [essential](TaskBuilder::essential). [`cancel`](Group::cancel), [`abort`](Group::abort), a
    /// drain, `wait` when the tasks have finished, and dropping the group do.
    #[doc(alias("supervisorScope", "SupervisorJob"))]
    #[track_caller]
    pub fn new() -> Group<E> {
        Group::with_parent(&Context::background(), OnFailure::GoOn).0
    }

    /// Creates a group and a child of `parent` that is cancelled when a task fails, when `wait`
    /// finishes, or when the group is dropped.
    ///
    /// The child is also done when `parent` is. Give it to the tasks, or start them with
    /// [`go_with`](Group::go_with), which does so itself. Keep the group in a variable: `let (_,
    /// ctx) = Group::with_context(..)` drops it at once, so the context is cancelled from the
    /// start. Its cause says so.
    ///
    /// `parent` may be a [`Context`] or a reference to one.
    #[doc(alias = "WithContext")]
    #[track_caller]
    pub fn with_context(parent: impl AsRef<Context>) -> (Group<E>, Context) {
        Group::with_parent(parent.as_ref(), OnFailure::EndContext)
    }

    #[track_caller]
    fn with_parent(parent: &Context, on_failure: OnFailure) -> (Group<E>, Context) {
        let (ctx, guard) = parent.with_cancel();
        let scheduler = Scheduler::new(
            Queue::new(),
            Shared::new(),
            (ctx.clone(), guard.disarm()),
            usize::MAX,
            on_failure,
        );
        #[cfg(feature = "inspect")]
        scheduler.register(
            &scheduler.shared.span,
            crate::registry::GroupKind::Group,
            std::panic::Location::caller(),
        );
        (Group { scheduler }, ctx)
    }
}

/// Starting tasks.
impl<E> Group<E>
where
    E: GroupError,
{
    /// Starts a task, or queues it if no permit is free.
    ///
    /// The call itself never waits. If a permit is free, the task starts now. Otherwise it starts
    /// as soon as one is free, first in, first out. Awaiting the returned [`Admission`] waits until
    /// the task has *started*, not until it has finished: that is backpressure, as Go's `Go` blocks
    /// at the limit. If you do not await it, the queue may grow.
    ///
    /// Once the group's context is done, no task starts any more: `future` is dropped and counts as
    /// failed with the [`ContextError`], and the admission says that it was not started.
    ///
    /// A task that fails cancels the group's context (see [`with_context`](Group::with_context)).
    /// So does one that panics, and [`wait`](Group::wait) resumes the panic.
    ///
    /// On a multi-thread runtime, tasks start on idle threads while the caller computes. As with
    /// `tokio::spawn`, the last task may wait until the caller yields. If tasks are started in
    /// quick succession, up to seven of them may. So do not block the thread while you wait for
    /// them.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, unless a task of the group was started before: all run on
    /// the runtime of the first.
    ///
    /// # If it does not compile
    ///
    /// A task may run longer than the function that starts it. So it must own what it uses. For a
    /// task that borrows, the compiler says `borrowed data escapes outside of function` (E0521) or
    /// `async block may outlive the current function` (E0373):
    ///
    /// ```compile_fail,E0521
    /// # use errgroup::{Context, Group};
    /// # async fn send(_: &str) -> anyhow::Result<()> { Ok(()) }
    /// async fn notify(user: &str) -> anyhow::Result<()> {
    ///     let (g, _ctx) = Group::with_context(Context::background());
    ///     g.go(async move { send(user).await });
    ///     g.wait().await
    /// }
    /// ```
    ///
    /// Clone the data, or share it in an [`Arc`](std::sync::Arc), and move it into the task:
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # async fn send(_: &str) -> anyhow::Result<()> { Ok(()) }
    /// async fn notify(user: &str) -> anyhow::Result<()> {
    ///     let (g, _ctx) = Group::with_context(Context::background());
    ///     let user = user.to_owned();
    ///     g.go(async move { send(&user).await });
    ///     g.wait().await
    /// }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() { notify("ada").await.unwrap() }
    /// ```
    ///
    /// Work that has to borrow can be the items of a fan-out on your own task:
    /// [`FanOut::local`](crate::FanOut::local). A task that starts tasks must not borrow its group,
    /// but owns a [`Spawner`].
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
    #[doc(alias("start_soon", "addTask", "launch"))]
    #[track_caller]
    pub fn go<F>(&self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        boxed_if_big!(future: F, Send => self.builder().go(future))
    }

    /// Starts a task that is given the *group's* context, or queues it if no permit is free.
    ///
    /// The task then cannot use the parent's context by mistake. `start` is called when the task
    /// starts, in the tokio task that then runs it, and may create what should not exist before: a
    /// buffer, a connection. The task is otherwise like one of [`go`](Group::go): the admission
    /// says when it has started, and once the context is done it never starts.
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
        if const { job::is_big::<S>() } {
            return self.builder().go_with(Box::new(start));
        }
        self.builder().go_with(start)
    }

    /// Starts a task if a permit is free now, and otherwise returns the future in the error.
    ///
    /// # Errors
    ///
    /// Returns [`TryGoError::Full`] if no permit is free or other tasks are queued for one, and
    /// [`TryGoError::Ended`] if the group's context is done or the group was closed. Neither counts
    /// as a failure of the group.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[doc(alias = "TryGo")]
    #[track_caller]
    pub fn try_go<F>(&self, future: F) -> Result<(), TryGoError<F>>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        if const { job::is_big::<F>() } {
            return match self.builder().try_go_boxed(Box::new(future)) {
                Ok(()) => Ok(()),
                Err(refused) => error::unboxed(refused),
            };
        }
        self.builder().try_go(future)
    }

    /// Starts a task that is dropped at its current await when the group's context is done, or
    /// queues it if no permit is free.
    ///
    /// The task then counts as failed with the [`ContextError`]. Use it for futures that know
    /// nothing of contexts and need no cleanup: a read, a computation in steps, a wait. If `future`
    /// is ready in the poll that finds the context done, its output wins.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[track_caller]
    pub fn go_cancellable<F>(&self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        boxed_if_big!(future: F, Send => self.builder().go_cancellable(future))
    }

    /// Starts a closure on the blocking pool, or queues it if no permit is free.
    ///
    /// The closure is given the group's context. The limit, the queue and the failure rule are
    /// those of all tasks.
    ///
    /// **A closure that runs cannot be aborted**: not by [`abort`](Group::abort), not by a grace
    /// period, not by dropping the group. It learns of a cancellation through its context, so check
    /// the context in each loop. Or interrupt what the closure calls:
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # use std::sync::Arc;
    /// # struct Query;
    /// # impl Query {
    /// #     fn interrupt(&self) {}
    /// #     fn rows(&self) -> std::ops::Range<u32> { 0..3 }
    /// # }
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
    /// The guard disarms the interrupt when the closure returns, also early or with a panic, so
    /// that it cannot hit the next query of the same connection: see
    /// [`AfterFunc::guard`](crate::AfterFunc::guard).
    ///
    /// If no thread has begun the closure when the context is done, it never runs. It is dropped on
    /// the blocking pool, since what it owns may block in its destructor. [`wait`](Group::wait)
    /// waits for that, except after an [`abort`](Group::abort) and after a grace period: then the
    /// closure counts as finished at once, even if the pool has no free thread for a long time.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[doc(alias("spawn_blocking", "to_thread"))]
    #[track_caller]
    pub fn go_blocking<F>(&self, run: F) -> Admission
    where
        F: FnOnce(Context) -> Result<(), E> + Send + 'static,
    {
        self.builder().go_blocking(Box::new(run))
    }

    /// Starts a task that is not `Send` on the current `LocalSet` or local runtime, or queues it if
    /// no permit is free.
    ///
    /// The limit, the queue and the failure rule are those of all tasks.
    ///
    /// # Panics
    ///
    /// Panics outside a `LocalSet` or local runtime.
    #[doc(alias = "spawn_local")]
    #[track_caller]
    pub fn go_local<F>(&self, future: F) -> Admission
    where
        F: Future<Output = Result<(), E>> + 'static,
    {
        boxed_if_big!(future: F => self.builder().go_local(future))
    }

    /// Starts a task that returns a value, or queues it if no permit is free.
    ///
    /// The value is kept in the returned [`TaskHandle`], which resolves to an error if the task
    /// fails or never starts. Tasks of one group may return values of different types. The handle
    /// can also stop the task: [`TaskHandle::cancel`] and [`TaskHandle::abort`] drop it at its next
    /// await.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[doc(alias("async", "fork", "create_task"))]
    #[track_caller]
    pub fn spawn<T, F>(&self, future: F) -> TaskHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        boxed_if_big!(future: F, Send => self.builder().spawn(future))
    }

    /// Starts a task that returns a value and is given a context of its own, or queues it if no
    /// permit is free.
    ///
    /// The context is a child of the group's. [`TaskHandle::cancel`] cancels it, and with it this
    /// task alone. The task is otherwise like one of [`spawn`](Group::spawn). `start` is called
    /// when the task starts, by the worker that runs it.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime. A panic of `start` is a panic of the task.
    ///
    /// # Examples
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), String> {
    /// let (g, ctx) = Group::<String>::with_context(Context::background());
    /// let upload = g.spawn_with(async |ctx| {
    ///     ctx.done().await; // send parts
    ///     Ok("stopped in good order")
    /// });
    /// upload.cancel_with("the user pressed stop");
    /// assert_eq!(upload.await.unwrap(), "stopped in good order");
    /// assert!(!ctx.is_done());
    /// g.wait().await
    /// # }
    /// ```
    #[track_caller]
    pub fn spawn_with<S, T, F>(&self, start: S) -> TaskHandle<T>
    where
        T: Send + 'static,
        S: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        if const { job::is_big::<S>() } {
            return self.builder().spawn_with(Box::new(start));
        }
        self.builder().spawn_with(start)
    }

    /// Starts a closure that returns a value on the blocking pool, or queues it if no permit is
    /// free.
    ///
    /// The closure is given a context of its own, a child of the group's, which
    /// [`TaskHandle::cancel`] cancels. It is otherwise like one of
    /// [`go_blocking`](Group::go_blocking): once it runs, it cannot be aborted, so it should check
    /// its context in each loop.
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
        self.builder().spawn_blocking(Box::new(run))
    }

    /// Starts a task and waits until it is ready, then lets it run on as a task of the group.
    ///
    /// Returns the value that the task passes to [`Ready::ok`]: the address that a server is bound
    /// to, say. A failure before that is the failure of this call, and not of the group. From then
    /// on the task is a task like any other. The first of the two decides: a value that is passed
    /// to `ok` after the failure is dropped. A panic is always the group's.
    ///
    /// `start` is called with the group's context when the task starts, by the worker that runs it.
    ///
    /// A started task keeps its permit until it has finished, and so does a server that serves
    /// until the context is done. Under a limit, raise the limit by one for each of them.
    ///
    /// # Errors
    ///
    /// Returns the error of the task if it fails before it is ready. Returns `E::from` of a
    /// [`ContextError`], whose cause says why, if the task returns `Ok` before it is ready, panics,
    /// is stopped or never starts.
    ///
    /// # Panics
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Nothing starts before the first poll. If the future is dropped after that and before the
    /// task is ready, the task becomes an ordinary task of the group. If the task has failed, was
    /// stopped or was kept from starting, and the future is dropped before it has returned that,
    /// the failure becomes the group's: it cancels the group's context, and `wait` returns it.
    ///
    /// `wait` does not wait for this future, which may have been leaked, or may be alive and never
    /// polled again. If nothing else is left to wait for, `wait` yields a few times, so that a
    /// woken call can take its failure. Then `wait` returns the failure itself, and this call
    /// returns the [`ContextError`].
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, Group};
    /// use tokio::net::TcpListener;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let (g, _ctx) = Group::<std::io::Error>::with_context(Context::background());
    /// let addr = g
    ///     .start(|ctx, ready| async move {
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
        S: FnOnce(Context, Ready<R>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        start::start(
            Some(self.scheduler.clone()),
            Label::unnamed(),
            Options::default(),
            Box::new(start),
        )
    }

    /// Waits for a permit, with which a task can be started later.
    ///
    /// Use it to wait before there is work: before a socket is accepted or a chunk is read, so that
    /// what waits for a permit takes no memory. The returned [`Permit`] starts one task. Dropping
    /// it gives the permit back. It is to [`go`](Group::go) what `mpsc::Sender::reserve` is to
    /// `send`.
    ///
    /// It waits in the same queue as tasks, first in, first out, from its first poll on, and counts
    /// in [`queued`](Group::queued) meanwhile. A task of the group that awaits it lends its own
    /// permit, and continues on the reserved one: see [`Permit`]. [`wait`](Group::wait) waits
    /// neither for a reservation nor for its permit.
    ///
    /// The future owns what it needs, and does not keep the group alive.
    ///
    /// # Errors
    ///
    /// Returns the [`ContextError`] if the group's context is done, also if a deadline passes while
    /// it waits, or if the group was closed or dropped or `wait` has returned.
    ///
    /// # Panics
    ///
    /// Panics when it is polled outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses its position in the queue. Other tasks keep theirs. A permit that
    /// was granted meanwhile is given back.
    ///
    /// # Examples
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # async fn read(_: u32) -> std::io::Result<Vec<u8>> { Ok(Vec::new()) }
    /// # async fn upload(_: Vec<u8>) -> std::io::Result<()> { Ok(()) }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> std::io::Result<()> {
    /// let (g, _ctx) = Group::with_context(Context::background());
    /// g.set_limit(4);
    /// for number in 0..100 {
    ///     let permit = g.reserve().await?;
    ///     let chunk = read(number).await?; // at most four chunks are in memory
    ///     permit.go(upload(chunk));
    /// }
    /// g.wait().await
    /// # }
    /// ```
    #[doc(alias("acquire", "acquire_owned"))]
    pub fn reserve(&self) -> impl Future<Output = Result<Permit<E>, ContextError>> + Send + use<E> {
        Reserve::new(Some(self.scheduler.clone()))
    }

    /// Has the group wait for a future that the caller polls.
    ///
    /// [`wait`](Group::wait) waits until the returned [`Tracked`] has finished or was dropped. An
    /// error of the future is a failure of the group like that of a task: it cancels the group's
    /// context, and `wait` returns it. A future that is dropped before it has finished is no
    /// failure. Use it for futures that another task or a library has to poll: a connection that is
    /// given to a server, a callback.
    ///
    /// A panic of the future, or of its destructor, is a failure of the group, too: it cancels the
    /// context and `wait` resumes it. The panic does not reach the caller; there, the `Tracked`
    /// just finishes.
    ///
    /// A tracked future takes no permit and counts in no limit. The group cannot abort it: after an
    /// [`abort`](Group::abort) or a [grace period](Group::set_grace), `wait` still waits for it,
    /// and for ever if it is leaked. After the group's context is done, a future is still tracked.
    /// After `wait` has returned it is only polled, so that its error is dropped and its panic
    /// unwinds into the caller.
    ///
    /// The future need not be `Send` or `'static`.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, Group};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let (g, ctx) = Group::<String>::with_context(Context::background());
    /// let connection = g.track(async { Err("connection reset".to_owned()) });
    ///
    /// tokio::spawn(connection); // as a server would do
    /// ctx.done().await;
    /// assert_eq!(g.wait().await.unwrap_err(), "connection reset");
    /// # }
    /// ```
    #[doc(alias("track_future", "TaskTracker"))]
    #[track_caller]
    pub fn track<F>(&self, future: F) -> Tracked<F>
    where
        F: Future<Output = Result<(), E>>,
    {
        tracked::track(
            Some(&self.scheduler),
            Label::unnamed(),
            Policy::default(),
            future,
        )
    }

    /// Returns a builder that gives the next task a name.
    ///
    /// The name appears in the errors of the task and, with feature `tracing`, in its span. Any
    /// method of the builder starts the task.
    ///
    /// # Examples
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
    pub fn named(&self, name: impl Into<Cow<'static, str>>) -> TaskBuilder<E> {
        TaskBuilder::new(Some(self.scheduler.clone()), Label::named(name.into()))
    }

    /// Returns a builder for the options of the next task: background tasks, essential tasks, tasks
    /// that clean up.
    ///
    /// Any other method of the builder starts the task: see [`TaskBuilder`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # use std::time::Duration;
    /// # async fn renew_lease() -> Result<(), String> { Ok(()) }
    /// # async fn work() -> Result<(), String> { Ok(()) }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), String> {
    /// let (g, _ctx) = Group::<String>::with_context(Context::background());
    /// g.task().name("lease").background().go_with(async |ctx| {
    ///     while ctx.sleep(Duration::from_secs(5)).await.is_ok() {
    ///         renew_lease().await?;
    ///     }
    ///     Ok(())
    /// });
    /// g.go(work());
    /// g.wait().await // ends the lease once `work` has finished
    /// # }
    /// ```
    #[track_caller]
    pub fn task(&self) -> TaskBuilder<E> {
        TaskBuilder::new(Some(self.scheduler.clone()), Label::unnamed())
    }

    #[track_caller]
    fn builder(&self) -> SpawnBuilder<'_, E> {
        SpawnBuilder::new(Some(&self.scheduler), Label::unnamed())
    }

    /// Returns a handle with which tasks start other tasks of the group.
    ///
    /// The handle is weak: it does not keep the group alive, and cannot wait for it.
    #[must_use]
    pub fn spawner(&self) -> Spawner<E> {
        Spawner::new(&self.scheduler)
    }
}

/// The limit.
impl<E> Group<E>
where
    E: GroupError,
{
    /// Lets at most `limit` tasks run at once. `None` is no limit, and `0` pauses the group.
    ///
    /// The limit may change at any time: raising it starts queued tasks at once, lowering it stops
    /// no task. Tasks that have lent their permits continue even in a paused group, one at a time.
    ///
    /// # No deadlock at the limit
    ///
    /// A task that awaits the [`Admission`] or the [`TaskHandle`] of a sibling lends its permit for
    /// that time. It is polled again only when it has a permit again, and gets one before queued
    /// tasks do. So no more than `limit` tasks run at once, and at a limit of 1 a task can start a
    /// task that starts a task, each awaiting the next, and all of them finish.
    ///
    /// A task also lends its permit if it awaits a nested group, a scope or a fan-out whose tasks
    /// await tasks of this group, to any depth, and if a [`go_blocking`](Group::go_blocking)
    /// closure awaits a sibling with `Handle::block_on`.
    ///
    /// While its permit is lent, the whole task waits, including the other branches of a `join!` or
    /// a `select!`: a timeout around an admission fires only when the task has a permit again. So
    /// do not await a sibling (another task of the group) in one branch and send it data in another
    /// branch, unless the limit has room for both. At a limit of 1, both would wait for ever.
    ///
    /// Not covered:
    ///
    /// - Waits that the group cannot attribute to a task: those of a future that the task has given
    ///   to `tokio::spawn`, and those of `block_on` inside `block_in_place`. The task keeps its
    ///   permit, so such a wait may never finish.
    /// - A blocking closure cannot be held back. If its wait for a sibling ends early, by a timeout
    ///   for example, it runs on at once, and counts on top of the limit until a permit is free. If
    ///   it has waited for a nested group whose tasks await its siblings, it runs on without being
    ///   counted.
    /// - A blocking closure lends its permit when it polls a pending handle or admission. If it
    ///   drops one of several, or gets the value of one through a `FuturesUnordered`, it has its
    ///   permit again, and waits with it until it polls another one.
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
    #[doc(alias("SetLimit", "Semaphore", "CapacityLimiter"))]
    pub fn set_limit(&self, limit: impl Into<Option<usize>>) {
        steer::set_limit(&self.scheduler, limit.into());
    }

    /// Returns how many tasks may run at once, or `None` if there is no limit.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        steer::limit(&self.scheduler)
    }

    /// Returns how many permits are in use: those of tasks that have started, have not finished and
    /// have not lent theirs, and each reserved [`Permit`]. Background tasks take none.
    ///
    /// The number may have changed by the time you look at it.
    #[must_use]
    pub fn running(&self) -> usize {
        steer::running(&self.scheduler)
    }

    /// Returns how many tasks and reservations are queued for a permit.
    ///
    /// The number may have changed by the time you look at it.
    #[must_use]
    pub fn queued(&self) -> usize {
        steer::queued(&self.scheduler)
    }
}

/// Cancelling and waiting.
impl<E> Group<E>
where
    E: GroupError,
{
    /// Returns the group's context, the one that [`with_context`](Group::with_context) returned.
    #[must_use]
    pub fn context(&self) -> Context {
        self.scheduler.ctx().clone()
    }

    /// Cancels the group's context, without a cause.
    ///
    /// Running tasks observe that and return in their own time. Queued tasks never start, so `wait`
    /// returns a [`ContextError`] for them.
    #[doc(alias = "cancelAll")]
    pub fn cancel(&self) {
        self.scheduler.cancel(None);
    }

    /// Cancels the group's context with a cause.
    ///
    /// Running tasks observe that and return in their own time. Queued tasks never start, so `wait`
    /// returns a [`ContextError`] for them, with the cause.
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        self.scheduler.cancel(Some(cause.into()));
    }

    /// Cancels the group's context and aborts every task.
    ///
    /// No task is polled again once its current poll returns. A task that was dropped counts as
    /// failed with the [`ContextError`]. When this returns, tasks may still be in their last poll
    /// or in a destructor: only after [`wait`](Group::wait) are they known to be dropped. Queued
    /// tasks are dropped by the group's workers, not in the calling thread. A
    /// [`go_blocking`](Group::go_blocking) closure that runs is not aborted.
    #[doc(alias = "abort_all")]
    pub fn abort(&self) {
        self.scheduler
            .abort_with(why(&self.scheduler, &GROUP_ABORTED));
    }

    /// Aborts tasks that still run when `grace` has passed since the group's context was done.
    ///
    /// An aborted task counts as failed with the [`ContextError`]. `None`, the default, waits for
    /// the tasks however long they take, as Go does.
    ///
    /// The grace period may be set at any time, also after the context is done. It always counts
    /// from the moment at which the context was done. Dropping the group aborts the tasks without a
    /// grace period. A blocking closure that runs is not aborted
    /// ([`go_blocking`](Group::go_blocking)).
    ///
    /// It needs a runtime with its timer enabled. Without a timer the group fails, with a panic
    /// that says so.
    #[doc(alias = "shutdown_timeout")]
    pub fn set_grace(&self, grace: impl Into<Option<Duration>>) {
        let grace = grace.into();
        self.scheduler
            .with_effects(|state, effects| state.set_grace(grace, effects));
    }

    /// Waits until every task has finished, then cancels the group's context and returns the first
    /// error.
    ///
    /// When it returns, every destructor of every task has run, except those of blocking closures
    /// that never started because of an abort or a grace period
    /// ([`go_blocking`](Group::go_blocking)). Tasks may start other tasks meanwhile, through a
    /// [`Spawner`]. `wait` waits for these, too.
    ///
    /// If the parent was cancelled but every task returned `Ok`, this returns `Ok`. For a group in
    /// a struct, which cannot be moved out, there is [`close_and_wait`](Group::close_and_wait).
    ///
    /// # Errors
    ///
    /// Returns the first error in order of completion, by value, as the task returned it. A task
    /// that never started or was aborted fails with `E::from` of the [`ContextError`].
    ///
    /// # Panics
    ///
    /// Resumes the panic of the first task that panicked, if one did. A panic wins over an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the group: it cancels the context and aborts the tasks. Errors
    /// that tasks had returned by then are lost.
    #[doc(alias("join", "waitForAll"))]
    pub async fn wait(self) -> Result<(), E> {
        self.scheduler.join().await;
        self.scheduler
            .end_context_after_join(why(&self.scheduler, &WAIT_ENDED));
        self.scheduler.take_failures().into_result()
    }

    /// Waits until every task has finished, then cancels the group's context and returns every
    /// failure, in the order in which the tasks finished.
    ///
    /// It waits for what [`wait`](Group::wait) waits for: for every destructor, and for tasks that
    /// are started meanwhile.
    ///
    /// # Errors
    ///
    /// Returns all failures, as [`Errors`]. A panic is one of them, and is not resumed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the group: it cancels the context and aborts the tasks. Failures
    /// that were collected by then are lost.
    #[doc(alias = "errors.Join")]
    pub async fn wait_all(self) -> Result<(), Errors<E>> {
        self.scheduler.join().await;
        self.scheduler
            .end_context_after_join(why(&self.scheduler, &WAIT_ENDED));
        self.scheduler.take_failures().into_errors()
    }
}

impl<E> Drop for Group<E>
where
    E: GroupError,
{
    /// Cancels the context and aborts the tasks. It waits for nothing.
    fn drop(&mut self) {
        self.scheduler
            .abort_with(why(&self.scheduler, &GROUP_DROPPED));
    }
}

impl<E> Default for Group<E>
where
    E: GroupError,
{
    /// Creates a group in which a failure does not cancel the other tasks, as [`Group::new`] does.
    #[track_caller]
    fn default() -> Group<E> {
        Group::new()
    }
}

impl<E> fmt::Debug for Group<E>
where
    E: GroupError,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.scheduler.try_read(|state| {
            let permits = &state.permits;
            let waiting = state.source.waiting();
            let is_waited_for = state.is_waited_for();
            (permits.running(), waiting, permits.limit(), is_waited_for)
        });
        let mut debug = f.debug_struct("Group");
        match counts {
            Some((running, queued, limit, is_waited_for)) => debug
                .field("running", &running)
                .field("queued", &queued)
                .field("limit", &(limit != usize::MAX).then_some(limit))
                .field("waited_for", &is_waited_for),
            None => debug.field("state", &format_args!("<locked>")),
        };
        debug.finish_non_exhaustive()
    }
}
