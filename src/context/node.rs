//! The core of the context tree: what a node is, how it ends, who is told.
//!
//! ```text
//!             background                a node points to its parent, always
//!                 ^                     (values, names, and the way up for whoever asks)
//!                 |
//!   [ cancel ] == A ==.                 a node is *linked* once somebody waits below it:
//!                 ^    \                then its parent has an entry for it too, and so
//!                 |     v               has every ancestor for the one below
//!                 B ==> entry
//!                 ^    \
//!                / \    v               C is linked: it is told when A or B ends
//!               D   C   waker           D is not: it asks, by reading D, B
//! ```
//!
//! Asking and telling are the two ways in which an end gets down the tree. A node without
//! a listener is not linked: deriving it is one allocation and takes no lock, and its siblings never meet.
//! A node is linked when the first listener registers, all the way up, and stays so;
//! and so is one that is asked often, and one whose descendants have asked from far below.
//!
//! # Invariants
//!
//! These are true at any time.
//!
//! 1. `end` is written once and never changes: the first end wins, its cause included, even where it has none. `LATCHED` is
//!    set after `end`, so whoever reads `LATCHED` finds it.
//! 2. An end has one of three origins: a cancel of this very node; its own deadline; or the node above, in which case it
//!    is a copy of *that node's* final end (same kind, same cause). Ends are therefore latched from the top down.
//! 3. A deadline is the node's own end if it passed before the end that came from above: each end
//!    knows the instant at which it happened, if anybody below has a deadline to compare it with
//!    (`STAMPS_END`). A deadline that passes while a cancel is being told may be either. No node has a
//!    later deadline than the node above it.
//! 4. A node is linked when it does not have `UNLINKED`: that is cleared only when every ancestor that can end is linked and holds
//!    an entry for the one below it. A linked node has been told of an ancestor's cancel when that cancel returns; another asks.
//! 5. An entry is added to `listeners` only under its lock, with `HAS_LISTENERS` set and `LATCHED` not. So an ending thread that does
//!    not see `HAS_LISTENERS` has nobody to tell, and one that sees it finds everybody under the lock.
//! 6. `PROPAGATED` is set on an ended node only when everything linked below it has ended. A second canceller that does not
//!    see it walks the same way again, and so returns no earlier than the tree is done.
//! 7. No user code (waker, cause, value) runs, and none is dropped, under a lock; never are two locks held at once.
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
    /// Written by the first `latch`.
    end: OnceLock<End>,
    /// The effective deadline: the earlier of the node's own and the one above.
    deadline: Option<Instant>,
    /// The ancestry. Ends flow down it unless the node is a `Kind::WithoutCancel`.
    parent: Option<Arc<Node>>,
    /// The key of this node in `parent.listeners`. Set by the thread that linked the node first, and
    /// taken when the node is cancelled or dropped.
    key_in_parent: ListenerKey,
    kind: Kind,
    /// Who must be told: linked children and waiting tasks.
    listeners: Mutex<Listeners<Node>>,
}

// A panic cannot leave a node half-changed, and so nothing that holds one: no user code runs while it is being written.
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

#[cfg(any(feature = "signal", feature = "tokio-util"))]
/// A node that something outside the tree ends (a signal, a token), and what must live as long as the node for that.
pub(crate) struct External {
    pub(crate) name: &'static str,
    kept_alive: OnceLock<Box<dyn Any + Send + Sync>>,
    /// The token that ends it, if it is a token.
    #[cfg(feature = "tokio-util")]
    source: Option<tokio_util::sync::CancellationToken>,
}

/// A value of any type, that knows its type's name.
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

/// How and when a node ended.
#[derive(Clone)]
struct End {
    error: ContextError,
    /// When; `None` where nobody below has a deadline that could have passed before.
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

    /// Whether nothing can ever end this node.
    pub(crate) fn never_ends(&self) -> bool {
        self.flags.never_ends()
    }

    /// Whether nobody else has the node and nobody waits for its end, so that it may end unsaid.
    pub(crate) fn is_sole_owner(node: &mut Arc<Node>) -> bool {
        if Arc::strong_count(node) > 1 {
            return false;
        }
        // Pairs with the release of whoever had the node before: what they have done to its flags is seen.
        fence(Ordering::Acquire);
        let flags = node.flags.load().only(UNLINKED.with(HAS_LISTENERS));
        // One that asks was never linked, and so there is no `Weak` from which somebody might have it again and show it.
        flags == UNLINKED || flags == FlagSet::EMPTY && Arc::get_mut(node).is_some()
    }

    /// The node that ends come from.
    fn above(&self) -> Option<&Node> {
        match self.kind {
            Kind::WithoutCancel => None,
            _ => self.parent.as_deref(),
        }
    }
}
