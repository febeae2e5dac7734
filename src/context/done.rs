//! Futures that wait for a context to end.
//!
//! All of them take part in tokio's cooperative budget. A future that finds the end at its first
//! poll costs a unit of it, so a loop that swallows the error of a context which is done yields to
//! the other tasks. A future that has waited costs nothing: it sees the end also in a poll in which
//! something else has used up the budget.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Sleep;

use super::Context;
use super::error::ContextError;
use super::listeners::Listener;
use super::node::Node;
use crate::sync::Arc;

/// One place in a node's list of waiters, and the timer for its deadline: what every future here is made of.
///
/// It must be released with the node that it was polled with.
pub(crate) struct Waiter {
    place: Place,
    /// Boxed, so that waiting for a context without a deadline carries no timer and every future stays `Unpin`.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Where a waiter is in the list of its node.
enum Place {
    Nowhere,
    Entry(usize),
    /// Nowhere. The node had ended by the first poll, and the waiter has yielded to the other tasks
    /// for that.
    Yielded,
}

impl Waiter {
    pub(crate) const fn new() -> Waiter {
        Waiter {
            place: Place::Nowhere,
            timer: None,
        }
    }

    /// Resolves when `node` ends. A unit of the budget is taken if that is so at the first poll.
    fn poll_budgeted(
        &mut self,
        node: &Arc<Node>,
        cx: &mut task::Context<'_>,
    ) -> Poll<ContextError> {
        let is_first = matches!(self.place, Place::Nowhere);
        let error = ready!(self.poll(node, cx));
        if is_first {
            ready!(self.take_budget(cx));
        }
        Poll::Ready(error)
    }

    /// Takes a unit of the task's budget. Pending, with the task woken, if there is none; but only
    /// once, so that this ends also where a sibling future uses up the budget in every poll.
    fn take_budget(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        if let Place::Yielded = self.place {
            return Poll::Ready(());
        }
        match coop::poll_proceed(cx) {
            Poll::Ready(budget) => {
                budget.made_progress();
                Poll::Ready(())
            }
            Poll::Pending => {
                self.place = Place::Yielded;
                Poll::Pending
            }
        }
    }

    /// Resolves when `node` ends, whatever is left of the budget.
    ///
    /// Never misses an end: the node is linked first, then the waker entered, and both fail on a node that has ended; an end
    /// that comes later finds the entry. What is never told, a deadline, is what the timer is for.
    pub(crate) fn poll(
        &mut self,
        node: &Arc<Node>,
        cx: &mut task::Context<'_>,
    ) -> Poll<ContextError> {
        if let Some(error) = node.err() {
            self.release(node);
            return Poll::Ready(error);
        }
        if node.never_ends() {
            return Poll::Pending;
        }
        match self.place {
            Place::Entry(entry) => node.resubscribe(entry, cx.waker()),
            Place::Nowhere | Place::Yielded => {
                node.link();
                match node.subscribe(Listener::Waker(cx.waker().clone())) {
                    Ok(entry) => self.place = Place::Entry(entry),
                    // It ended since, and says so when asked.
                    Err(_) => return node.err().map_or(Poll::Pending, Poll::Ready),
                }
            }
        }
        // An end between `err` above and here may have taken the entry, or found the old waker in it.
        if let Some(error) = node.err() {
            self.release(node);
            return Poll::Ready(error);
        }
        if let Some(deadline) = node.deadline() {
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            // Unconstrained: without budget a timer is neither asked nor set, and this is not what
            // the budget is for.
            if pin!(coop::unconstrained(timer)).poll(cx).is_ready() {
                self.release(node);
                return node.expire().map_or(Poll::Pending, Poll::Ready);
            }
        }
        Poll::Pending
    }

    /// Leaves nothing behind at the node.
    pub(crate) fn release(&mut self, node: &Node) {
        self.timer = None;
        if let Place::Entry(entry) = self.place {
            self.place = Place::Nowhere;
            node.unsubscribe(entry);
        }
    }
}

/// Future returned by [`Context::done`].
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

/// Future returned by [`Context::done_owned`].
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

/// A future against the end of `node`: the whole of [`Run`] and [`RunOwned`].
fn poll_race<F: Future>(
    mut future: Pin<&mut Option<F>>,
    polled: &mut bool,
    node: &Arc<Node>,
    waiter: &mut Waiter,
    cx: &mut task::Context<'_>,
) -> Poll<Result<F::Output, ContextError>> {
    if !*polled {
        // An ended context never polls the future; later, the future's output wins over an end in the same poll.
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
        // Free, also where the future has used up the budget in this poll: the end would not be
        // seen otherwise.
        Poll::Pending => Err(ready!(waiter.poll(node, cx))),
    };
    // The future is gone by the time its caller goes on.
    future.set(None);
    Poll::Ready(output)
}

pin_project! {
    /// Like [`Run`], with a context of its own.
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
    /// Future returned by [`Context::run`].
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct Run<'a, F> {
        // `None` once it has resolved.
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
