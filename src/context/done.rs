//! Futures that wait until a context is done.
//!
//! All of them take part in tokio's cooperative budget. A future whose context is done at its first
//! poll takes a unit of the budget, so a loop that ignores the error of such a context yields to
//! the other tasks. A future that has waited takes nothing: it sees the end even in a poll in which
//! another future has used up the budget.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
#[cfg(feature = "tower")]
use std::task::Waker;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Sleep;

use super::Context;
use super::error::ContextError;
use super::listeners::Listener;
use super::node::Node;
use crate::sync::Arc;

/// A listener of a node, and the timer for its deadline. Every future in this file contains one.
///
/// It must be released with the node that it was polled with.
pub(crate) struct Waiter {
    listener: ListenerState,
    /// Boxed, so that a future that waits for a context without a deadline contains no timer, and
    /// every future stays `Unpin`.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The state of a waiter's listener.
enum ListenerState {
    /// There is no listener.
    None,
    /// There is a listener with this key.
    Registered(usize),
    /// There is no listener. The node was done at the first poll, and the budget was used up, so
    /// the waiter has yielded to the other tasks.
    Yielded,
}

impl Waiter {
    pub(crate) const fn new() -> Waiter {
        Waiter {
            listener: ListenerState::None,
            timer: None,
        }
    }

    /// Resolves when `node` is done. Takes a unit of the budget if that is so at the first poll.
    pub(crate) fn poll_budgeted(
        &mut self,
        node: &Arc<Node>,
        cx: &mut task::Context<'_>,
    ) -> Poll<ContextError> {
        let is_first = matches!(self.listener, ListenerState::None);
        let error = ready!(self.poll(node, cx));
        if is_first {
            ready!(self.take_budget(cx));
        }
        Poll::Ready(error)
    }

    /// Takes a unit of the task's budget. If there is none, returns `Pending` and has the task
    /// woken. That happens only once, so that the waiter makes progress even if a sibling future
    /// uses up the budget in every poll.
    fn take_budget(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        if let ListenerState::Yielded = self.listener {
            return Poll::Ready(());
        }
        match coop::poll_proceed(cx) {
            Poll::Ready(budget) => {
                budget.made_progress();
                Poll::Ready(())
            }
            Poll::Pending => {
                self.listener = ListenerState::Yielded;
                Poll::Pending
            }
        }
    }

    /// Resolves when `node` is done, whatever is left of the budget.
    pub(crate) fn poll(
        &mut self,
        node: &Arc<Node>,
        cx: &mut task::Context<'_>,
    ) -> Poll<ContextError> {
        if let Some(error) = node.err() {
            self.release(node);
            return Poll::Ready(error);
        }
        self.wait(node, cx)
    }

    /// Like `poll`, but reads no clock: a deadline that has passed is seen by the timer.
    ///
    /// No end is missed. The node is linked first and the waker is registered then. If the node is
    /// done by then, the registration fails; an end that comes later finds the listener. A deadline
    /// that passes is not propagated, so there is a timer for it.
    fn wait(&mut self, node: &Arc<Node>, cx: &mut task::Context<'_>) -> Poll<ContextError> {
        if node.never_ends() {
            return Poll::Pending;
        }
        match self.listener {
            ListenerState::Registered(key) => node.resubscribe(key, cx.waker()),
            ListenerState::None | ListenerState::Yielded => {
                node.link();
                match node.subscribe(Listener::Waker(cx.waker().clone())) {
                    Ok(key) => self.listener = ListenerState::Registered(key),
                    // The node was latched since the query above, so this one finds its end.
                    Err(_) => return node.err().map_or(Poll::Pending, Poll::Ready),
                }
            }
        }
        // A cancel since the first query may have taken the listener, or have woken the old waker.
        // It has latched the node, which is linked now. A deadline is left to its timer.
        if node.is_latched() {
            self.release(node);
            return node.err().map_or(Poll::Pending, Poll::Ready);
        }
        if let Some(deadline) = node.deadline() {
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            // Unconstrained: if the budget is used up, a timer is neither read nor armed. The
            // waiter takes its unit elsewhere.
            if pin!(coop::unconstrained(timer)).poll(cx).is_ready() {
                self.release(node);
                return node.expire().map_or(Poll::Pending, Poll::Ready);
            }
        }
        Poll::Pending
    }

    /// Returns true if a cancel of `node` and the timer of its deadline wake `waker`: a poll gives
    /// both the same waker.
    #[cfg(feature = "tower")]
    fn wakes(&self, node: &Node, waker: &Waker) -> bool {
        let has_timer = self.timer.is_some() || node.deadline().is_none();
        has_timer
            && matches!(self.listener, ListenerState::Registered(key) if node.will_wake(key, waker))
    }

    /// Removes the listener from the node, and the timer.
    pub(crate) fn release(&mut self, node: &Node) {
        self.timer = None;
        if let ListenerState::Registered(key) = self.listener {
            self.listener = ListenerState::None;
            node.unsubscribe(key);
        }
    }
}

/// The future that [`Context::done`] returns.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct Done<'a> {
    node: &'a Arc<Node>,
    waiter: Waiter,
}

impl<'a> Done<'a> {
    pub(crate) fn new(node: &'a Arc<Node>) -> Self {
        Done {
            node,
            waiter: Waiter::new(),
        }
    }
}

impl Future for Done<'_> {
    type Output = ContextError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<ContextError> {
        let Done { node, waiter } = &mut *self;
        waiter.poll_budgeted(node, cx)
    }
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.waiter.release(self.node);
    }
}

impl fmt::Debug for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done").finish_non_exhaustive()
    }
}

/// The future that [`Context::done_owned`] returns.
#[must_use = "futures do nothing unless you `.await` or poll them"]
pub struct DoneOwned {
    ctx: Context,
    waiter: Waiter,
}

impl DoneOwned {
    pub(crate) fn new(ctx: Context) -> Self {
        DoneOwned {
            ctx,
            waiter: Waiter::new(),
        }
    }
}

impl Future for DoneOwned {
    type Output = ContextError;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<ContextError> {
        let DoneOwned { ctx, waiter } = &mut *self;
        waiter.poll_budgeted(&ctx.node, cx)
    }
}

impl Drop for DoneOwned {
    fn drop(&mut self) {
        self.waiter.release(&self.ctx.node);
    }
}

impl fmt::Debug for DoneOwned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoneOwned").finish_non_exhaustive()
    }
}

/// A watch for the end of a context that its owner keeps elsewhere.
///
/// It takes no budget, and reads no clock: the owner compares the deadline with the clock before
/// each poll (`tower::exchange`).
#[cfg(feature = "tower")]
pub(crate) struct EndWatch {
    waiter: Waiter,
}

#[cfg(feature = "tower")]
impl EndWatch {
    pub(crate) const fn new() -> EndWatch {
        EndWatch {
            waiter: Waiter::new(),
        }
    }

    /// Resolves when `ctx` is done. Every poll must be of the same context.
    pub(crate) fn poll(&mut self, ctx: &Context, cx: &mut task::Context<'_>) -> Poll<ContextError> {
        if self.waiter.wakes(&ctx.node, cx.waker()) && !ctx.node.is_latched() {
            return Poll::Pending;
        }
        self.waiter.wait(&ctx.node, cx)
    }

    /// Removes the listener from `ctx`. Without this, it stays until `ctx` is done.
    pub(crate) fn release(&mut self, ctx: &Context) {
        self.waiter.release(&ctx.node);
    }
}

/// Polls `future`, and then the end of `node`. Both [`Run`] and [`RunOwned`] consist of this.
fn poll_race<F: Future>(
    mut future: Pin<&mut Option<F>>,
    polled: &mut bool,
    node: &Arc<Node>,
    waiter: &mut Waiter,
    cx: &mut task::Context<'_>,
) -> Poll<Result<F::Output, ContextError>> {
    if !*polled {
        // The future of a context that is done is never polled. In later polls, the future's output
        // wins over an end in the same poll.
        if let Some(error) = node.err() {
            ready!(waiter.take_budget(cx));
            *polled = true;
            future.set(None);
            return Poll::Ready(Err(error));
        }
        *polled = true;
    }
    let Some(running) = future.as_mut().as_pin_mut() else {
        panic!("`Run` polled after it resolved");
    };
    let output = match running.poll(cx) {
        Poll::Ready(output) => Ok(output),
        // Takes no budget: if the future has used it up in this poll, the end must be seen
        // nevertheless.
        Poll::Pending => Err(ready!(waiter.poll(node, cx))),
    };
    // The future is dropped before its caller continues.
    future.set(None);
    Poll::Ready(output)
}

pin_project! {
    /// Runs a future until it is ready or its context is done, like [`Run`], but owns the context.
    pub(crate) struct RunOwned<F> {
        #[pin]
        future: Option<F>,
        done: DoneOwned,
        polled: bool,
    }
}

impl<F> RunOwned<F> {
    pub(crate) fn new(ctx: Context, future: F) -> Self {
        RunOwned {
            future: Some(future),
            done: DoneOwned::new(ctx),
            polled: false,
        }
    }
}

impl<F: Future> Future for RunOwned<F> {
    type Output = Result<F::Output, ContextError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let DoneOwned { ctx, waiter } = this.done;
        poll_race(this.future, this.polled, &ctx.node, waiter, cx)
    }
}

pin_project! {
    /// The future that [`Context::run`] returns.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct Run<'a, F> {
        // `None` after it has resolved.
        #[pin]
        future: Option<F>,
        done: Done<'a>,
        polled: bool,
    }
}

impl<'a, F> Run<'a, F> {
    pub(crate) fn new(node: &'a Arc<Node>, future: F) -> Self {
        Run {
            future: Some(future),
            done: Done::new(node),
            polled: false,
        }
    }
}

impl<F: Future> Future for Run<'_, F> {
    type Output = Result<F::Output, ContextError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Done { node, waiter } = this.done;
        poll_race(this.future, this.polled, node, waiter, cx)
    }
}

impl<F> fmt::Debug for Run<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").finish_non_exhaustive()
    }
}
