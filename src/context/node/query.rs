//! Asking whether a node has ended, and latching what is found on the way (invariants 1 to 3).

use tokio::time::Instant;

use super::{End, Kind, Node};
use crate::context::cause::Cause;
use crate::context::error::ContextError;
use crate::sync::Arc;

/// How often a node asks further up before it is linked, so that it need not: that costs as much as about so many asks.
pub(super) const LINK_AFTER: u8 = 16;

/// How far up a query goes before it links the ancestors that it has passed. In a chain in which
/// each new node is asked once, the next query ends at a linked node, and so the chain takes linear
/// time: a node is linked once, and a query passes fewer than this many that are not. Contexts of
/// requests are hardly ever this deep, and so they do not meet at their server's lock.
const LINK_ABOVE_AFTER: usize = 32;

impl Node {
    #[inline]
    pub(crate) fn is_done(self: &Arc<Node>) -> bool {
        self.flags.may_be_done() && self.lookup_end().is_some()
    }

    /// The end as the error that users see.
    #[inline]
    pub(crate) fn err(self: &Arc<Node>) -> Option<ContextError> {
        if self.flags.may_be_done() {
            self.lookup_error()
        } else {
            None
        }
    }

    // `cold`, so that it is out of the way where a loop asks.
    #[cold]
    fn lookup_error(self: &Arc<Node>) -> Option<ContextError> {
        self.lookup_end().map(|end| end.error.clone())
    }

    /// Asks further up, or the clock, unless it has ended.
    #[cold]
    fn lookup_end(self: &Arc<Node>) -> Option<&End> {
        if self.flags.needs_ancestors() && !self.queries.count_below(LINK_AFTER) {
            self.link();
        }
        self.end()
    }

    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.end().and_then(|end| end.at)
    }

    pub(super) fn end(&self) -> Option<&End> {
        if self.flags.is_latched() {
            return self.end.get();
        }
        let passed = self.deadline.filter(|&deadline| deadline <= Instant::now());
        self.end_at(passed)
    }

    /// Ends the node at its deadline, for a timer that has fired: its clock is as good as any.
    pub(crate) fn expire(&self) -> Option<ContextError> {
        self.end_at(self.deadline).map(|end| end.error.clone())
    }

    /// The end of this node at the instant `now`, latched here and on the way down to here.
    ///
    /// `now` is `None` for one before any deadline. The way up ends at the first node that is
    /// linked and whose deadline has not passed: it would have been told of a cancel, and no
    /// deadline above it is earlier than its own. A deadline that has passed may be one from above,
    /// and then it ends those nodes first (invariant 2), unless one of them was cancelled before.
    pub(super) fn end_at(&self, now: Option<Instant>) -> Option<&End> {
        let passed =
            |node: &Node| matches!((node.deadline, now), (Some(at), Some(now)) if at <= now);
        // The highest node that has ended or whose deadline has passed, as its distance from here.
        let mut source = passed(self).then_some(0);
        let mut node = self;
        let mut distance = 0;
        loop {
            if node.flags.is_latched() {
                source = Some(distance);
                break;
            }
            if !node.flags.is_unlinked() && !passed(node) {
                break;
            }
            let Some(above) = node.above() else { break };
            node = above;
            distance += 1;
            if passed(node) {
                source = Some(distance);
            }
        }
        // Not for what is about to be latched, which is asked no further.
        if distance - source.unwrap_or(0) > LINK_ABOVE_AFTER && !node.flags.is_latched() {
            self.link_above();
        }
        self.latch_down_from(source?);
        self.end.get()
    }

    /// Links the ancestors, for a query that has gone far, so that the next one need not. The node
    /// itself may be gone soon.
    #[cold]
    fn link_above(&self) {
        if let Some(parent) = &self.parent {
            parent.link();
        }
    }

    /// Latches the nodes from the one `distance` above down to this one, each with the final end of the one before.
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

    /// Latches the node's own deadline if that passed before `above` happened, and `above` otherwise.
    fn latch_from_above(&self, above: Option<&End>) {
        if self.flags.is_latched() {
            return;
        }
        let own = self.deadline.filter(|_| self.flags.owns_deadline());
        let end = match (above, own) {
            (Some(end), Some(own)) if end.at.is_none_or(|at| at < own) => end.clone(),
            (_, Some(own)) => End::deadline(own, self.own_deadline_cause()),
            (Some(end), None) => end.clone(),
            // The source of a passed deadline is the highest node that has it, and so its owner.
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

    /// The cause that the effective deadline will end the node with.
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

    /// Writes the end, if it is the first (invariant 1). Never called under a lock: a losing `end` is dropped here.
    pub(super) fn latch(&self, end: End) {
        let _ = self.end.set(end);
        // Also where it lost: whoever returns from here finds the flag set. AcqRel orders it with HAS_LISTENERS (invariant 5).
        self.flags.set_latched();
    }
}
