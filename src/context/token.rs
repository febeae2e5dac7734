//! Both ways between [`Context`] and `CancellationToken`. Feature `tokio-util`.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Wake};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Context;
use super::cause::{Cause, Note};
use super::node::Node;
use crate::sync::{Arc, Mutex, Weak};

static TOKEN_CANCELLED: Note = Note("the context's CancellationToken was cancelled");

/// Ends a node when it is woken: how a token tells a context without a task in between.
struct EndOnWake(Weak<Node>);

impl Wake for EndOnWake {
    fn wake(self: std::sync::Arc<Self>) {
        if let Some(node) = self.0.upgrade() {
            node.cancel(Some(Cause::note(&TOKEN_CANCELLED)));
        }
    }
}

/// The place in the token's list of waiters; dropped with the node.
type Registration = Mutex<Pin<Box<WaitForCancellationFutureOwned>>>;

impl Context {
    /// A token that is cancelled when this context ends, for the crates that take one.
    ///
    /// Cancelling the token does nothing to the context. The token may outlive every handle of the context.
    ///
    /// A context without a deadline tells the token itself, at the moment of its end, and needs no runtime for this. One
    /// with a deadline, or one that was [merged](Context::merge), owns a task for it, which runs until the context ends
    /// or the token is cancelled.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, for a context that has a deadline or was merged.
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
    #[must_use]
    pub fn to_cancellation_token(&self) -> CancellationToken {
        if self.node.is_endless() {
            return CancellationToken::new();
        }
        if self.node.ends_only_by_cancel() {
            // A child: whoever cancels what they were given does not cancel what others were given.
            return self.node.token().child_token();
        }
        let token = CancellationToken::new();
        if self.is_done() {
            token.cancel();
            return token;
        }
        let (ctx, theirs) = (self.clone(), token.clone());
        tokio::spawn(async move {
            let cancelled = theirs.cancelled();
            // Either way there is nothing left to do but to cancel.
            let _ = ctx.run(cancelled).await;
            theirs.cancel();
        });
        token
    }

    /// A context that ends when `token` is cancelled, with a cause that says so.
    ///
    /// When `token.cancel()` returns, the context has ended. It needs no runtime and no task.
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
    #[must_use]
    pub fn from_cancellation_token(token: CancellationToken) -> Context {
        let node = Context::background()
            .node
            .with_external("FromCancellationToken");
        // Polled once: that enters the waker, and nothing more is wanted of it. The token keeps what is registered until
        // the future is dropped, so the node keeps the future.
        let waker = task::Waker::from(Arc::new(EndOnWake(Arc::downgrade(&node))));
        let mut cancelled = Box::pin(token.cancelled_owned());
        match cancelled
            .as_mut()
            .poll(&mut task::Context::from_waker(&waker))
        {
            Poll::Ready(()) => node.cancel(Some(Cause::note(&TOKEN_CANCELLED))),
            Poll::Pending => node.tether(Box::new(Registration::new(cancelled))),
        }
        Context { node }
    }
}
