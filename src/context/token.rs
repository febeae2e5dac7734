//! Both ways between [`Context`] and `CancellationToken`. Feature `tokio-util`.

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

/// Ends a node when it is woken: how a token tells a context without a task in between.
struct EndOnWake(Weak<Node>);

impl Wake for EndOnWake {
    fn wake(self: std::sync::Arc<Self>) {
        let Some(node) = self.0.upgrade() else { return };
        node.cancel_alone(Some(Cause::from_static(&TOKEN_CANCELLED)));
        match Deferred::begin() {
            Ok(deferred) => {
                deferred.add(node);
                // A panic would keep the token from waking what else waits for it: contexts further
                // down, too.
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

/// The place in the token's list of waiters; dropped with the node.
type Registration = Mutex<Pin<Box<WaitForCancellationFutureOwned>>>;

pin_project! {
    /// Cancels a token at a deadline; ends when the token has been cancelled. It holds nothing
    /// else: there may be one for each call of a server.
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
    /// A token that is cancelled when this context ends, for the crates that take one.
    ///
    /// Cancelling the token does nothing to the context. The token may outlive every handle of the
    /// context, and keeps none of its values alive.
    ///
    /// A context without a deadline cancels the token itself, at the moment of its end, and needs
    /// no runtime for this. For a context with a deadline a task waits for that.
    ///
    /// # What stays
    ///
    /// - The task of a token with a deadline stays until the deadline passes or the token is
    ///   cancelled, also when every handle of the context and of the token has been dropped: a
    ///   token does not say when it is dropped. The task holds a timer and the token, some 600
    ///   bytes, and not the context. A token that is needed for a moment only should be cancelled
    ///   after that, for example by its `drop_guard`.
    /// - Nothing stays of a token without a deadline.
    /// - When every handle of a [merged](Context::merge) context and of its descendants has been
    ///   dropped, the other context that it was merged with does not cancel the token any more.
    ///   Keep the merged context for as long as its token is used. In the same way, the token of a
    ///   context [that a signal ends](Context::with_signals) needs that context.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or in one without a timer, for a context that has a deadline.
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
    #[must_use]
    pub fn to_cancellation_token(&self) -> CancellationToken {
        if self.node.never_ends() {
            return CancellationToken::new();
        }
        // A child: cancelling one caller's token does not cancel the tokens of other callers.
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

    /// A context that ends when `token` is cancelled, with a cause that says so.
    ///
    /// When `token.cancel()` returns, the context has ended, and all its descendants. It needs no
    /// runtime and no task.
    ///
    /// Contexts and tokens may be bridged one behind another in any number: cancelling and dropping
    /// them does not recurse. If a waker that is called by such a cancel cancels another token, the
    /// context of that has ended when it returns, and its descendants when the outer cancel
    /// returns.
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
    #[must_use]
    pub fn from_cancellation_token(token: CancellationToken) -> Context {
        let node = Context::background().node.with_source(token.clone());
        // Polled once: that enters the waker, and nothing more is wanted of it. The token keeps what is registered until
        // the future is dropped, so the node keeps the future.
        let waker = task::Waker::from(Arc::new(EndOnWake(Arc::downgrade(&node))));
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
