//! The flags of a node. Each method states its memory ordering and the method that it pairs with.
//!
//! The code cites the invariants at the head of `node.rs`.

use crate::sync::atomic::{AtomicU8, Ordering};

/// A set of flags: the flags that were read at one moment, or those that a node starts with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FlagSet(u8);

/// `end` can be read.
pub(super) const LATCHED: FlagSet = FlagSet(1);
/// The node is not linked. No ancestor propagates a cancel to it, so it has to query its ancestors.
pub(super) const UNLINKED: FlagSet = FlagSet(1 << 1);
/// The node has, or had, a listener or a token.
pub(super) const HAS_LISTENERS: FlagSet = FlagSet(1 << 2);
/// Every node that is linked below this one is done.
pub(super) const PROPAGATED: FlagSet = FlagSet(1 << 3);
/// An `end` of this node must record its instant: a node below has, or had, a deadline to compare
/// it with, or the crate wants to know the instant.
pub(super) const STAMPS_END: FlagSet = FlagSet(1 << 4);
/// The `deadline` of the node is its own and not one from above. Never changes.
pub(super) const OWNS_DEADLINE: FlagSet = FlagSet(1 << 5);
/// The node can never be done: it is a root, or it adds nothing that could end it and has only such
/// nodes above it. Never changes.
pub(super) const NEVER_ENDS: FlagSet = FlagSet(1 << 6);
/// The node has a `deadline`, its own or one from above. Never changes.
pub(super) const HAS_DEADLINE: FlagSet = FlagSet(1 << 7);

impl FlagSet {
    pub(super) const EMPTY: FlagSet = FlagSet(0);

    #[inline]
    pub(super) const fn with(self, others: FlagSet) -> FlagSet {
        FlagSet(self.0 | others.0)
    }

    #[inline]
    pub(super) const fn with_if(self, condition: bool, others: FlagSet) -> FlagSet {
        if condition { self.with(others) } else { self }
    }

    /// Returns true if at least one flag of `others` is set.
    #[inline]
    pub(super) const fn has_any(self, others: FlagSet) -> bool {
        self.0 & others.0 != 0
    }

    /// Returns the flags that are in `mask` as well.
    #[inline]
    pub(super) const fn only(self, mask: FlagSet) -> FlagSet {
        FlagSet(self.0 & mask.0)
    }
}

/// The flags of a node.
pub(super) struct Flags(AtomicU8);

/// Reading.
impl Flags {
    pub(super) fn new(initial: FlagSet) -> Flags {
        Flags(AtomicU8::new(initial.0))
    }

    /// `Acquire` pairs with the `AcqRel` of each method below that changes a flag: a thread that
    /// sees the change sees everything that was written before it.
    #[inline]
    pub(super) fn load(&self) -> FlagSet {
        FlagSet(self.0.load(Ordering::Acquire))
    }

    #[inline]
    fn has_any(&self, flags: FlagSet) -> bool {
        self.load().has_any(flags)
    }

    #[inline]
    pub(super) fn is_latched(&self) -> bool {
        self.has_any(LATCHED)
    }

    #[inline]
    pub(super) fn is_unlinked(&self) -> bool {
        self.has_any(UNLINKED)
    }

    #[inline]
    pub(super) fn has_listeners(&self) -> bool {
        self.has_any(HAS_LISTENERS)
    }

    #[inline]
    pub(super) fn is_propagated(&self) -> bool {
        self.has_any(PROPAGATED)
    }

    #[inline]
    pub(super) fn stamps_end(&self) -> bool {
        self.has_any(STAMPS_END)
    }

    #[inline]
    pub(super) fn owns_deadline(&self) -> bool {
        self.has_any(OWNS_DEADLINE)
    }

    #[inline]
    pub(super) fn never_ends(&self) -> bool {
        self.has_any(NEVER_ENDS)
    }

    /// Returns false if a look at these flags is enough to know that the node is not done: it is
    /// not latched, has no deadline, and is linked, so that a cancel would have been propagated.
    #[inline]
    pub(super) fn may_be_done(&self) -> bool {
        self.has_any(LATCHED.with(UNLINKED).with(HAS_DEADLINE))
    }

    /// Returns true if the node must read its ancestors to find out whether it is done.
    #[inline]
    pub(super) fn needs_ancestors(&self) -> bool {
        self.load().only(LATCHED.with(UNLINKED)) == UNLINKED
    }
}

/// Changing. Every change is a read-modify-write of one atomic, so all changes have one order.
impl Flags {
    /// `AcqRel` pairs with `load`: a thread that sees `LATCHED` finds `end` written.
    ///
    /// It is ordered with `set_has_listeners`, too (invariant 5): of a thread that latches and one
    /// that subscribes, the later one sees the flag of the earlier one.
    pub(super) fn set_latched(&self) {
        self.0.fetch_or(LATCHED.0, Ordering::AcqRel);
    }

    /// `AcqRel` pairs with `load`: a thread that sees the node linked sees that its ancestors are
    /// linked, and that the node is latched if linking found an ancestor that was done (invariant
    /// 4).
    pub(super) fn set_linked(&self) {
        self.0.fetch_and(!UNLINKED.0, Ordering::AcqRel);
    }

    /// Returns the flags from before. Called with the listeners locked.
    ///
    /// `AcqRel` pairs with `set_latched` (invariant 5). If this sees no `LATCHED`, the thread that
    /// latches later sees `HAS_LISTENERS`, takes the lock, and finds the listener.
    pub(super) fn set_has_listeners(&self) -> FlagSet {
        FlagSet(self.0.fetch_or(HAS_LISTENERS.0, Ordering::AcqRel))
    }

    /// `AcqRel` pairs with `load`: a second canceller that sees `PROPAGATED` and returns sees
    /// `LATCHED` on every node that is linked below (invariant 6).
    pub(super) fn set_propagated(&self) {
        self.0.fetch_or(PROPAGATED.0, Ordering::AcqRel);
    }

    /// `AcqRel` pairs with `load`: a thread that sees `STAMPS_END` on a node and goes no further up
    /// relies on the ancestors, which were marked before.
    pub(super) fn set_stamps_end(&self) {
        self.0.fetch_or(STAMPS_END.0, Ordering::AcqRel);
    }
}

/// The number of queries of a node that had to read its ancestors, up to a limit.
pub(super) struct QueryCount(AtomicU8);

impl QueryCount {
    pub(super) fn new() -> QueryCount {
        QueryCount(AtomicU8::new(0))
    }

    /// Counts a query, and returns true; returns false when `limit` queries have been counted.
    ///
    /// `Relaxed`, and two threads may count one query together: the count only decides when linking
    /// pays.
    pub(super) fn count_below(&self, limit: u8) -> bool {
        let count = self.0.load(Ordering::Relaxed);
        let is_below = count < limit;
        if is_below {
            self.0.store(count + 1, Ordering::Relaxed);
        }
        is_below
    }
}
