//! Deriving a child.

use tokio::time::Instant;

use super::flags::{FlagSet, NEVER_ENDS, OWNS_DEADLINE, STAMPS_END, UNLINKED};
use super::{AnyValue, Kind, Merge, Node};
use crate::context::cause::Cause;
use crate::context::listeners::{Listener, ListenerKey};
use crate::sync::Arc;

impl Node {
    /// The flags of a new child. Under a parent that never ends there is nothing to link to.
    pub(super) fn inherited_flags(&self) -> FlagSet {
        FlagSet::EMPTY.with_if(!self.never_ends(), UNLINKED)
    }

    /// Derives a child that can be cancelled.
    pub(crate) fn with_cancel(self: &Arc<Node>) -> Arc<Node> {
        let flags = self.inherited_flags();
        Node::new(flags, Some(self.clone()), self.deadline, Kind::WithCancel)
    }

    pub(crate) fn with_value(self: &Arc<Node>, value: Box<dyn AnyValue>) -> Arc<Node> {
        let flags = self
            .inherited_flags()
            .with_if(self.never_ends(), NEVER_ENDS);
        let kind = Kind::WithValue(value);
        Node::new(flags, Some(self.clone()), self.deadline, kind)
    }

    pub(crate) fn without_cancel(self: &Arc<Node>) -> Arc<Node> {
        let kind = Kind::WithoutCancel;
        Node::new(NEVER_ENDS, Some(self.clone()), None, kind)
    }

    /// Derives a child that is done at `at` at the latest. `has_passed` returns true if `at` is in
    /// the past. It is not called if the parent has an earlier deadline.
    pub(crate) fn with_deadline(
        self: &Arc<Node>,
        at: Instant,
        cause: Option<Cause>,
        has_passed: impl FnOnce() -> bool,
    ) -> Arc<Node> {
        let mut flags = self.inherited_flags();
        let own = self.deadline.is_none_or(|above| at < above);
        if own {
            flags = flags.with(OWNS_DEADLINE);
            self.record_end_time();
        }
        let deadline = if own { Some(at) } else { self.deadline };
        let kind = Kind::WithDeadline { cause };
        let child = Node::new(flags, Some(self.clone()), deadline, kind);
        if own && has_passed() {
            // A child of a parent that is done starts with the parent's end, even if its own
            // deadline passed earlier. A deadline in the future needs no query here, because later
            // queries compare the instants. A query for each new child would make deriving a chain
            // take quadratic time.
            if let Some(end) = self.end() {
                child.latch(end.clone());
            }
        }
        child
    }

    /// Derives a child of `self` that also takes over the end of `other`.
    ///
    /// The child is linked to both at once. If it had to query two ways up, a query through a
    /// sequence of merges, each of two contexts of the one before, would take exponential time.
    pub(crate) fn merge(self: &Arc<Node>, other: &Arc<Node>) -> Arc<Node> {
        let never_ends = self.never_ends() && other.never_ends();
        let mut flags = self.inherited_flags().with_if(never_ends, NEVER_ENDS);
        let mut deadline = self.deadline;
        let mut cause = None;
        if let Some(theirs) = other.deadline {
            if deadline.is_none_or(|ours| theirs < ours) {
                deadline = Some(theirs);
                cause = other.deadline_cause();
                flags = flags.with(OWNS_DEADLINE);
                self.record_end_time();
            }
        }
        let merge = Merge {
            other: Some(other.clone()),
            key_in_other: ListenerKey::none(),
            cause,
        };
        let kind = Kind::Merge(Box::new(merge));
        let child = Node::new(flags, Some(self.clone()), deadline, kind);
        if let Some(end) = self.end() {
            child.latch(end.clone());
            return child;
        }
        // Both parents propagate to the child. If it queried `self` and only `other` propagated, it
        // could take the later of two ends.
        child.link();
        if other.never_ends() {
            // A listener would only make the list of a root longer that the whole process shares.
            return child;
        }
        other.record_end_time();
        other.link();
        let key = other.subscribe(Listener::Child(Arc::downgrade(&child)));
        if let (Kind::Merge(merge), Ok(key)) = (&child.kind, key) {
            merge.key_in_other.set(key);
        }
        // Query once more after linking: an end that came before was not propagated to the child.
        if let Some(end) = other.end() {
            child.latch(end.clone());
        }
        child
    }

    /// Sets `STAMPS_END` on this node and on every ancestor.
    ///
    /// The flag is set from the top down, so a node that has it has only ancestors that have it,
    /// and the walk up can stop there. The walk also stops at a node with a deadline: such a node
    /// records its instant without the flag, and its ancestors were marked when it got the
    /// deadline.
    pub(crate) fn record_end_time(&self) {
        let is_unmarked = |node: &&Node| {
            node.deadline.is_none() && !node.flags.load().has_any(STAMPS_END.with(NEVER_ENDS))
        };
        if !is_unmarked(&self) {
            return;
        }
        // Mostly the parent is marked, and the list stays empty, which needs no allocation.
        let mut unmarked = Vec::new();
        let mut node = self.above().filter(is_unmarked);
        while let Some(current) = node {
            unmarked.push(current);
            node = current.above().filter(is_unmarked);
        }
        for node in unmarked.into_iter().rev() {
            node.flags.set_stamps_end();
        }
        self.flags.set_stamps_end();
    }
}
