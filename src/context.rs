//! The public type of the context tree: a handle on a node.

mod after_func;
mod cause;
mod deadline;
#[cfg(feature = "tokio-util")]
mod deferred;
mod display;
mod done;
mod error;
mod find;
mod guard;
mod listeners;
mod node;
mod owned;
#[cfg(feature = "signal")]
mod signal;
#[cfg(feature = "tokio-util")]
mod token;

pub use after_func::{AfterFunc, AfterFuncGuard};
pub use cause::Cause;
pub(crate) use cause::StaticCause;
pub(crate) use deadline::deadline_after;
#[cfg(feature = "tower")]
pub(crate) use done::EndWatch;
pub(crate) use done::RunOwned;
pub use done::{Done, DoneOwned, Run};
pub use error::ContextError;
pub(crate) use find::is_searching;
pub use guard::{CancelGuard, CancelHandle};
pub(crate) use owned::OwnedContext;

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{Arc, Shared, Weak};
use listeners::Listener;
pub(crate) use listeners::{CancelObserver, ListenerKey};
use node::{Kind, Node};

/// Carries cancellation with its cause, a deadline and request-scoped values to everything that is
/// called below it.
///
/// A context is a handle on a node of a tree. It is one pointer and cheap to clone; a clone is the
/// same context. Deriving a child takes one or two allocations and, except for
/// [`merge`](Context::merge), no lock. Every method takes `&self` and may be called from any
/// thread, in or outside a runtime, unless it says otherwise.
///
/// ```text
///   background ── with_shutdown_signals ──┬── with_timeout(2 s) ── with_value(RequestId)
///                                         └── with_timeout(5 s) ── Group::with_context
///        cancellation and deadlines go this way  ───────────────────────►
///        values are looked up this way  ◄──────────────────────────────────
/// ```
///
/// # When a context is done
///
/// A context is *done* when it was cancelled (by its [`CancelGuard`] or a [`CancelHandle`]), when
/// its deadline has passed, or when its parent is done. It stays done. The first of these decides
/// whether the error is "cancelled" or "deadline exceeded", and the cause. A later one changes
/// nothing.
///
/// When `cancel` returns, every descendant is done, with the same kind and cause, except for those
/// that were done before. While it runs, one descendant may be done and another not. A parent is
/// done before its children. A child never cancels its parent or its siblings. A context from
/// [`without_cancel`](Context::without_cancel) is not cancelled with its parent.
///
/// # Deadlines
///
/// A deadline is an instant that is compared with the clock when the context is checked. A timer
/// exists only inside a future that waits. So a context with a deadline needs no runtime until it
/// is awaited, and it obeys tokio's paused clock. A deadline passes for every descendant at once. A
/// cancel that comes after it does not turn `DeadlineExceeded` into `Cancelled`, even if the
/// deadline has not been observed before.
///
/// # Differences from similar types
///
/// `CancellationToken` of tokio-util has cancellation alone. A `Context` adds the deadline, the
/// cause and the values, and is cancelled when its guard is dropped. The model is Go's
/// `context.Context`. Two things cannot be forgotten here as they can in Go: there is no `cancel`
/// function to lose, and a deadline has nothing to release.
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
#[doc(alias("CancellationToken", "AbortSignal", "context.Context"))]
#[derive(Clone)]
pub struct Context {
    node: Arc<Node>,
}

/// Roots.
impl Context {
    /// Returns the root: a context that is never done and has no deadline and no values.
    ///
    /// Use it in `main`, in tests and where a server starts. Only the first call allocates.
    #[must_use]
    pub fn background() -> Context {
        static BACKGROUND: Shared<Context> = Shared::new();
        BACKGROUND.get(|| Context::root(Kind::Background))
    }

    /// Returns a root like [`background`](Context::background), for code that has no context to
    /// pass on yet.
    ///
    /// It behaves the same. Only the name differs, so that a text search finds these places.
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
    /// Returns a child that can be cancelled, and the guard that cancels it when dropped.
    ///
    /// Keep the guard in a variable with a name: `let (ctx, _) = parent.with_cancel()` drops it at
    /// once, so the child is cancelled from the start. See [`CancelGuard`].
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
    #[doc(alias(
        "WithCancel",
        "WithCancelCause",
        "child_token",
        "drop_guard",
        "CancelScope",
        "AbortController",
    ))]
    pub fn with_cancel(&self) -> (Context, CancelGuard) {
        let node = self.node.with_cancel();
        let guard = CancelGuard::new(node.clone());
        (Context { node }, guard)
    }

    /// Returns a child with a deadline after `timeout`, or at its parent's deadline if that is
    /// earlier.
    ///
    /// There is no guard, since there is nothing to release. With a timeout of zero the child is
    /// done at once. `Duration::MAX` saturates to an instant some thirty years from now.
    #[doc(alias(
        "WithTimeout",
        "move_on_after",
        "fail_after",
        "withTimeout",
        "AbortSignal.timeout",
    ))]
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Context {
        let at = deadline_after(Instant::now(), timeout);
        self.until(at, None, || timeout.is_zero())
    }

    /// Returns a child with a deadline after `timeout`, or at its parent's deadline if that is
    /// earlier, and with a cause.
    ///
    /// [`cause`](Context::cause) returns the cause if *this* deadline passes, and not if an earlier
    /// one from above does. With a timeout of zero the child is done at once. `Duration::MAX`
    /// saturates to an instant some thirty years from now.
    #[doc(alias = "WithTimeoutCause")]
    #[must_use]
    pub fn with_timeout_cause(&self, timeout: Duration, cause: impl Into<Cause>) -> Context {
        let at = deadline_after(Instant::now(), timeout);
        self.until(at, Some(cause.into()), || timeout.is_zero())
    }

    /// Returns a child with the deadline `deadline`, or with its parent's deadline if that is
    /// earlier.
    ///
    /// If the instant is in the past, the child is done at once.
    #[doc(alias("WithDeadline", "timeout_at", "move_on_at"))]
    #[must_use]
    pub fn with_deadline(&self, deadline: impl Into<Instant>) -> Context {
        let at = deadline.into();
        self.until(at, None, || at <= Instant::now())
    }

    /// Returns a child with the deadline `deadline`, or with its parent's deadline if that is
    /// earlier, and with a cause.
    ///
    /// [`cause`](Context::cause) returns the cause if *this* deadline passes, and not if an earlier
    /// one from above does. If the instant is in the past, the child is done at once.
    #[doc(alias = "WithDeadlineCause")]
    #[must_use]
    pub fn with_deadline_cause(
        &self,
        deadline: impl Into<Instant>,
        cause: impl Into<Cause>,
    ) -> Context {
        let at = deadline.into();
        self.until(at, Some(cause.into()), || at <= Instant::now())
    }

    /// Returns a child with the deadline `at`. `has_passed` returns true if `at` is in the past.
    fn until(
        &self,
        at: Instant,
        cause: Option<Cause>,
        has_passed: impl FnOnce() -> bool,
    ) -> Context {
        let node = self.node.with_deadline(at, cause, has_passed);
        Context { node }
    }

    /// Returns a child that carries one value, which is looked up by its type.
    ///
    /// Wrap the value in a type that is private to your crate, so that it cannot collide with the
    /// values of other crates. Values are for data that belongs to a request and crosses interfaces
    /// (its id, its user, a trace), not for optional arguments.
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
    #[doc(alias(
        "WithValue",
        "task_local",
        "TaskLocal",
        "ScopedValue",
        "ContextVar",
        "AsyncLocalStorage",
    ))]
    #[must_use]
    pub fn with_value<T: Send + Sync + 'static>(&self, value: T) -> Context {
        let node = self.node.with_value(Box::new(value));
        Context { node }
    }

    /// Returns a context with the same values that is not done when `self` is, and has no deadline.
    ///
    /// It is for work that must continue after the request that started it was cancelled. For
    /// clean-up, which should not take for ever, use [`shield`](Context::shield).
    #[doc(alias("WithoutCancel", "NonCancellable"))]
    #[must_use]
    pub fn without_cancel(&self) -> Context {
        let node = self.node.without_cancel();
        Context { node }
    }

    /// Returns a context with the same values that is not done when `self` is, and is done after
    /// `max`.
    ///
    /// It is for clean-up that must finish although the work before it was cancelled: rolling a
    /// transaction back, giving a lease back, telling a peer. It is
    /// `ctx.without_cancel().with_timeout(max)`, so the clean-up has its own deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, ContextError};
    /// use std::time::Duration;
    ///
    /// # async fn transfer(ctx: &Context) -> Result<(), ContextError> { ctx.check() }
    /// # async fn roll_back(ctx: &Context) -> Result<(), ContextError> { ctx.check() }
    /// async fn pay(ctx: &Context) -> Result<(), ContextError> {
    ///     let paid = transfer(ctx).await;
    ///     if paid.is_err() {
    ///         // `ctx` may be done, but the roll-back needs it to be live.
    ///         roll_back(&ctx.shield(Duration::from_secs(5))).await?;
    ///     }
    ///     paid
    /// }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// # let (ctx, guard) = Context::background().with_cancel();
    /// # guard.cancel();
    /// # assert!(pay(&ctx).await.is_err());
    /// # }
    /// ```
    #[doc(alias("CancelScope", "NonCancellable", "asyncio.shield"))]
    #[must_use]
    pub fn shield(&self, max: Duration) -> Context {
        self.without_cancel().with_timeout(max)
    }

    /// Returns a context with the values of `self` that is done when either of the two is done.
    ///
    /// It takes the kind and the cause from the one that is done first, and has the earlier of the
    /// two deadlines. If both are done already, it takes them from `self`. It is for work that must
    /// stop when either of two contexts is done, such as the context of a request and the context
    /// of a server that shuts down.
    #[doc(alias = "AbortSignal.any")]
    #[must_use]
    pub fn merge(&self, other: &Context) -> Context {
        let node = self.node.merge(&other.node);
        Context { node }
    }
}

/// Checking, without waiting.
impl Context {
    /// Returns true if the context was cancelled or its deadline has passed.
    #[doc(alias("is_cancelled", "isCancelled"))]
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.node.is_done()
    }

    /// Returns the error of the context if it is done, and `None` otherwise.
    #[inline]
    #[must_use]
    pub fn err(&self) -> Option<ContextError> {
        self.node.err()
    }

    /// Returns an error if the context is done. Call `ctx.check()?` in a loop that computes.
    ///
    /// # Errors
    ///
    /// Returns the [`ContextError`] of a context that is done.
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
    #[doc(alias("checkCancellation", "ensureActive", "throwIfAborted", "checkpoint"))]
    #[inline]
    pub fn check(&self) -> Result<(), ContextError> {
        self.node.err().map_or(Ok(()), Err)
    }

    /// Returns the cause with which the context was cancelled, or the cause of its deadline. `None`
    /// if the context is not done.
    ///
    /// For a cancel or a deadline without a cause of its own, the cause is the [`ContextError`]
    /// itself, as in Go: its text is `context cancelled` or `context deadline exceeded`.
    /// [`ContextError::cause`] returns `None` in that case.
    #[doc(alias = "context.Cause")]
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        let error = self.err()?;
        Some(error.cause().cloned().unwrap_or_else(|| error.into()))
    }

    /// Returns true if the context is done, and its [`cause`](Context::cause) or an error in the
    /// cause's `source()` chain is a `T`.
    ///
    /// It is what `errors.As(context.Cause(ctx), &target)` is in Go. An error inside an
    /// [`io::Error`](std::io::Error), and one that [`Cause::into_error`] has returned, is found
    /// too.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::Context;
    /// use std::io;
    ///
    /// let (ctx, guard) = Context::background().with_cancel();
    /// guard.cancel_with(io::Error::other("disk full"));
    /// assert!(ctx.caused_by::<io::Error>());
    /// assert!(!ctx.caused_by::<std::fmt::Error>());
    /// ```
    #[doc(alias("errors.As", "errors.Is"))]
    #[must_use]
    pub fn caused_by<T: std::error::Error + 'static>(&self) -> bool {
        self.err().is_some_and(|error| match error.cause() {
            Some(cause) => cause.is_or_contains::<T>(),
            None => std::any::TypeId::of::<T>() == std::any::TypeId::of::<ContextError>(),
        })
    }

    /// Returns the deadline: the earliest one from here to the root.
    ///
    /// It returns the same after the context is done.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.node.deadline()
    }

    /// Returns the time until the deadline, or zero if the context is done, also if it was
    /// cancelled before the deadline. `None` if there is no deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.node.deadline()?;
        if self.is_done() {
            return Some(Duration::ZERO);
        }
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Returns the nearest value of type `T` on the way to the root.
    ///
    /// The lookup takes one step per ancestor.
    #[must_use]
    pub fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let mut node = Some(&self.node);
        while let Some(current) = node {
            if let Kind::WithValue(value) = current.kind() {
                // Through the box: the `Box` itself implements `AnyValue`, too.
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
    /// Waits until the context is done, and returns its error.
    ///
    /// The future of a context that can never be done never resolves. If the context has a
    /// deadline, awaiting the future needs a tokio runtime with its timer enabled, and the future
    /// holds a timer.
    ///
    /// # Panics
    ///
    /// Panics when polled outside a tokio runtime, or in one without a timer, if the context has a
    /// deadline.
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
    #[doc(alias = "cancelled")]
    pub fn done(&self) -> Done<'_> {
        Done::new(&self.node)
    }

    /// Waits until the context is done, and returns its error. The future owns its context, so it
    /// can be stored or spawned.
    ///
    /// The future of a context that can never be done never resolves. If the context has a
    /// deadline, awaiting the future needs a tokio runtime with its timer enabled, and the future
    /// holds a timer.
    ///
    /// # Panics
    ///
    /// Panics when polled outside a tokio runtime, or in one without a timer, if the context has a
    /// deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing and leaves nothing behind.
    #[doc(alias = "cancelled_owned")]
    pub fn done_owned(&self) -> DoneOwned {
        DoneOwned::new(self.clone())
    }

    /// Waits until the context is done, and returns nothing. The future owns its context.
    ///
    /// It is [`done_owned`](Context::done_owned) for an API that takes a future without a value:
    /// `axum::serve(..).with_graceful_shutdown(ctx.until_done())`.
    ///
    /// # Panics
    ///
    /// Panics when polled outside a tokio runtime, or in one without a timer, if the context has a
    /// deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing and leaves nothing behind.
    pub fn until_done(&self) -> impl Future<Output = ()> + Send + use<> {
        let done = self.done_owned();
        async move {
            done.await;
        }
    }

    /// Runs `future` until it is ready, or drops it when the context is done.
    ///
    /// Use it to give a deadline to a call that takes no context. If the context is done at
    /// the first poll, `future` is never polled. If both are ready in one later poll, the output
    /// wins.
    ///
    /// # Errors
    ///
    /// Returns the [`ContextError`] if the context is done before `future` is ready.
    ///
    /// # Panics
    ///
    /// Panics when polled outside a tokio runtime, or in one without a timer, if the context has a
    /// deadline. Panics when polled after it resolved.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future drops `future`, and loses no more than that loses. The same happens
    /// when the context is done: only pass futures that may be dropped at an await.
    #[doc(alias("run_until_cancelled", "timeout"))]
    pub fn run<F: Future>(&self, future: F) -> Run<'_, F> {
        Run::new(&self.node, future)
    }

    /// Waits for `duration`, or until the context is done.
    ///
    /// # Errors
    ///
    /// Returns the [`ContextError`] if the context is done first.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, or in one without a timer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn sleep(&self, duration: Duration) -> Result<(), ContextError> {
        self.run(tokio::time::sleep(duration)).await
    }

    /// Runs `func` once, in a task of its own, when the context is done. If it is done already, the
    /// task runs `func` at once.
    ///
    /// It is for work that can be interrupted but not dropped: a query with an interrupt handle, a
    /// child process. [`AfterFunc::stop`] prevents the run; dropping the handle does not. The task
    /// keeps the context, so all other handles of the context may be dropped. If the context can
    /// never be done, `func` never runs. If the runtime shuts down before the context is done,
    /// `func` never runs either. If `func` panics, only its task panics.
    ///
    /// A late interrupt must not affect the next piece of work. So keep the
    /// [`guard`](AfterFunc::guard) until that work has ended. When the guard has been dropped, also
    /// by an early return or a panic, `func` either has returned or never runs. `stop` alone does
    /// not wait for a `func` that is running, and an early return skips it.
    ///
    /// `func` may also run just before the work that it interrupts begins. If such an interrupt is
    /// lost (SQLite loses it), repeat it, or call [`check`](Context::check) inside the work, for
    /// example in SQLite's progress handler.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, if the context can be done. If the context has a deadline
    /// and the runtime has no timer, the task panics, and `func` never runs.
    ///
    /// # Examples
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
    #[doc(alias("AfterFunc", "withTaskCancellationHandler"))]
    pub fn after_func(&self, func: impl FnOnce() + Send + 'static) -> AfterFunc {
        AfterFunc::register(self, func)
    }
}

/// For the crate.
impl Context {
    /// Returns a child for [`end_with`](Context::end_with) to cancel. If there is a `deadline`, the
    /// child has it or its parent's, if that is earlier.
    ///
    /// It is one node. Deriving a child with a deadline and one with a guard would make two.
    #[cfg(feature = "tower")]
    pub(crate) fn with_end(
        &self,
        deadline: Option<(Instant, Cause)>,
        has_passed: impl FnOnce() -> bool,
    ) -> Context {
        let node = match deadline {
            Some((at, cause)) => self.node.with_deadline(at, Some(cause), has_passed),
            None => self.node.with_cancel(),
        };
        Context { node }
    }

    /// Cancels the context, without an event for `tracing`.
    #[cfg(feature = "tower")]
    pub(crate) fn end_with(&self, cause: Cause) {
        self.node.cancel(Some(cause));
    }

    /// Cancels the context, without an event for `tracing`, unless this is its only handle and
    /// nothing waits for its end. Then nothing can observe the end, and it is not worth its cost.
    #[cfg(feature = "tower")]
    pub(crate) fn end_if_shared(&mut self, cause: impl FnOnce() -> Cause) {
        if !Node::is_sole_owner(&mut self.node) {
            self.node.cancel(Some(cause()));
        }
    }

    /// Returns true if the context was cancelled, or if its deadline has been observed to pass.
    /// Reads no clock, unlike `is_done`.
    pub(crate) fn has_ended(&self) -> bool {
        self.node.has_ended()
    }

    /// From now on, the instant at which this context is done is recorded, for `ended_at`.
    pub(crate) fn record_end_time(&self) {
        self.node.record_end_time();
    }

    /// Returns the instant at which the context was cancelled or its deadline passed. `None` if it
    /// is not done, or if `record_end_time` had not been called by then and nothing else had made
    /// the end record its instant.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.node.ended_at()
    }

    /// Returns the end of the context, if it is done, as the registry has it. Runs user code, so it
    /// must be called without a lock.
    #[cfg(feature = "inspect")]
    pub(crate) fn end_in_registry(&self) -> Option<crate::registry::End> {
        let error = self.err()?;
        let cause = match error.cause() {
            Some(cause) => crate::registry::text(cause),
            None => crate::registry::text(&error),
        };
        let at = self.ended_at();
        Some(crate::registry::End { cause, at })
    }

    /// Notifies `observer` when the context is cancelled. Returns false if the node is latched
    /// already.
    ///
    /// A deadline that passes notifies nothing. The observer is kept until the context is cancelled
    /// or dropped, or until `forget_observer` is called with the same key.
    pub(crate) fn observe_cancel(
        &self,
        observer: Weak<dyn CancelObserver>,
        key: &ListenerKey,
    ) -> bool {
        if self.node.never_ends() {
            return true;
        }
        self.node.link();
        let subscribed = self.node.subscribe(Listener::Observer(observer));
        subscribed.map(|it| key.set(it)).is_ok()
    }

    /// Removes the observer that was registered under `key`, if there is one.
    pub(crate) fn forget_observer(&self, key: &ListenerKey) {
        if let Some(key) = key.take() {
            self.node.unsubscribe(key);
        }
    }

    /// Returns true if another handle exists than `own` ones of the caller, or if something waits
    /// for the end. If not, nothing can observe the end, and it is not worth its cost.
    pub(crate) fn is_seen_beside(&self, own: usize) -> bool {
        self.node.is_seen_beside(own)
    }
}

impl Default for Context {
    /// Returns [`Context::background`].
    fn default() -> Context {
        Context::background()
    }
}

impl AsRef<Context> for Context {
    fn as_ref(&self) -> &Context {
        self
    }
}

#[cfg(all(feature = "inspect", feature = "tower"))]
impl crate::registry::HandlerContext for Context {
    fn end(&self) -> Option<crate::registry::End> {
        self.end_in_registry()
    }
}
