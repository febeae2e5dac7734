//! Ending a node, and telling what is linked below it (invariants 4 to 7).

use std::collections::HashSet;

use tokio::time::Instant;

use super::{End, Kind, Node};
use crate::context::cause::Cause;
use crate::context::error::ContextError;
use crate::context::listeners::{self, Listeners};
use crate::sync::Arc;

impl Node {
    /// Ends the node unless it has ended, and returns when everything below has ended too.
    pub(crate) fn cancel(self: &Arc<Node>, cause: Option<Cause>) {
        self.cancel_alone(cause);
        self.propagate();
    }

    /// Ends the node unless it has ended; `propagate` has to follow.
    pub(crate) fn cancel_alone(self: &Arc<Node>, cause: Option<Cause>) {
        if !self.flags.is_latched() {
            let timed = self.deadline.is_some() || self.flags.stamps_end();
            let at = timed.then(Instant::now);
            let passed = at.filter(|&now| self.deadline.is_some_and(|deadline| deadline <= now));
            // An end from above or a deadline that has passed comes first, observed or not.
            if self.end_at(passed).is_none() {
                let error = ContextError::cancelled(cause);
                self.latch(End { error, at });
            }
        }
    }

    /// Ends everything below a node that has ended.
    pub(crate) fn propagate(self: &Arc<Node>) {
        self.propagate_down();
        self.unlink();
    }

    /// Ends what is linked below this ended node, parents before children, then wakes whoever waits there.
    fn propagate_down(self: &Arc<Node>) {
        if !self.flags.has_listeners() || self.flags.is_propagated() {
            return;
        }
        let mut told = vec![self.clone()];
        // Only a merge can be reached twice; a ladder of them, exponentially often.
        let mut merged = HashSet::new();
        let mut wakeups = Vec::new();
        let mut children = Vec::new();
        // Whoever is let go here may be the last to hold it, and a value's drop may panic: not before all are woken.
        let mut kept = Vec::new();
        let mut next = 0;
        while let Some(node) = told.get(next).cloned() {
            next += 1;
            let Some(end) = node.end.get() else { continue };
            node.listeners.lock().collect(&mut wakeups, &mut children);
            for child in children.drain(..) {
                child.inherit(end);
                let seen =
                    matches!(child.kind, Kind::Merge(_)) && !merged.insert(Arc::as_ptr(&child));
                if child.flags.has_listeners() && !child.flags.is_propagated() && !seen {
                    told.push(child);
                } else {
                    kept.push(child);
                }
            }
        }
        for node in &told {
            node.flags.set_propagated();
            let listeners = std::mem::replace(&mut *node.listeners.lock(), Listeners::new());
            drop(listeners);
        }
        listeners::wake_all(wakeups);
    }

    /// Takes over the end of a parent, unless a deadline passed here before it.
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
