//! Conversions between [`Context`] and `CancellationToken`, in both directions. Feature
//! `tokio-util`.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Wake, ready};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Context;
use super::cause::{Cause, StaticCause};
use super::deferred::{Deferred, Propagate};
use super::node::Node;
use crate::panic;
use crate::sync::{Arc, Mutex, Weak};

static TOKEN_CANCELLED: StaticCause = StaticCause("the context's CancellationToken was cancelled");

/// A waker that cancels a node. So a token cancels a context without a task in between.
struct CancelOnWake(Weak<Node>);

impl Wake for CancelOnWake {
    fn wake(self: std::sync::Arc<Self>) {
        let Some(node) = self.0.upgrade() else { return };
        node.cancel_alone(Some(Cause::from_static(&TOKEN_CANCELLED)));
        match Deferred::begin() {
            Ok(deferred) => {
                deferred.add(node);
                // A panic here would keep the token from waking its other waiters, among them
                // contexts further down.
                panic::discard(deferred.propagate_all());
            }
            Err(deferred) => deferred.add(node),
        }
    }
}

impl Propagate for Node {
    fn propagate_deferred(self: Arc<Self>) {
        Node::propagate(&self);
    }
}

/// The registration in the token's list of waiters. Dropped with the node.
type Registration = Mutex<Pin<Box<WaitForCancellationFutureOwned>>>;

pin_project! {
    /// A task that cancels a token at a deadline, and ends when the token has been cancelled. It
    /// holds nothing else, since a server may have one for each call.
    struct CancelAt {
        #[pin]
        timer: Sleep,
        #[pin]
        cancelled: WaitForCancellationFutureOwned,
        token: CancellationToken,
    }
}

impl Future for CancelAt {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.cancelled.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        ready!(this.timer.poll(cx));
        this.token.cancel();
        Poll::Ready(())
    }
}

impl Context {
    /// Returns a token that is cancelled when this context is done, for crates that take a token.
    ///
    /// Cancelling the token does not cancel the context. The token may outlive every handle of the
    /// context, and keeps none of its values alive.
    ///
    /// When a context is cancelled, it cancels the token itself, and needs no runtime for this. If
    /// the context has a deadline, a task waits for the deadline and cancels the token.
    ///
    /// # Resources
    ///
    /// - The task of a token with a deadline stays until the deadline passes or the token is
    ///   cancelled, even if every handle of the context and of the token has been dropped, because
    ///   a token does not report that it is dropped. The task holds a timer and the token, some 600
    ///   bytes, and not the context. If you need a token for a moment only, cancel it afterwards,
    ///   for example with its `drop_guard`.
    /// - Nothing stays of a token without a deadline.
    /// - When every handle of a [merged](Context::merge) context and of its descendants has been
    ///   dropped, the other context that it was merged with no longer cancels the token. Keep the
    ///   merged context for as long as its token is used. The same holds for the token of a context
    ///   [that a signal cancels](Context::with_signals).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, or in one without a timer, if the context has a deadline.
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
    #[must_use]
    pub fn to_cancellation_token(&self) -> CancellationToken {
        if self.node.never_ends() {
            return CancellationToken::new();
        }
        // A child token, so that cancelling one caller's token does not cancel those of other
        // callers.
        let token = self.node.token().child_token();
        if self.is_done() {
            token.cancel();
            return token;
        }
        if let Some(deadline) = self.deadline() {
            tokio::spawn(CancelAt {
                timer: tokio::time::sleep_until(deadline),
                cancelled: token.clone().cancelled_owned(),
                token: token.clone(),
            });
        }
        token
    }

    /// Returns a context that is cancelled when `token` is cancelled, with a cause that says so.
    ///
    /// When the call of `token.cancel()` that cancels the token returns, the context and all its
    /// descendants are done. (If two threads call it, the other call may return before.) The
    /// context needs no runtime and no task.
    ///
    /// Any number of contexts and tokens may be converted one from another in a chain: cancelling
    /// and dropping them does not recurse. If a waker that is called by such a cancel cancels
    /// another token, the context of that token is done when the inner cancel returns, and its
    /// descendants are done when the outer cancel returns.
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
    #[must_use]
    pub fn from_cancellation_token(token: CancellationToken) -> Context {
        let node = Context::background().node.with_source(token.clone());
        // One poll registers the waker, and no other is needed. The token keeps the waker until the
        // future is dropped, so the node keeps the future.
        let waker = task::Waker::from(Arc::new(CancelOnWake(Arc::downgrade(&node))));
        let mut cancelled = Box::pin(token.cancelled_owned());
        match cancelled
            .as_mut()
            .poll(&mut task::Context::from_waker(&waker))
        {
            Poll::Ready(()) => node.cancel(Some(Cause::from_static(&TOKEN_CANCELLED))),
            Poll::Pending => node.keep_alive(Box::new(Registration::new(cancelled))),
        }
        Context { node }
    }
}
