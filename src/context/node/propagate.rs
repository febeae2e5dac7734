//! Cancelling a node, and propagating its end to the nodes that are linked below it (invariants 4
//! to 7).

use std::collections::HashSet;

use tokio::time::Instant;

use super::{End, Kind, Node};
use crate::context::cause::Cause;
use crate::context::error::ContextError;
use crate::context::listeners::{self, Listeners};
use crate::sync::Arc;

impl Node {
    /// Cancels the node unless it is done. When this returns, every node below is done as well.
    pub(crate) fn cancel(self: &Arc<Node>, cause: Option<Cause>) {
        self.cancel_alone(cause);
        self.propagate();
    }

    /// Cancels the node unless it is done. The caller has to call `propagate` afterwards.
    pub(crate) fn cancel_alone(self: &Arc<Node>, cause: Option<Cause>) {
        if !self.flags.is_latched() {
            let stamps_end = self.deadline.is_some() || self.flags.stamps_end();
            let at = stamps_end.then(Instant::now);
            let passed = at.filter(|&now| self.deadline.is_some_and(|deadline| deadline <= now));
            // An end from above, or a deadline that has passed, happened before this cancel, even
            // if no query has observed it.
            if self.end_at(passed).is_none() {
                let error = ContextError::cancelled(cause);
                self.latch(End { error, at });
            }
        }
    }

    /// Propagates the end of this latched node to everything below, and unlinks the node.
    pub(crate) fn propagate(self: &Arc<Node>) {
        self.propagate_down();
        self.unlink();
    }

    /// Latches the nodes that are linked below this latched node, parents before children, and then
    /// wakes the tasks that wait there.
    fn propagate_down(self: &Arc<Node>) {
        if !self.flags.has_listeners() || self.flags.is_propagated() {
            return;
        }
        let mut visited = vec![self.clone()];
        // Apart from a node that two threads are linking, only a merged node can be reached twice.
        // In a sequence of merges, the walk would visit a node exponentially often.
        let mut merged = HashSet::new();
        let mut wakeups = Vec::new();
        let mut children = Vec::new();
        // This may be the last handle of a child, and dropping one drops values, which is user code
        // that may panic. So the handles are kept until every task has been woken.
        let mut kept = Vec::new();
        // The walk ends: a node is latched before its listeners are collected, and a latched node
        // gets no new listener (invariant 5).
        let mut next = 0;
        while let Some(node) = visited.get(next).cloned() {
            next += 1;
            let Some(end) = node.end.get() else { continue };
            node.listeners.lock().collect(&mut wakeups, &mut children);
            for child in children.drain(..) {
                child.inherit(end);
                let seen =
                    matches!(child.kind, Kind::Merge(_)) && !merged.insert(Arc::as_ptr(&child));
                if child.flags.has_listeners() && !child.flags.is_propagated() && !seen {
                    visited.push(child);
                } else {
                    kept.push(child);
                }
            }
        }
        for node in &visited {
            node.flags.set_propagated();
            let listeners = std::mem::replace(&mut *node.listeners.lock(), Listeners::new());
            drop(listeners);
        }
        listeners::wake_all(wakeups);
    }

    /// Latches the end of a parent, unless a deadline of this node passed before that end.
    fn inherit(&self, end: &End) {
        if self.flags.is_latched() {
            return;
        }
        if matches!((self.deadline, end.at), (Some(own), Some(at)) if own <= at) {
            self.end_at(end.at);
        }
        self.latch(end.clone());
    }
}
