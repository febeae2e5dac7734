//! The face of the context tree: a handle on a node, and what can be asked of it.

mod after_func;
mod cause;
mod deadline;
#[cfg(feature = "tokio-util")]
mod deferred;
mod display;
mod done;
mod error;
mod guard;
mod listeners;
mod node;
#[cfg(feature = "signal")]
mod signal;
#[cfg(feature = "tokio-util")]
mod token;

pub use after_func::{AfterFunc, AfterFuncGuard};
pub use cause::Cause;
pub(crate) use cause::StaticCause;
pub(crate) use deadline::deadline_after;
pub(crate) use done::RunOwned;
pub use done::{Done, DoneOwned, Run};
pub use error::ContextError;
pub use guard::{CancelGuard, CancelHandle};

use std::future::Future;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{Arc, Shared};
use listeners::Listener;
use node::{Kind, Node};

/// Says when to stop, and why: a handle on a node of a tree down which cancellation and deadlines flow.
///
/// A context is one pointer and cheap to clone; a clone is the same context. Deriving a child is one allocation and
/// takes no lock. Every method takes `&self` and may be called from any thread, in or outside a runtime, unless it says
/// otherwise.
///
/// ```text
///   background ── with_shutdown_signals ──┬── with_timeout(2 s) ── with_value(RequestId)
///                                         └── with_timeout(5 s) ── Group::with_context
///        ends flow this way  ───────────────────────────────────────────►
///        values are looked up this way  ◄──────────────────────────────────
/// ```
///
/// # How a context ends
///
/// Once, and for good: by a cancel (its [`CancelGuard`] or [`CancelHandle`]), by its deadline, or because its parent
/// ended. The first end wins, cause included; a later one changes nothing.
///
/// When `cancel` returns, every descendant has ended, with the same kind and cause, but for one that had ended by itself
/// before. While it runs, one descendant may be done and another not. Parents end before their children. A child never
/// ends its parent or its siblings.
///
/// # Deadlines
///
/// A deadline is an instant that is compared when somebody asks; a timer exists only inside a future that waits. So a context
/// with a deadline needs no runtime until it is awaited, and it obeys tokio's paused clock. A deadline passes for every
/// descendant at once, whoever looks first, and a cancel that comes after it does not turn `DeadlineExceeded` into
/// `Cancelled`, observed or not.
///
/// # Next to its neighbours
///
/// tokio-util's `CancellationToken` is the cancellation alone: a `Context` adds the deadline, the cause and the values,
/// and ends by itself when its guard is dropped. Go's `context.Context` is the model, word for word; what differs is that
/// nothing can be forgotten here: there is no `cancel` function to lose, and a deadline has nothing to release.
///
/// # Examples
///
/// ```
/// use errgroup::Context;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let ctx = Context::background().with_timeout(Duration::from_millis(100));
///
/// let slow = async { tokio::time::sleep(Duration::from_secs(60)).await };
/// let err = ctx.run(slow).await.unwrap_err();
///
/// assert!(err.is_deadline_exceeded());
/// assert_eq!(err.to_string(), "context deadline exceeded");
/// # }
/// ```
#[derive(Clone)]
pub struct Context {
    node: Arc<Node>,
}

/// Roots.
impl Context {
    /// The root: never ends, has no deadline and no values.
    ///
    /// It is where `main`, tests and servers start. Only the first call allocates.
    #[must_use]
    pub fn background() -> Context {
        static BACKGROUND: Shared<Context> = Shared::new();
        BACKGROUND.get(|| Context::root(Kind::Background))
    }

    /// A root like [`background`](Context::background), for code that does not have a context to hand on yet.
    ///
    /// It behaves the same; the name is there to be searched for.
    #[must_use]
    pub fn todo() -> Context {
        static TODO: Shared<Context> = Shared::new();
        TODO.get(|| Context::root(Kind::Todo))
    }

    fn root(kind: Kind) -> Context {
        Context {
            node: Node::root(kind),
        }
    }
}

/// Deriving a child.
impl Context {
    /// A child, and the right to end it.
    ///
    /// The guard ends the child when it is dropped; see [`CancelGuard`]. Keep it in a variable with a name: in
    /// `let (ctx, _) = parent.with_cancel()` the child is born ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::Context;
    ///
    /// let (ctx, guard) = Context::background().with_cancel();
    /// assert!(!ctx.is_done());
    /// drop(guard);
    /// assert!(ctx.is_done());
    /// ```
    pub fn with_cancel(&self) -> (Context, CancelGuard) {
        let node = self.node.with_cancel();
        let guard = CancelGuard::new(node.clone());
        (Context { node }, guard)
    }

    /// A child that ends after `timeout`, or at its parent's deadline if that is earlier.
    ///
    /// There is nothing to release and so no guard. A timeout of zero gives a context that has ended;
    /// `Duration::MAX` saturates to an instant some thirty years from now.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Context {
        let at = deadline_after(Instant::now(), timeout);
        self.until(at, None, || timeout.is_zero())
    }

    /// Like [`with_timeout`](Context::with_timeout), with the cause that [`cause`](Context::cause) gives if it is *this*
    /// deadline that ends the child, not an earlier one from above.
    #[must_use]
    pub fn with_timeout_cause(&self, timeout: Duration, cause: impl Into<Cause>) -> Context {
        let at = deadline_after(Instant::now(), timeout);
        self.until(at, Some(cause.into()), || timeout.is_zero())
    }

    /// A child that ends at `deadline`, or at its parent's deadline if that is earlier.
    ///
    /// An instant in the past gives a context that has ended.
    #[must_use]
    pub fn with_deadline(&self, deadline: impl Into<Instant>) -> Context {
        let at = deadline.into();
        self.until(at, None, || at <= Instant::now())
    }

    /// Like [`with_deadline`](Context::with_deadline), with the cause that [`cause`](Context::cause) gives if it is *this*
    /// deadline that ends the child, not an earlier one from above.
    #[must_use]
    pub fn with_deadline_cause(
        &self,
        deadline: impl Into<Instant>,
        cause: impl Into<Cause>,
    ) -> Context {
        let at = deadline.into();
        self.until(at, Some(cause.into()), || at <= Instant::now())
    }

    /// A child that ends at `at`; `has_passed` says whether that is in the past.
    fn until(
        &self,
        at: Instant,
        cause: Option<Cause>,
        has_passed: impl FnOnce() -> bool,
    ) -> Context {
        let node = self.node.with_deadline(at, cause, has_passed);
        Context { node }
    }

    /// A child that carries one value, found by its type.
    ///
    /// A type that is private to your crate cannot collide with anybody's: wrap what you store in one. Values are for
    /// what belongs to a request and crosses interfaces (its id, who asked, a trace), not for optional arguments.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::Context;
    ///
    /// struct RequestId(u64);
    ///
    /// let ctx = Context::background().with_value(RequestId(7));
    /// assert_eq!(ctx.value::<RequestId>().map(|id| id.0), Some(7));
    /// ```
    #[must_use]
    pub fn with_value<T: Send + Sync + 'static>(&self, value: T) -> Context {
        let node = self.node.with_value(Box::new(value));
        Context { node }
    }

    /// A context with the same values, but without an end, a deadline or a cause: for clean-up that must finish although
    /// what it cleans up after was cancelled.
    ///
    /// Give it a deadline of its own, or nothing bounds it.
    #[must_use]
    pub fn without_cancel(&self) -> Context {
        let node = self.node.without_cancel();
        Context { node }
    }

    /// A context with the values of `self`, that ends when either of the two ends, with that one's reason, and has the
    /// earlier of the two deadlines.
    ///
    /// The use is work that two parties may stop: a request and a server that shuts down, say.
    #[must_use]
    pub fn merge(&self, other: &Context) -> Context {
        let node = self.node.merge(&other.node);
        Context { node }
    }
}

/// Asking, without waiting.
impl Context {
    /// Whether the context has ended.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.node.is_done()
    }

    /// The error of a context that has ended.
    #[inline]
    #[must_use]
    pub fn err(&self) -> Option<ContextError> {
        self.node.err()
    }

    /// An error once the context has ended: `ctx.check()?` is the line for a loop that computes.
    ///
    /// # Errors
    ///
    /// The [`ContextError`] of a context that has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// # use errgroup::{Context, ContextError};
    /// fn sum(ctx: &Context, rows: impl Iterator<Item = u64>) -> Result<u64, ContextError> {
    ///     let mut sum = 0;
    ///     for row in rows {
    ///         ctx.check()?;
    ///         sum += row;
    ///     }
    ///     Ok(sum)
    /// }
    /// # assert_eq!(sum(&Context::background(), 0..4).unwrap(), 6);
    /// ```
    #[inline]
    pub fn check(&self) -> Result<(), ContextError> {
        self.node.err().map_or(Ok(()), Err)
    }

    /// Why the context ended, where that was said.
    ///
    /// `None` for a context that has not ended, for a cancel without a cause, and for a deadline without one.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.err().and_then(|error| error.cause().cloned())
    }

    /// The instant at which the context ends at the latest: the earliest deadline from here to the root.
    ///
    /// It still answers after the end.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.node.deadline()
    }

    /// The time left until the deadline; zero once the context has ended, in whatever way.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.node.deadline()?;
        if self.is_done() {
            return Some(Duration::ZERO);
        }
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// The nearest value of type `T` on the way to the root.
    ///
    /// It takes a step for each ancestor on the way.
    #[must_use]
    pub fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let mut node = Some(&self.node);
        while let Some(current) = node {
            if let Kind::WithValue(value) = current.kind() {
                if let Some(value) = (**value).value().downcast_ref() {
                    return Some(value);
                }
            }
            node = current.parent();
        }
        None
    }
}

/// Waiting.
impl Context {
    /// Waits until the context ends.
    ///
    /// The future of a context that can never end never resolves. Where the context has a deadline, awaiting this needs a
    /// tokio runtime with its timer enabled, and holds a timer meanwhile.
    ///
    /// # Panics
    ///
    /// When polled outside a tokio runtime, or in one without a timer, if the context has a deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing and leaves nothing behind.
    ///
    /// # Examples
    ///
    /// ```
    /// # use errgroup::Context;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// # let (ctx, guard) = Context::background().with_cancel();
    /// # let mut jobs = futures::stream::iter([1, 2, 3]);
    /// # use futures::StreamExt;
    /// # guard.cancel_with("enough");
    /// loop {
    ///     tokio::select! {
    ///         why = ctx.done() => {
    ///             println!("stopping: {why}");
    ///             break;
    ///         }
    ///         Some(_job) = jobs.next() => {}
    ///     }
    /// }
    /// # }
    /// ```
    pub fn done(&self) -> Done<'_> {
        Done::new(&self.node)
    }

    /// Like [`done`](Context::done), as a future that holds its context and can be stored or spawned.
    ///
    /// # Panics
    ///
    /// As [`done`](Context::done) does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing and leaves nothing behind.
    pub fn done_owned(&self) -> DoneOwned {
        DoneOwned::new(self.clone())
    }

    /// Runs `future` until it is ready or the context ends, whichever is first; in the second case `future` is dropped.
    ///
    /// It is how a call that knows nothing of contexts gets a deadline. A context that has ended never polls `future`;
    /// if both are ready in one poll, the output wins.
    ///
    /// # Errors
    ///
    /// The [`ContextError`], if the context ended first.
    ///
    /// # Panics
    ///
    /// As [`done`](Context::done) does; and when it is polled after it resolved.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future drops `future`; no more is lost than that loses. The same happens when the context ends: give it
    /// only what may be dropped at an await.
    pub fn run<F: Future>(&self, future: F) -> Run<'_, F> {
        Run::new(&self.node, future)
    }

    /// Waits for `duration`, or less if the context ends.
    ///
    /// # Errors
    ///
    /// The [`ContextError`], if the context ended first.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one without a timer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn sleep(&self, duration: Duration) -> Result<(), ContextError> {
        self.run(tokio::time::sleep(duration)).await
    }

    /// Runs `func` once, in a task of its own, when the context ends; at once if it has ended.
    ///
    /// It is for what can be interrupted but not dropped: a query with an interrupt handle, a child process.
    /// [`AfterFunc::stop`] prevents the run; dropping the handle does not. The context's handles may all be dropped before:
    /// the task keeps the context. On a context that can never end, `func` never runs.
    ///
    /// An interrupt must not hit what comes after the thing that it interrupts. So keep the
    /// [`guard`](AfterFunc::guard) until that has ended: when it has been dropped, also by an early
    /// return or a panic, `func` will not run any more or has returned. `stop` alone does not wait
    /// for a `func` that is running, and is skipped by an early return.
    ///
    /// `func` may also run just before the thing that it interrupts begins. An interrupt that is
    /// lost then (SQLite's is) has to be repeated, or preceded by a check that cannot be lost.
    ///
    /// ```
    /// # use errgroup::Context;
    /// # use std::sync::Arc;
    /// # struct Connection;
    /// # impl Connection {
    /// #     fn interrupt(&self) {}
    /// #     fn query(&self) -> Result<u64, String> { Ok(7) }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), String> {
    /// # let (ctx, _stop) = Context::background().with_cancel();
    /// # let connection = Arc::new(Connection);
    /// let handle = Arc::clone(&connection);
    /// let interrupt = ctx.after_func(move || handle.interrupt()).guard();
    /// let answer = connection.query()?; // disarmed by the `?`, too
    /// drop(interrupt);
    /// // The next query of this connection is not interrupted.
    /// # assert_eq!(answer, 7);
    /// # Ok(()) }
    /// ```
    ///
    /// If `func` panics, only its task does. If the runtime shuts down before the context ends, `func` never runs.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, if the context can end.
    pub fn after_func(&self, func: impl FnOnce() + Send + 'static) -> AfterFunc {
        AfterFunc::register(self, func)
    }
}

/// For the crate.
impl Context {
    /// Has this context's end, whoever ends it, say when it was.
    pub(crate) fn record_end_time(&self) {
        self.node.record_end_time();
    }

    /// When the context ended; `None` if it has not, or if nobody had asked for its ends to be timed by then.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.node.ended_at()
    }

    /// Wakes `waker` when the context is cancelled. Returns false, and drops the waker, if the context
    /// is done already.
    ///
    /// A deadline that passes wakes nothing. The waker is kept for as long as the context exists.
    pub(crate) fn wake_on_cancel(&self, waker: Waker) -> bool {
        if self.node.never_ends() {
            return true;
        }
        self.node.link();
        self.node.subscribe(Listener::Waker(waker)).is_ok()
    }
}

impl Default for Context {
    /// [`Context::background`].
    fn default() -> Context {
        Context::background()
    }
}

impl AsRef<Context> for Context {
    fn as_ref(&self) -> &Context {
        self
    }
}
