//! A child context that the crate derives for a piece of work, and ends after it.

use std::task::{self, Poll};

use super::Context;
use super::cause::Cause;
use super::done::Waiter;
use super::error::ContextError;
use super::node::Node;

/// A child of the caller's context that only this value can cancel.
///
/// So the child is done when its parent is, or when this value has cancelled it. To wait for the
/// end, it waits for that of the parent: the child itself need not be linked, and a parent that
/// never ends need not be waited for. Dropping this value does not cancel the child.
pub(crate) struct OwnedContext {
    ctx: Context,
    /// Registered with the parent.
    waiter: Waiter,
    is_cancelled: bool,
}

impl OwnedContext {
    pub(crate) fn child_of(parent: &Context) -> OwnedContext {
        OwnedContext {
            ctx: Context {
                node: parent.node.with_cancel(),
            },
            waiter: Waiter::new(),
            is_cancelled: false,
        }
    }

    pub(crate) fn get(&self) -> &Context {
        &self.ctx
    }

    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.is_cancelled || self.ctx.node.parent().is_some_and(Node::is_done)
    }

    /// Returns true if the context was cancelled, or if its deadline has been observed to pass.
    /// Reads no clock, unlike `is_done`.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.is_cancelled || self.ctx.node.parent().is_some_and(Node::has_ended)
    }

    /// Waits until the parent is done, like [`Context::done`].
    pub(crate) fn poll_parent_done(&mut self, cx: &mut task::Context<'_>) -> Poll<ContextError> {
        match self.ctx.node.parent() {
            Some(parent) => self.waiter.poll_budgeted(parent, cx),
            None => Poll::Pending,
        }
    }

    /// Cancels the context for the crate itself, without an event for `tracing`.
    pub(crate) fn cancel(&mut self, cause: Cause) {
        self.is_cancelled = true;
        self.ctx.node.cancel(Some(cause));
    }

    /// Cancels the context, unless no other handle of it exists and nothing waits for it, so that
    /// dropping it is as good.
    pub(crate) fn cancel_if_seen(&mut self, cause: Cause) {
        if !Node::is_sole_owner(&mut self.ctx.node) {
            self.cancel(cause);
        }
    }
}

impl Drop for OwnedContext {
    fn drop(&mut self) {
        if let Some(parent) = self.ctx.node.parent() {
            self.waiter.release(parent);
        }
    }
}
