//! Deriving a child.

use tokio::time::Instant;

use super::flags::{FlagSet, NEVER_ENDS, OWNS_DEADLINE, STAMPS_END, UNLINKED};
use super::{AnyValue, Kind, Merge, Node};
use crate::context::cause::Cause;
use crate::context::listeners::{Listener, ListenerKey};
use crate::sync::Arc;

impl Node {
    /// What a child starts with: nothing above an endless parent can end, so there is nothing to link to.
    pub(super) fn inherited_flags(&self) -> FlagSet {
        FlagSet::EMPTY.with_if(!self.never_ends(), UNLINKED)
    }

    /// A child that can be cancelled.
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

    /// `has_passed` says whether the deadline has; it is not asked where an earlier one counts.
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
            // A child of an ended parent is born with the parent's end, even where its own deadline lies further back. One
            // that lies ahead needs no look: the instants tell, and a walk up each time would make a chain quadratic.
            if let Some(end) = self.end() {
                child.latch(end.clone());
            }
        }
        child
    }

    /// A child of `self` that `other` ends as well.
    ///
    /// It is linked to both from birth: a node that had to ask two ways up would make reading exponential in a ladder of
    /// merges.
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
        // Told by both: one that asked `self` and was told by `other` could take the later of two ends.
        child.link();
        if other.never_ends() {
            // Nothing comes from there: no entry in a root that the whole process shares.
            return child;
        }
        other.record_end_time();
        other.link();
        let key = other.subscribe(Listener::Child(Arc::downgrade(&child)));
        if let (Kind::Merge(merge), Ok(key)) = (&child.kind, key) {
            merge.key_in_other.set(key);
        }
        // Asked once more, after linking: an end that came before it was told to nobody.
        if let Some(end) = other.end() {
            child.latch(end.clone());
        }
        child
    }

    /// Sets `STAMPS_END` here and on every ancestor, from the top down: where it is set, it is set all the way up. A node with a
    /// deadline is timed for that reason alone, and whoever brought the deadline has marked what is above.
    pub(crate) fn record_end_time(&self) {
        let mut unmarked = Vec::new();
        let mut node = Some(self);
        while let Some(current) = node.filter(|node| {
            node.deadline.is_none() && !node.flags.load().has_any(STAMPS_END.with(NEVER_ENDS))
        }) {
            unmarked.push(current);
            node = current.above();
        }
        for node in unmarked.into_iter().rev() {
            node.flags.set_stamps_end();
        }
    }
}
