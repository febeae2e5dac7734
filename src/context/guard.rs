//! The right to end a context.

use std::fmt;

use super::cause::{Cause, StaticCause};
use super::node::Node;
use crate::sync::Arc;
use crate::tracing;

static GUARD_DROPPED: StaticCause = StaticCause("the context's CancelGuard was dropped");

/// The right to end a context, and the duty: dropping it cancels.
///
/// It is Go's `defer cancel()`, written once and impossible to forget. What ends a context earlier, or from elsewhere,
/// is its [`handle`](CancelGuard::handle); where the context should live on without a guard, there is
/// [`disarm`](CancelGuard::disarm).
///
/// Keep it in a variable with a name: `let (ctx, _) = parent.with_cancel()` drops the guard at once, and the context is
/// born ended. Its cause says so.
#[must_use = "dropping a CancelGuard cancels its context: keep it in a variable (`_guard`, not `_`), or `disarm` it"]
pub struct CancelGuard {
    /// `None` only while `disarm` takes the guard apart.
    handle: Option<CancelHandle>,
}

impl CancelGuard {
    pub(crate) fn new(node: Arc<Node>) -> CancelGuard {
        CancelGuard {
            handle: Some(CancelHandle { node }),
        }
    }

    /// Ends the context, without a cause. When it returns, the context and all its descendants are done.
    ///
    /// An end is final: on a context that has ended this does nothing.
    pub fn cancel(&self) {
        self.with_handle(CancelHandle::cancel);
    }

    /// Ends the context with a cause, which [`Context::cause`](crate::Context::cause) gives from then on, also on every
    /// descendant that this ends.
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        self.with_handle(|handle| handle.cancel_with(cause));
    }

    /// A handle with the same right, but without the duty.
    #[must_use]
    pub fn handle(&self) -> CancelHandle {
        match &self.handle {
            Some(handle) => handle.clone(),
            None => unreachable!("a guard has its handle until `disarm` consumes it"),
        }
    }

    /// Gives the duty up: the context goes on when the handle is dropped.
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

/// A right to end a context; dropping it does nothing.
///
/// Every clone ends the same context, from any thread.
#[derive(Clone)]
pub struct CancelHandle {
    node: Arc<Node>,
}

impl CancelHandle {
    /// Ends the context, as [`CancelGuard::cancel`] does.
    pub fn cancel(&self) {
        self.end(None);
    }

    /// Ends the context with a cause, as [`CancelGuard::cancel_with`] does.
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        self.end(Some(cause.into()));
    }

    fn end(&self, cause: Option<Cause>) {
        tracing::cancelled(
            || self.node.is_done(),
            cause.as_ref().map(|cause| cause as &dyn std::fmt::Display),
        );
        self.node.cancel(cause);
    }

    /// Ends the context on the crate's own account, which is nothing to be told of.
    pub(crate) fn end_with(&self, cause: Cause) {
        self.node.cancel(Some(cause));
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle").finish_non_exhaustive()
    }
}
