//! The guard and the handle that cancel a context.

use std::fmt;

use super::cause::{Cause, StaticCause};
use super::node::Node;
use crate::sync::Arc;
use crate::tracing;

static GUARD_DROPPED: StaticCause = StaticCause("the context's CancelGuard was dropped");

/// A guard that cancels its context when it is dropped.
///
/// It does what `defer cancel()` does in Go, and cannot be forgotten. To cancel the context from
/// elsewhere, use a [`handle`](CancelGuard::handle). To keep the context running without a guard,
/// call [`disarm`](CancelGuard::disarm).
///
/// Keep the guard in a variable with a name: `let (ctx, _) = parent.with_cancel()` drops it at
/// once, so the context is cancelled from the start. Its cause says so.
#[doc(alias("DropGuard", "CancelFunc", "defer"))]
#[must_use = "dropping a CancelGuard cancels its context: keep it in a variable (`_guard`, not \
              `_`), or `disarm` it"]
pub struct CancelGuard {
    /// `None` after `disarm`.
    handle: Option<CancelHandle>,
}

impl CancelGuard {
    pub(crate) fn new(node: Arc<Node>) -> CancelGuard {
        CancelGuard {
            handle: Some(CancelHandle { node }),
        }
    }

    /// Cancels the context, without a cause. When this returns, the context and all its descendants
    /// are done.
    ///
    /// It does nothing if the context is done already.
    pub fn cancel(&self) {
        self.with_handle(CancelHandle::cancel);
    }

    /// Cancels the context with a cause. When this returns, the context and all its descendants are
    /// done.
    ///
    /// [`Context::cause`](crate::Context::cause) returns the cause from then on, on the context and
    /// on every descendant that is cancelled with it. It does nothing if the context is done
    /// already.
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        self.with_handle(|handle| handle.cancel_with(cause));
    }

    /// Returns a handle that can cancel the context but does not do so when it is dropped.
    #[must_use]
    pub fn handle(&self) -> CancelHandle {
        match &self.handle {
            Some(handle) => handle.clone(),
            None => unreachable!("a guard has its handle until `disarm` consumes it"),
        }
    }

    /// Consumes the guard without cancelling, and returns a handle.
    ///
    /// Dropping the handle does not cancel the context.
    pub fn disarm(mut self) -> CancelHandle {
        let handle = self.handle();
        self.handle = None;
        handle
    }

    fn with_handle(&self, f: impl FnOnce(&CancelHandle)) {
        if let Some(handle) = &self.handle {
            f(handle);
        }
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(handle) = &mut self.handle {
            if !Node::is_sole_owner(&mut handle.node) {
                handle.node.cancel(Some(Cause::from_static(&GUARD_DROPPED)));
            }
        }
    }
}

impl fmt::Debug for CancelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelGuard").finish_non_exhaustive()
    }
}

/// A handle that can cancel a context. Dropping it does nothing.
///
/// Every clone cancels the same context, from any thread.
#[doc(alias = "CancelCauseFunc")]
#[derive(Clone)]
pub struct CancelHandle {
    node: Arc<Node>,
}

impl CancelHandle {
    /// Cancels the context, without a cause. When this returns, the context and all its descendants
    /// are done.
    ///
    /// It does nothing if the context is done already.
    pub fn cancel(&self) {
        self.cancel_and_trace(None);
    }

    /// Cancels the context with a cause. When this returns, the context and all its descendants are
    /// done.
    ///
    /// [`Context::cause`](crate::Context::cause) returns the cause from then on, on the context and
    /// on every descendant that is cancelled with it. It does nothing if the context is done
    /// already.
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        self.cancel_and_trace(Some(cause.into()));
    }

    fn cancel_and_trace(&self, cause: Option<Cause>) {
        tracing::cancelled(
            || self.node.is_done(),
            cause.as_ref().map(|cause| cause as &dyn std::fmt::Display),
        );
        self.node.cancel(cause);
    }

    /// Cancels the context for the crate itself, without an event for `tracing`.
    pub(crate) fn end_with(&self, cause: Cause) {
        self.node.cancel(Some(cause));
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle").finish_non_exhaustive()
    }
}
