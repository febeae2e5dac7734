//! Cancelling tokens without recursion. Feature `tokio-util`.

use std::cell::RefCell;
use std::collections::VecDeque;

use tokio_util::sync::CancellationToken;

use crate::panic::{self, Payload};
use crate::sync::{Arc, thread_static};

/// A node that is done and has not yet propagated that.
pub(super) trait Propagate: Send + Sync {
    fn propagate_deferred(self: Arc<Self>);
}

/// Cancels the token of a context that has ended.
///
/// The contexts that the token ends are told when it has woken all that wait for it: a panic of a
/// waker keeps none of them from its end.
pub(super) fn cancel(token: &CancellationToken) {
    let Ok(deferred) = Deferred::begin() else {
        token.cancel();
        return;
    };
    let cancelled = panic::catch(|| token.cancel());
    if let Err(payload) = panic::first(cancelled, deferred.propagate_all().map_or(Ok(()), Err)) {
        panic::resume(payload);
    }
}

// `None` while this thread does not tell what is below a context that a token has ended.
thread_static! {
    static NODES: RefCell<Option<VecDeque<Arc<dyn Propagate>>>> = RefCell::new(None);
}

/// The contexts that tokens have ended in this thread, and below which nothing has been told yet.
///
/// That is done by the outermost call: contexts and tokens that are bridged one behind another
/// would overflow the stack otherwise.
pub(super) struct Deferred;

impl Deferred {
    /// The thread's list. `Ok` for the outermost call, which has to `tell`.
    pub(super) fn begin() -> Result<Deferred, Deferred> {
        let outermost = Deferred::with(|nodes| match nodes {
            Some(_) => Err(Deferred),
            None => {
                *nodes = Some(VecDeque::new());
                Ok(Deferred)
            }
        });
        outermost.unwrap_or(Ok(Deferred))
    }

    pub(super) fn add(&self, node: Arc<dyn Propagate>) {
        let added = Deferred::with(|nodes| nodes.get_or_insert_default().push_back(node.clone()));
        if added.is_none() {
            node.propagate_deferred();
        }
    }

    /// The next one. After the last, the list ends.
    fn next(&self) -> Option<Arc<dyn Propagate>> {
        Deferred::with(|nodes| {
            let next = nodes.as_mut().and_then(VecDeque::pop_front);
            if next.is_none() {
                *nodes = None;
            }
            next
        })?
    }

    /// `None` in a thread that ends and has no list any more. It recurses.
    fn with<T>(list: impl FnOnce(&mut Option<VecDeque<Arc<dyn Propagate>>>) -> T) -> Option<T> {
        NODES.try_with(|nodes| list(&mut nodes.borrow_mut())).ok()
    }

    /// Tells what is below each of the nodes, those included that are ended meanwhile. Gives the
    /// first panic of a waker.
    pub(super) fn propagate_all(self) -> Option<Payload> {
        let mut first = None;
        // Ends: a token wakes a node once.
        while let Some(node) = self.next() {
            // With the node, values may be dropped: user code, as wakers are.
            let told = panic::catch(|| node.propagate_deferred());
            match told {
                Err(payload) if first.is_none() => first = Some(payload),
                Err(payload) => panic::discard(payload),
                Ok(()) => {}
            }
        }
        first
    }
}
