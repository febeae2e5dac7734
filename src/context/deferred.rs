//! Cancelling tokens without recursion. Feature `tokio-util`.
//!
//! A node cancels its token, the token wakes the nodes that were made from it, and each of them
//! cancels its own token. A chain of contexts and tokens would overflow the stack if each step ran
//! inside the one before. So the outermost step keeps a list, in a thread-local, and runs the
//! others in a loop.

use std::cell::RefCell;
use std::collections::VecDeque;

use tokio_util::sync::CancellationToken;

use crate::panic::{self, Payload};
use crate::sync::{Arc, thread_static};

/// A latched node that has not yet propagated its end.
pub(super) trait Propagate: Send + Sync {
    /// Propagates the end to the nodes below.
    fn propagate_deferred(self: Arc<Self>);
}

/// Cancels the token of a context that is done.
///
/// The contexts that the token cancels propagate only after the token has woken all its waiters. So
/// a waker that panics in one of them keeps no other context from being cancelled. (A waker that
/// waits on the token itself may keep the token from waking the others: see tokio-util.)
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

// `None` while no call in this thread has begun a list.
thread_static! {
    static NODES: RefCell<Option<VecDeque<Arc<dyn Propagate>>>> = RefCell::new(None);
}

/// The contexts that tokens have cancelled in this thread and that have not propagated that yet.
/// The outermost call does it.
pub(super) struct Deferred;

impl Deferred {
    /// Begins the thread's list. Returns `Ok` to the outermost call, which has to `propagate_all`,
    /// and `Err` to a call inside it.
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

    /// Takes the next node. After the last one, the list is closed.
    fn next(&self) -> Option<Arc<dyn Propagate>> {
        Deferred::with(|nodes| {
            let next = nodes.as_mut().and_then(VecDeque::pop_front);
            if next.is_none() {
                *nodes = None;
            }
            next
        })?
    }

    /// Returns `None` in a thread that is exiting and whose thread-local has been dropped. There
    /// the steps recurse.
    fn with<T>(list: impl FnOnce(&mut Option<VecDeque<Arc<dyn Propagate>>>) -> T) -> Option<T> {
        NODES.try_with(|nodes| list(&mut nodes.borrow_mut())).ok()
    }

    /// Propagates the end of each node in the list, including those that are added meanwhile.
    /// Returns the first panic of a waker.
    pub(super) fn propagate_all(self) -> Option<Payload> {
        let mut first = None;
        // The loop ends: a token wakes a node once.
        while let Some(node) = self.next() {
            // The node may be dropped here, and its values with it. Like wakers, they are user code
            // that may panic.
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
