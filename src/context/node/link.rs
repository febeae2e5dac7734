//! Linking a node to its ancestors when a task begins to wait, and unlinking it when it is
//! cancelled or dropped.

use std::task::Waker;

use super::flags::{HAS_LISTENERS, LATCHED};
use super::{Kind, Node};
use crate::context::listeners::Listener;
use crate::sync::Arc;

impl Node {
    /// Links the node and its ancestors, from the top down (invariant 4).
    ///
    /// If an ancestor turns out to be done, the nodes below it latch its end on the way. So the
    /// `subscribe` that comes next fails, or the cancel that is running finds the listener.
    pub(crate) fn link(self: &Arc<Node>) {
        if !self.flags.is_unlinked() {
            return;
        }
        if let Some(parent) = self.unlinked_parent() {
            parent.link_ancestors();
            parent.link_to_parent();
        }
        self.link_to_parent();
    }

    /// Links the ancestors. Most nodes that are linked have one or none above them that is not, and
    /// a list for these would cost more than the rest.
    fn link_ancestors(self: &Arc<Node>) {
        let mut unlinked = Vec::new();
        let mut node = self;
        while let Some(parent) = node.unlinked_parent() {
            unlinked.push(parent);
            node = parent;
        }
        for node in unlinked.into_iter().rev() {
            node.link_to_parent();
        }
    }

    fn unlinked_parent(&self) -> Option<&Arc<Node>> {
        let parent = self.parent.as_ref();
        parent.filter(|parent| parent.flags.is_unlinked())
    }

    fn link_to_parent(self: &Arc<Node>) {
        let Some(parent) = &self.parent else { return };
        match parent.subscribe(Listener::Child(Arc::downgrade(self))) {
            // Two threads may link one node at the same time. The slower one removes its listener.
            // Until then the parent has two of them, which is harmless: the second notification
            // changes nothing.
            Ok(key) => {
                if !self.key_in_parent.set_if_none(key) {
                    parent.unsubscribe(key);
                }
            }
            Err(_) => {
                self.end();
            }
        }
        self.flags.set_linked();
    }

    /// Adds a listener and returns its key, or returns the listener if the node is latched
    /// (invariant 5).
    pub(crate) fn subscribe(&self, listener: Listener<Node>) -> Result<usize, Listener<Node>> {
        let mut listeners = self.listeners.lock();
        let flags = match self.flags.load() {
            flags if flags.has_any(HAS_LISTENERS) => flags,
            _ => self.flags.set_has_listeners(),
        };
        if flags.has_any(LATCHED) {
            return Err(listener);
        }
        Ok(listeners.insert(listener))
    }

    /// Makes the listener wake `waker` from now on. A listener that has been removed was notified.
    pub(crate) fn resubscribe(&self, key: usize, waker: &Waker) {
        if self.will_wake(key, waker) {
            return;
        }
        // Cloning and dropping a waker is user code: not under the lock (invariant 7).
        let new = waker.clone();
        let old = self.listeners.lock().replace_waker(key, new);
        drop(old);
    }

    /// Returns true if the listener wakes `waker`, or if it has been removed.
    pub(crate) fn will_wake(&self, key: usize, waker: &Waker) -> bool {
        self.listeners.lock().will_wake(key, waker)
    }

    pub(crate) fn unsubscribe(&self, key: usize) {
        let listener = self.listeners.lock().remove(key);
        drop(listener);
    }
}

impl Node {
    /// Removes the listeners of this node from the nodes above: it needs no notification any more.
    pub(super) fn unlink(&self) {
        let Some(parent) = &self.parent else { return };
        if let Some(key) = self.key_in_parent.take() {
            parent.unsubscribe(key);
        }
        if let Kind::Merge(merge) = &self.kind {
            if let (Some(other), Some(key)) = (&merge.other, merge.key_in_other.take()) {
                other.unsubscribe(key);
            }
        }
    }

    /// Unlinks the node and hands over the handles that it has on nodes above: returns its parent,
    /// and adds the second parent of a merged node to `others`.
    fn detach(&mut self, others: &mut Vec<Arc<Node>>) -> Option<Arc<Node>> {
        self.unlink();
        if let Kind::Merge(merge) = &mut self.kind {
            others.extend(merge.other.take());
        }
        self.parent.take()
    }
}

impl Drop for Node {
    /// Unlinks the node and drops every ancestor that only it kept alive, in a loop: recursion
    /// would overflow the stack for a chain of 100,000 contexts. The loop ends because each step
    /// drops one handle.
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
