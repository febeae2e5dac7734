//! Finding out whether a node is done, and latching the end that is found on the nodes on the way
//! (invariants 1 to 3).

use tokio::time::Instant;

use super::flags::{LATCHED, UNLINKED};
use super::{End, Kind, Node};
use crate::context::cause::Cause;
use crate::context::error::ContextError;
use crate::sync::Arc;

/// The number of queries of a node that read its ancestors before the node is linked. Linking makes
/// further queries unnecessary, and costs as much as about this many of them.
pub(super) const LINK_AFTER: u8 = 16;

/// The number of ancestors that a query passes before it links them.
///
/// If each new node of a chain is queried once, every query soon reaches a linked node. So the
/// chain takes linear time: a node is linked once, and a query passes fewer than this many nodes
/// that are not linked. The contexts of requests are hardly ever this deep, so they do not contend
/// for the lock of their server's context.
const LINK_ABOVE_AFTER: usize = 32;

impl Node {
    #[inline]
    pub(crate) fn is_done(self: &Arc<Node>) -> bool {
        self.flags.may_be_done() && self.lookup_end().is_some()
    }

    /// Returns true if the node was cancelled, or if its deadline has been observed to pass. Reads
    /// no clock, unlike `is_done`.
    #[inline]
    pub(crate) fn has_ended(self: &Arc<Node>) -> bool {
        let flags = self.flags.load();
        // An end from above is propagated to a node that is linked.
        flags.has_any(LATCHED) || flags.has_any(UNLINKED) && self.end_at(None).is_some()
    }

    /// Returns the error of a node that is done.
    #[inline]
    pub(crate) fn err(self: &Arc<Node>) -> Option<ContextError> {
        if self.flags.may_be_done() {
            self.lookup_error()
        } else {
            None
        }
    }

    // `cold` keeps this code out of a caller's loop that checks the context.
    #[cold]
    fn lookup_error(self: &Arc<Node>) -> Option<ContextError> {
        self.lookup_end().map(|end| end.error.clone())
    }

    /// Returns the end of the node. Reads the ancestors and the clock unless the node is latched.
    #[cold]
    fn lookup_end(self: &Arc<Node>) -> Option<&End> {
        if self.flags.needs_ancestors() && !self.queries.count_below(LINK_AFTER) {
            self.link();
        }
        self.end()
    }

    /// Returns the instant of the end, if the end has recorded one.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.end().and_then(|end| end.at)
    }

    /// Returns the end of the node, without counting the query.
    pub(super) fn end(&self) -> Option<&End> {
        if self.flags.is_latched() {
            return self.end.get();
        }
        let passed = self.deadline.filter(|&deadline| deadline <= Instant::now());
        self.end_at(passed)
    }

    /// Latches the node's deadline as its end, for a timer that has fired. The clock is not read
    /// again, since a timer of tokio never fires early.
    pub(crate) fn expire(&self) -> Option<ContextError> {
        self.end_at(self.deadline).map(|end| end.error.clone())
    }

    /// Returns the end of this node at the instant `now`, and latches it on this node and on the
    /// nodes on the way down to it. `now` is `None` for an instant before any deadline.
    ///
    /// The walk up stops at the first node that is linked and whose deadline has not passed: a
    /// cancel from above would have been propagated to it, and no deadline above it is earlier than
    /// its own. A deadline that has passed may come from an ancestor. Then the ancestor and the
    /// nodes between are latched first (invariant 2), unless one of them was cancelled before.
    pub(super) fn end_at(&self, now: Option<Instant>) -> Option<&End> {
        let passed =
            |node: &Node| matches!((node.deadline, now), (Some(at), Some(now)) if at <= now);
        // The distance to the highest node that is latched or whose deadline has passed.
        let mut source = passed(self).then_some(0);
        let mut node = self;
        let mut distance = 0;
        loop {
            // One load: a thread that links the node latches it first, if an ancestor is done. Two
            // loads could see neither flag.
            let flags = node.flags.load();
            if flags.has_any(LATCHED) {
                source = Some(distance);
                break;
            }
            if !flags.has_any(UNLINKED) && !passed(node) {
                break;
            }
            let Some(above) = node.above() else { break };
            node = above;
            distance += 1;
            if passed(node) {
                source = Some(distance);
            }
        }
        // Nodes that are about to be latched need not be linked: a query stops at them.
        let still_unlinked = distance - source.unwrap_or(0);
        if still_unlinked > LINK_ABOVE_AFTER && !node.flags.is_latched() {
            self.link_above();
        }
        self.latch_down_from(source?);
        self.end.get()
    }

    /// Links the ancestors after a query that had a long way up, so that the next query has a short
    /// one. The node itself is not linked, since it may be dropped soon.
    #[cold]
    fn link_above(&self) {
        if let Some(parent) = &self.parent {
            parent.link();
        }
    }

    /// Latches the nodes from the one that is `distance` above down to this one. Each takes over
    /// the final end of the one before.
    fn latch_down_from(&self, distance: usize) {
        if distance == 0 {
            self.latch_from_above(None);
            return;
        }
        let mut path = Vec::with_capacity(distance + 1);
        let mut node = Some(self);
        while let Some(current) = node {
            path.push(current);
            if path.len() > distance {
                break;
            }
            node = current.above();
        }
        let mut above = None;
        for node in path.into_iter().rev() {
            node.latch_from_above(above);
            above = node.end.get();
        }
    }

    /// Latches the node's own deadline if that passed before `above` happened, and `above`
    /// otherwise.
    fn latch_from_above(&self, above: Option<&End>) {
        if self.flags.is_latched() {
            return;
        }
        let own = self.deadline.filter(|_| self.flags.owns_deadline());
        let end = match (above, own) {
            (Some(end), Some(own)) if end.at.is_none_or(|at| at < own) => end.clone(),
            (_, Some(own)) => End::deadline(own, self.own_deadline_cause()),
            (Some(end), None) => end.clone(),
            // Not reached for a deadline that has passed: its source is the highest node that has
            // it, and that node owns it.
            (None, None) => return,
        };
        self.latch(end);
    }

    fn own_deadline_cause(&self) -> Option<Cause> {
        match &self.kind {
            Kind::WithDeadline { cause } => cause.clone(),
            Kind::Merge(merge) => merge.cause.clone(),
            _ => None,
        }
    }

    /// Returns the cause that the node will have if its effective deadline passes.
    pub(super) fn deadline_cause(&self) -> Option<Cause> {
        let mut node = Some(self);
        while let Some(current) = node {
            if current.flags.owns_deadline() {
                return current.own_deadline_cause();
            }
            node = current.above();
        }
        None
    }

    /// Writes the end if it is the first (invariant 1). Never called under a lock, since an `end`
    /// that comes too late is dropped here.
    pub(super) fn latch(&self, end: End) {
        let _ = self.end.set(end);
        // Also if another thread was first, which may not have set the flag yet: the caller relies
        // on the flag when this returns.
        self.flags.set_latched();
    }
}
