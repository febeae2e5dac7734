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
//! Asking and telling are the two ways in which an end gets down the tree. A node that nobody waits on is never
//! linked: deriving it is one allocation and takes no lock, and its siblings never meet. A node that somebody waits on
//! is linked when the waiting begins, all the way up, and stays so.
//!
//! # Invariants
//!
//! These are true at any time.
//!
//! 1. `end` is written once and never changes: the first end wins, its cause included, even where it has none. `ENDED` is
//!    set after `end`, so whoever reads `ENDED` finds it.
//! 2. An end has one of three origins: a cancel of this very node; its own deadline; or the node above, in which case it
//!    is a copy of *that node's* final end (same kind, same cause). Ends are therefore latched from the top down.
//! 3. A deadline is the node's own end if it passed before the end that came from above: each end knows the instant at
//!    which it happened, if anybody below has a deadline to compare it with (`TIMED`).
//! 4. `LINKED` is set only when every ancestor that can end is linked and holds an entry for the one below it. A
//!    linked node has been told of an ancestor's cancel when that cancel returns; an unlinked one asks.
//! 5. An entry is added to `links` only under its lock, with `WATCHED` set and `ENDED` not. So an ending thread that does
//!    not see `WATCHED` has nobody to tell, and one that sees it finds everybody under the lock.
//! 6. `TOLD` is set on an ended node only when everything linked below it has ended. A second canceller that does not
//!    see it walks the same way again, and so returns no earlier than the tree is done.
//! 7. No user code (waker, cause, value) runs, and none is dropped, under a lock; never are two locks held at once.
//! 8. No walk recurses.

use std::any::Any;
use std::collections::HashSet;
use std::task::Waker;

use tokio::time::Instant;

use super::cause::Cause;
use super::links::{self, Link, Links};
use crate::error::ContextError;
use crate::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, OnceLock};

/// `end` can be read.
const ENDED: u8 = 1;
/// Every ancestor's cancel is told to this node, or there is none that could end.
const LINKED: u8 = 1 << 1;
/// Somebody has an entry in `links`, or had one.
const WATCHED: u8 = 1 << 2;
/// Everything linked below has ended.
const TOLD: u8 = 1 << 3;
/// There is, or was, a deadline below: an end must say when it happened.
const TIMED: u8 = 1 << 4;
/// The node's `deadline` is its own and not one that it has from above.
const OWN_DEADLINE: u8 = 1 << 5;
/// Nothing can ever end this node: a root, or what has only such nodes above it and adds no end.
const ENDLESS: u8 = 1 << 6;

pub(crate) struct Node {
    /// The bits above. All but `ENDED` and `LINKED` only ever save work.
    flags: AtomicU8,
    /// Written by the first `latch`.
    end: OnceLock<End>,
    /// The effective deadline: the earlier of the node's own and the one above.
    deadline: Option<Instant>,
    /// The ancestry. Ends flow down it unless the node is a `Kind::WithoutCancel`.
    parent: Option<Arc<Node>>,
    /// Where `parent.links` has this node, plus one; 0 for nowhere. Written by whoever linked it first; taken back by its own
    /// cancel or its drop.
    entry: AtomicUsize,
    kind: Kind,
    /// Who must be told: linked children and waiting tasks.
    links: Mutex<Links>,
}

/// What a node adds to its parent.
pub(crate) enum Kind {
    Background,
    Todo,
    WithCancel,
    WithDeadline {
        cause: Option<Cause>,
    },
    WithValue(Box<dyn Slot>),
    WithoutCancel,
    Merge(Box<Merge>),
    #[cfg(any(feature = "signal", feature = "tokio-util"))]
    External(External),
}

/// The second parent of a merged context.
pub(crate) struct Merge {
    /// `None` only while the node is being dropped.
    other: Option<Arc<Node>>,
    /// Where `other.links` has the merged node, plus one; 0 for nowhere.
    entry: AtomicUsize,
    /// The cause of `other`'s deadline, if that is the earlier one.
    cause: Option<Cause>,
}

#[cfg(any(feature = "signal", feature = "tokio-util"))]
/// A node that something outside the tree ends (a signal, a token), and what must live as long as the node for that.
pub(crate) struct External {
    pub(crate) name: &'static str,
    tether: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// A value of any type, that knows its type's name.
pub(crate) trait Slot: Send + Sync {
    fn value(&self) -> &dyn Any;
    fn type_name(&self) -> &'static str;
}

impl<T: Send + Sync + 'static> Slot for T {
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

/// Deriving.
impl Node {
    fn new(
        flags: u8,
        parent: Option<Arc<Node>>,
        deadline: Option<Instant>,
        kind: Kind,
    ) -> Arc<Node> {
        Arc::new(Node {
            flags: AtomicU8::new(flags),
            end: OnceLock::new(),
            deadline,
            parent,
            entry: AtomicUsize::new(0),
            kind,
            links: Mutex::new(Links::new()),
        })
    }

    /// A root: `Kind::Background` or `Kind::Todo`.
    pub(crate) fn root(kind: Kind) -> Arc<Node> {
        Node::new(ENDLESS | LINKED, None, None, kind)
    }

    /// What a child starts with: nothing above an endless parent can end, so there is nothing to link to.
    fn inherited_flags(&self) -> u8 {
        if self.has(ENDLESS) { LINKED } else { 0 }
    }

    /// A child that can be cancelled.
    pub(crate) fn with_cancel(self: &Arc<Node>) -> Arc<Node> {
        let flags = self.inherited_flags();
        Node::new(flags, Some(self.clone()), self.deadline, Kind::WithCancel)
    }

    pub(crate) fn with_value(self: &Arc<Node>, value: Box<dyn Slot>) -> Arc<Node> {
        let flags = self.inherited_flags() | (self.flags() & ENDLESS);
        let kind = Kind::WithValue(value);
        Node::new(flags, Some(self.clone()), self.deadline, kind)
    }

    pub(crate) fn without_cancel(self: &Arc<Node>) -> Arc<Node> {
        let kind = Kind::WithoutCancel;
        Node::new(ENDLESS | LINKED, Some(self.clone()), None, kind)
    }

    pub(crate) fn with_deadline(self: &Arc<Node>, at: Instant, cause: Option<Cause>) -> Arc<Node> {
        let mut flags = self.inherited_flags();
        let own = self.deadline.is_none_or(|above| at < above);
        if own {
            flags |= OWN_DEADLINE;
            self.mark_timed();
        }
        let deadline = if own { Some(at) } else { self.deadline };
        let kind = Kind::WithDeadline { cause };
        let child = Node::new(flags, Some(self.clone()), deadline, kind);
        if own && at <= Instant::now() {
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
        let mut flags = self.inherited_flags() | (self.flags() & other.flags() & ENDLESS);
        let mut deadline = self.deadline;
        let mut cause = None;
        if let Some(theirs) = other.deadline {
            if deadline.is_none_or(|ours| theirs < ours) {
                deadline = Some(theirs);
                cause = other.deadline_cause();
                flags |= OWN_DEADLINE;
                self.mark_timed();
            }
        }
        let merge = Merge {
            other: Some(other.clone()),
            entry: AtomicUsize::new(0),
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
        other.mark_timed();
        other.link();
        let entry = other.subscribe(Link::Child(Arc::downgrade(&child)));
        if let (Kind::Merge(merge), Ok(entry)) = (&child.kind, entry) {
            merge.entry.store(entry + 1, Ordering::Release);
        }
        // Asked once more, after linking: an end that came before it was told to nobody.
        if let Some(end) = other.end() {
            child.latch(end.clone());
        }
        child
    }

    /// Sets `TIMED` here and on every ancestor, from the top down: where it is set, it is set all the way up.
    fn mark_timed(&self) {
        let mut unmarked = Vec::new();
        let mut node = Some(self);
        while let Some(current) = node.filter(|node| !node.has(TIMED | ENDLESS)) {
            unmarked.push(current);
            node = current.above();
        }
        for node in unmarked.into_iter().rev() {
            node.flags.fetch_or(TIMED, Ordering::AcqRel);
        }
    }
}

/// Reading.
impl Node {
    /// `Acquire` pairs with the `AcqRel` of every write: whoever sees a bit sees what was done before it was set.
    #[inline]
    fn flags(&self) -> u8 {
        self.flags.load(Ordering::Acquire)
    }

    #[inline]
    fn has(&self, bits: u8) -> bool {
        self.flags() & bits != 0
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
    pub(crate) fn is_endless(&self) -> bool {
        self.has(ENDLESS)
    }

    /// The node that ends come from.
    fn above(&self) -> Option<&Node> {
        match self.kind {
            Kind::WithoutCancel => None,
            _ => self.parent.as_deref(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        let flags = self.flags();
        if flags & ENDED != 0 {
            return true;
        }
        if flags & LINKED != 0 && self.deadline.is_none() {
            return false;
        }
        self.end().is_some()
    }

    /// The end as the error that users see.
    pub(crate) fn err(&self) -> Option<ContextError> {
        self.end().map(|end| end.error.clone())
    }

    fn end(&self) -> Option<&End> {
        if self.has(ENDED) {
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
    /// `now` is `None` for one before any deadline. Without it the way up ends at the first linked node, which would have
    /// been told. With it, it goes to the top: the deadline may be one from above, and then it ends those nodes first
    /// (invariant 2), unless one of them was cancelled before.
    fn end_at(&self, now: Option<Instant>) -> Option<&End> {
        let passed =
            |node: &Node| matches!((node.deadline, now), (Some(at), Some(now)) if at <= now);
        // The highest node that has ended or whose deadline has passed, as its distance from here.
        let mut source = passed(self).then_some(0);
        let mut node = self;
        let mut distance = 0;
        loop {
            if node.has(ENDED) {
                source = Some(distance);
                break;
            }
            if now.is_none() && node.has(LINKED) {
                break;
            }
            let Some(above) = node.above() else { break };
            node = above;
            distance += 1;
            if passed(node) {
                source = Some(distance);
            }
        }
        self.latch_down_from(source?);
        self.end.get()
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
        if self.has(ENDED) {
            return;
        }
        let own = self.deadline.filter(|_| self.has(OWN_DEADLINE));
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
    fn deadline_cause(&self) -> Option<Cause> {
        let mut node = Some(self);
        while let Some(current) = node {
            if current.has(OWN_DEADLINE) {
                return current.own_deadline_cause();
            }
            node = current.above();
        }
        None
    }

    /// Writes the end, if it is the first (invariant 1). Never called under a lock: a losing `end` is dropped here.
    fn latch(&self, end: End) {
        let _ = self.end.set(end);
        // Also where it lost: whoever returns from here finds the flag set. AcqRel orders it with WATCHED (invariant 5).
        self.flags.fetch_or(ENDED, Ordering::AcqRel);
    }
}

/// Ending and telling.
impl Node {
    /// Ends the node unless it has ended, and returns when everything below has ended too.
    pub(crate) fn cancel(self: &Arc<Node>, cause: Option<Cause>) {
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
        let mut waiting = Vec::new();
        let mut children = Vec::new();
        let mut next = 0;
        while let Some(node) = told.get(next).cloned() {
            next += 1;
            let Some(end) = node.end.get() else { continue };
            node.links.lock().collect(&mut waiting, &mut children);
            for child in children.drain(..) {
                child.hear(end);
                if !child.has(WATCHED) || child.has(TOLD) {
                    continue;
                }
                // Noted only where `told` keeps it alive, or its address could come again.
                if !matches!(child.kind, Kind::Merge(_)) || merged.insert(Arc::as_ptr(&child)) {
                    told.push(child);
                }
            }
        }
        for node in &told {
            node.flags.fetch_or(TOLD, Ordering::AcqRel);
            let links = std::mem::replace(&mut *node.links.lock(), Links::new());
            drop(links);
        }
        links::wake_all(waiting);
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

/// Waiting.
impl Node {
    /// Links the node and its ancestors, from the top down (invariant 4).
    ///
    /// An ancestor found ended on the way ends the ones below it by asking, so `subscribe`, which comes next, sees it.
    pub(crate) fn link(self: &Arc<Node>) {
        if self.has(LINKED) {
            return;
        }
        let mut unlinked = vec![self];
        let mut node = self;
        while let Some(parent) = node.parent.as_ref().filter(|parent| !parent.has(LINKED)) {
            unlinked.push(parent);
            node = parent;
        }
        for node in unlinked.into_iter().rev() {
            node.link_to_parent();
        }
    }

    fn link_to_parent(self: &Arc<Node>) {
        let Some(parent) = &self.parent else { return };
        match parent.subscribe(Link::Child(Arc::downgrade(self))) {
            // Two threads may get here with one node; the slower one takes its entry back. Meanwhile there are two, and
            // being told twice is no more than being told once.
            Ok(entry) => {
                let won =
                    self.entry
                        .compare_exchange(0, entry + 1, Ordering::AcqRel, Ordering::Acquire);
                if won.is_err() {
                    parent.unsubscribe(entry);
                }
            }
            Err(_) => {
                self.end();
            }
        }
        self.flags.fetch_or(LINKED, Ordering::AcqRel);
    }

    /// Adds an entry, or hands it back if the node has ended (invariant 5).
    pub(crate) fn subscribe(&self, link: Link) -> Result<usize, Link> {
        let mut links = self.links.lock();
        let flags = match self.flags() {
            flags if flags & WATCHED != 0 => flags,
            _ => self.flags.fetch_or(WATCHED, Ordering::AcqRel),
        };
        if flags & ENDED != 0 {
            return Err(link);
        }
        Ok(links.insert(link))
    }

    /// Makes the entry wake `waker` from now on. An entry that is not there any more has been told.
    pub(crate) fn resubscribe(&self, entry: usize, waker: &Waker) {
        if self.links.lock().will_wake(entry, waker) {
            return;
        }
        let new = waker.clone();
        let old = self.links.lock().replace_waker(entry, new);
        drop(old);
    }

    pub(crate) fn unsubscribe(&self, entry: usize) {
        let link = self.links.lock().remove(entry);
        drop(link);
    }
}

#[cfg(feature = "tokio-util")]
impl Node {
    /// The token of this node, made now if it has none; cancelled with the node.
    ///
    /// Each ancestor that can end gets one too, so that it is the tokens' own tree that carries an end down: a token
    /// outlives the contexts that it was made from.
    pub(crate) fn token(self: &Arc<Node>) -> tokio_util::sync::CancellationToken {
        let mut path = vec![self];
        while let Some(parent) = path.last().and_then(|node| node.parent.as_ref()) {
            if parent.is_endless() {
                break;
            }
            path.push(parent);
        }
        let mut above: Option<tokio_util::sync::CancellationToken> = None;
        for node in path.into_iter().rev() {
            let new = above
                .as_ref()
                .map_or_else(Default::default, |token| token.child_token());
            let token = {
                let mut links = node.links.lock();
                node.flags.fetch_or(WATCHED, Ordering::AcqRel);
                links.token(new)
            };
            if node.is_done() {
                token.cancel();
            }
            above = Some(token);
        }
        above.unwrap_or_default()
    }

    /// Whether an end may reach this node other than by a cancel of it or of an ancestor.
    pub(crate) fn ends_only_by_cancel(&self) -> bool {
        let mut node = Some(self);
        while let Some(current) = node {
            if matches!(current.kind, Kind::Merge(_)) {
                return false;
            }
            node = current.above();
        }
        self.deadline.is_none()
    }
}

#[cfg(any(feature = "signal", feature = "tokio-util"))]
impl Node {
    /// A child that something outside the tree ends.
    pub(crate) fn with_external(self: &Arc<Node>, name: &'static str) -> Arc<Node> {
        let kind = Kind::External(External {
            name,
            tether: OnceLock::new(),
        });
        let flags = self.inherited_flags();
        Node::new(flags, Some(self.clone()), self.deadline, kind)
    }

    /// Gives a node from `with_external` what must live as long as it does.
    pub(crate) fn tether(&self, tether: Box<dyn Any + Send + Sync>) {
        if let Kind::External(external) = &self.kind {
            // The node is not shared yet: this is the only write.
            let _ = external.tether.set(tether);
        }
    }
}

/// Leaving.
impl Node {
    /// Takes back the entries above: there is nothing to tell this node any more.
    fn unlink(&self) {
        let Some(parent) = &self.parent else { return };
        if let Some(entry) = taken(&self.entry) {
            parent.unsubscribe(entry);
        }
        if let Kind::Merge(merge) = &self.kind {
            if let (Some(other), Some(entry)) = (&merge.other, taken(&merge.entry)) {
                other.unsubscribe(entry);
            }
        }
    }

    /// Takes the node out of the tree, and hands over what it kept alive above: its parent, and a second one for a merge.
    fn detach(&mut self, others: &mut Vec<Arc<Node>>) -> Option<Arc<Node>> {
        self.unlink();
        if let Kind::Merge(merge) = &mut self.kind {
            others.extend(merge.other.take());
        }
        self.parent.take()
    }
}

/// Takes a key from where it is kept, plus one; whoever takes it removes the entry.
fn taken(entry: &AtomicUsize) -> Option<usize> {
    match entry.load(Ordering::Acquire) {
        0 => None,
        _ => entry.swap(0, Ordering::AcqRel).checked_sub(1),
    }
}

impl Drop for Node {
    /// Unlinks the node, and with it every ancestor that only it kept alive, in a loop: a chain of 100,000 contexts would
    /// overflow the stack otherwise.
    fn drop(&mut self) {
        let mut others = Vec::new();
        let mut next = self.detach(&mut others);
        while let Some(node) = next {
            next = Arc::into_inner(node)
                .and_then(|mut node| node.detach(&mut others))
                .or_else(|| others.pop());
        }
    }
}
