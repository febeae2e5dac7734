//! The core of the context tree: what a node is, how it becomes done, and which listeners are
//! notified.
//!
//! ```text
//!             background                a node always points to its parent
//!                 ^                     (for values, for names, and for queries)
//!                 |
//!   [ cancel ] == A ==.                 a node is *linked* once a task waits on it or below it:
//!                 ^    \                then its parent has a listener for it, and so has every
//!                 |     v               ancestor for the node below
//!                 B ==> listener
//!                 ^    \
//!                / \    v               C is linked: a cancel of A or B is propagated to it
//!               D   C   waker           D is not linked: it queries its ancestors, B and A
//! ```
//!
//! The end of a node reaches the nodes below it in two ways. The node *propagates* it to the nodes
//! that are linked. A node that is not linked *queries*: it reads its ancestors when it is asked
//! whether it is done. Deriving a node that is not linked takes no lock, so siblings do not
//! contend. To *latch* a node is to write its `end` and to set `LATCHED`.
//!
//! A node is linked, together with all its ancestors, when its first listener registers, and stays
//! linked. A node that is queried often is linked as well, and so are the ancestors of a node whose
//! query had a long way up. A node whose parent never ends counts as linked from the start.
//!
//! # Invariants
//!
//! These are true at any time. The code cites them by number.
//!
//! 1. `end` is written once and never changes. The first end wins, together with its cause, even if
//!    it has none. `LATCHED` is set after `end`, so a thread that reads `LATCHED` finds `end`.
//! 2. An end has one of three origins: a cancel of this very node, its own deadline, or the node
//!    above. In the last case it is a copy of *that node's* final end (same kind, same cause). Ends
//!    are therefore latched from the top down.
//! 3. A node's own deadline wins over an end from above if it passed before that end happened. To
//!    compare the two, an end records its instant if a node below has a deadline (`STAMPS_END`). If
//!    a deadline passes while a cancel is being propagated, either may win. No node has a later
//!    deadline than the node above it.
//! 4. A node is linked when it does not have `UNLINKED`. The flag is cleared only when every
//!    ancestor that can end is linked and has a listener for the node below it. When a cancel of an
//!    ancestor returns, it has been propagated to every linked node. A node that is not linked
//!    queries. A node that is about to be cancelled or dropped, and that nothing waits on or below,
//!    may have been removed from the listeners above (`is_sole_owner`).
//! 5. A listener is added only under the lock of `listeners`, with `HAS_LISTENERS` set and
//!    `LATCHED` not set. So a canceller that does not see `HAS_LISTENERS` has nothing to notify,
//!    and one that sees it finds every listener under the lock.
//! 6. `PROPAGATED` is set on a latched node only when every node that is linked below it is done. A
//!    second canceller that does not see it walks the same nodes again, and so does not return
//!    before the whole tree is done.
//! 7. No user code (waker, cause, value) runs or is dropped under a lock, and no thread holds two
//!    locks of nodes at once. With feature `tokio-util`, a token is cloned under the lock of its
//!    node, which takes locks of tokens; no lock of a node is taken under those.
//! 8. No walk recurses.

mod derive;
#[cfg(any(feature = "signal", feature = "tokio-util"))]
mod external;
mod flags;
mod link;
mod propagate;
mod query;

use std::any::Any;
use std::panic::{RefUnwindSafe, UnwindSafe};

use tokio::time::Instant;

use super::cause::Cause;
use super::error::ContextError;
use super::listeners::{ListenerKey, Listeners};
use crate::sync::atomic::{Ordering, fence};
use crate::sync::{Arc, Mutex, OnceLock};
use flags::{FlagSet, Flags, HAS_DEADLINE, HAS_LISTENERS, NEVER_ENDS, QueryCount, UNLINKED};

pub(crate) struct Node {
    flags: Flags,
    /// Counts up to [`query::LINK_AFTER`].
    queries: QueryCount,
    /// Written by the first `latch`, without a lock.
    end: OnceLock<End>,
    /// The effective deadline: the earlier of the node's own and the one above. Never changes.
    deadline: Option<Instant>,
    /// The node above. Its end reaches this node unless this one is a `Kind::WithoutCancel`. `None`
    /// for a root, and while the node is being dropped.
    parent: Option<Arc<Node>>,
    /// The key of this node in `parent.listeners`. Set by the thread that linked the node first,
    /// and taken when the node is cancelled or dropped.
    key_in_parent: ListenerKey,
    kind: Kind,
    /// What is notified of the end: linked children, the wakers of waiting tasks, and a token.
    listeners: Mutex<Listeners<Node>>,
}

// A panic cannot leave a node, or anything that holds one, half-changed: no user code runs while a
// node is being changed.
impl UnwindSafe for Node {}
impl RefUnwindSafe for Node {}

/// What a node adds to its parent.
pub(crate) enum Kind {
    Background,
    Todo,
    WithCancel,
    WithDeadline {
        cause: Option<Cause>,
    },
    WithValue(Box<dyn AnyValue>),
    WithoutCancel,
    Merge(Box<Merge>),
    #[cfg(any(feature = "signal", feature = "tokio-util"))]
    External(External),
}

/// The second parent of a merged context.
pub(crate) struct Merge {
    /// `None` only while the node is being dropped.
    other: Option<Arc<Node>>,
    /// The key of the merged node in `other.listeners`.
    key_in_other: ListenerKey,
    /// The cause of `other`'s deadline, if that is the earlier one.
    cause: Option<Cause>,
}

/// A node that a signal or a token cancels from outside the tree.
#[cfg(any(feature = "signal", feature = "tokio-util"))]
pub(crate) struct External {
    pub(crate) name: &'static str,
    /// Dropped with the node: the handle of the task that waits for the signal, or the registration
    /// with the token.
    kept_alive: OnceLock<Box<dyn Any + Send + Sync>>,
    /// The token that cancels the node, if it is not a signal.
    #[cfg(feature = "tokio-util")]
    source: Option<tokio_util::sync::CancellationToken>,
}

/// A value of any type, together with the name of its type.
pub(crate) trait AnyValue: Send + Sync {
    fn value(&self) -> &dyn Any;
    fn type_name(&self) -> &'static str;
}

impl<T: Send + Sync + 'static> AnyValue for T {
    fn value(&self) -> &dyn Any {
        self
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<T>()
    }
}

/// How and when a node became done: it was cancelled, or its deadline passed.
#[derive(Clone)]
struct End {
    error: ContextError,
    /// The instant. `None` if `STAMPS_END` was not set when the node ended.
    at: Option<Instant>,
}

impl End {
    fn deadline(at: Instant, cause: Option<Cause>) -> End {
        End {
            error: ContextError::deadline_exceeded(cause),
            at: Some(at),
        }
    }
}

impl Node {
    fn new(
        flags: FlagSet,
        parent: Option<Arc<Node>>,
        deadline: Option<Instant>,
        kind: Kind,
    ) -> Arc<Node> {
        let flags = flags.with_if(deadline.is_some(), HAS_DEADLINE);
        Arc::new(Node {
            flags: Flags::new(flags),
            queries: QueryCount::new(),
            end: OnceLock::new(),
            deadline,
            parent,
            key_in_parent: ListenerKey::none(),
            kind,
            listeners: Mutex::new(Listeners::new()),
        })
    }

    /// A root: `Kind::Background` or `Kind::Todo`.
    pub(crate) fn root(kind: Kind) -> Arc<Node> {
        Node::new(NEVER_ENDS, None, None, kind)
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(crate) fn parent(&self) -> Option<&Arc<Node>> {
        self.parent.as_ref()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns true if the node has latched its end. One load, and no clock: a node that is not
    /// linked may be done without it.
    pub(crate) fn is_latched(&self) -> bool {
        self.flags.is_latched()
    }

    /// Returns true if this node can never be done.
    pub(crate) fn never_ends(&self) -> bool {
        self.flags.never_ends()
    }

    /// Returns true if no other handle of the node exists and no listener waits for its end, so
    /// that the node can be dropped without being cancelled. The node may be unlinked then, so it
    /// must be cancelled or dropped.
    pub(crate) fn is_sole_owner(node: &mut Arc<Node>) -> bool {
        if Arc::strong_count(node) > 1 {
            return false;
        }
        // Pairs with the release in the drop of the other handles: what their threads did to the
        // node is seen.
        fence(Ordering::Acquire);
        let flags = node.flags.load();
        if flags.has_any(HAS_LISTENERS) && !node.listeners.lock().is_empty() {
            return false;
        }
        // A node that was never linked has no `Weak` in a list of listeners that another thread
        // could upgrade. Otherwise `get_mut` makes sure that none does.
        flags.has_any(UNLINKED) || {
            node.unlink();
            Arc::get_mut(node).is_some()
        }
    }

    /// Returns true if another handle of the node exists than `own` ones, or if it has a listener.
    /// The handles may be in other threads, but none of these clones one.
    pub(crate) fn is_seen_beside(self: &Arc<Node>, own: usize) -> bool {
        Arc::strong_count(self) > own || !self.listeners.lock().is_empty()
    }

    /// The node from which an end reaches this one.
    fn above(&self) -> Option<&Node> {
        match self.kind {
            Kind::WithoutCancel => None,
            _ => self.parent.as_deref(),
        }
    }
}
