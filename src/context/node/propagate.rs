//! Ending a node, and telling what is linked below it (invariants 4 to 7).

use std::collections::HashSet;

use tokio::time::Instant;

use super::{ENDED, End, Kind, Node, TIMED, TOLD, WATCHED};
use crate::context::cause::Cause;
use crate::context::error::ContextError;
use crate::context::listeners::{self, Listeners};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

impl Node {
    /// Ends the node unless it has ended, and returns when everything below has ended too.
    pub(crate) fn cancel(self: &Arc<Node>, cause: Option<Cause>) {
        self.cancel_alone(cause);
        self.tell_below();
    }

    /// Ends the node unless it has ended; `tell_below` has to follow.
    pub(crate) fn cancel_alone(self: &Arc<Node>, cause: Option<Cause>) {
        if !self.has(ENDED) {
            let timed = self.deadline.is_some() || self.has(TIMED);
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
    pub(crate) fn tell_below(self: &Arc<Node>) {
        self.tell();
        self.unlink();
    }

    /// Ends what is linked below this ended node, parents before children, then wakes whoever waits there.
    fn tell(self: &Arc<Node>) {
        if !self.has(WATCHED) || self.has(TOLD) {
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
                child.hear(end);
                let seen =
                    matches!(child.kind, Kind::Merge(_)) && !merged.insert(Arc::as_ptr(&child));
                if child.has(WATCHED) && !child.has(TOLD) && !seen {
                    told.push(child);
                } else {
                    kept.push(child);
                }
            }
        }
        for node in &told {
            node.flags.fetch_or(TOLD, Ordering::AcqRel);
            let listeners = std::mem::replace(&mut *node.listeners.lock(), Listeners::new());
            drop(listeners);
        }
        listeners::wake_all(wakeups);
    }

    /// Takes over the end of a parent, unless a deadline passed here before it.
    fn hear(&self, end: &End) {
        if self.has(ENDED) {
            return;
        }
        if matches!((self.deadline, end.at), (Some(own), Some(at)) if own <= at) {
            self.end_at(end.at);
        }
        self.latch(end.clone());
    }
}
