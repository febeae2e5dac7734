//! Linking a node to the ones above when somebody begins to wait, and unlinking it when it ends or goes.

use std::task::Waker;

use super::flags::{HAS_LISTENERS, LATCHED};
use super::{Kind, Node};
use crate::context::listeners::Listener;
use crate::sync::Arc;

impl Node {
    /// Links the node and its ancestors, from the top down (invariant 4).
    ///
    /// An ancestor found ended on the way ends the ones below it by asking, so `subscribe`, which comes next, sees it.
    pub(crate) fn link(self: &Arc<Node>) {
        if !self.flags.is_unlinked() {
            return;
        }
        let mut unlinked = vec![self];
        let mut node = self;
        while let Some(parent) = node
            .parent
            .as_ref()
            .filter(|parent| parent.flags.is_unlinked())
        {
            unlinked.push(parent);
            node = parent;
        }
        for node in unlinked.into_iter().rev() {
            node.link_to_parent();
        }
    }

    fn link_to_parent(self: &Arc<Node>) {
        let Some(parent) = &self.parent else { return };
        match parent.subscribe(Listener::Child(Arc::downgrade(self))) {
            // Two threads may get here with one node; the slower one takes its entry back. Meanwhile there are two, and
            // being told twice is no more than being told once.
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

    /// Adds an entry, or hands it back if the node has ended (invariant 5).
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

    /// Makes the entry wake `waker` from now on. An entry that is not there any more has been told.
    pub(crate) fn resubscribe(&self, key: usize, waker: &Waker) {
        if self.listeners.lock().will_wake(key, waker) {
            return;
        }
        let new = waker.clone();
        let old = self.listeners.lock().replace_waker(key, new);
        drop(old);
    }

    pub(crate) fn unsubscribe(&self, key: usize) {
        let listener = self.listeners.lock().remove(key);
        drop(listener);
    }
}

impl Node {
    /// Takes back the entries above: there is nothing to tell this node any more.
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

    /// Takes the node out of the tree, and hands over what it kept alive above: its parent, and a second one for a merge.
    fn detach(&mut self, others: &mut Vec<Arc<Node>>) -> Option<Arc<Node>> {
        self.unlink();
        if let Kind::Merge(merge) = &mut self.kind {
            others.extend(merge.other.take());
        }
        self.parent.take()
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
