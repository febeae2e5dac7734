//! What ends a node from outside the tree, and what outside the tree a node ends.

#[cfg(feature = "tokio-util")]
use tokio_util::sync::CancellationToken;

use std::any::Any;

#[cfg(feature = "tokio-util")]
use super::WATCHED;
use super::{External, Kind, Node};
#[cfg(feature = "tokio-util")]
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, OnceLock};

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

#[cfg(feature = "tokio-util")]
impl Node {
    /// The token of this node, made now if it has none; cancelled with the node.
    ///
    /// Each ancestor that can end gets one too, so that it is the tokens' own tree that carries an end down: a token
    /// outlives the contexts that it was made from.
    pub(crate) fn token(self: &Arc<Node>) -> CancellationToken {
        let mut path = vec![self];
        while let Some(parent) = path.last().and_then(|node| node.parent.as_ref()) {
            if parent.is_endless() {
                break;
            }
            path.push(parent);
        }
        let mut above: Option<CancellationToken> = None;
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
