//! What ends a node from outside the tree, and what outside the tree a node ends.

#[cfg(feature = "tokio-util")]
use tokio_util::sync::CancellationToken;

use std::any::Any;

use super::{External, Kind, Node};
use crate::sync::{Arc, OnceLock};

impl Node {
    /// A child that a signal ends.
    #[cfg(feature = "signal")]
    pub(crate) fn with_signal(self: &Arc<Node>) -> Arc<Node> {
        self.with_external(External {
            name: "WithSignals",
            kept_alive: OnceLock::new(),
            #[cfg(feature = "tokio-util")]
            source: None,
        })
    }

    /// A child that `source` ends.
    #[cfg(feature = "tokio-util")]
    pub(crate) fn with_source(self: &Arc<Node>, source: CancellationToken) -> Arc<Node> {
        self.with_external(External {
            name: "FromCancellationToken",
            kept_alive: OnceLock::new(),
            source: Some(source),
        })
    }

    fn with_external(self: &Arc<Node>, external: External) -> Arc<Node> {
        let kind = Kind::External(external);
        let flags = self.inherited_flags();
        Node::new(flags, Some(self.clone()), self.deadline, kind)
    }

    /// Gives a node that is ended from outside what must live as long as it does.
    pub(crate) fn keep_alive(&self, value: Box<dyn Any + Send + Sync>) {
        if let Kind::External(external) = &self.kind {
            // The node is not shared yet: this is the only write.
            let _ = external.kept_alive.set(value);
        }
    }
}

#[cfg(feature = "tokio-util")]
impl Node {
    /// The token of this node, made now if it has none; cancelled with the node.
    ///
    /// Each ancestor that can end gets one too, so that it is the tokens' own tree that carries an
    /// end down: a token outlives the contexts that it was made from. The way up ends at the first
    /// ancestor that has a token, since what is above it has one, too: a chain in which each new
    /// context is asked for its token takes linear time.
    pub(crate) fn token(self: &Arc<Node>) -> CancellationToken {
        let mut above = None;
        let mut path = Vec::new();
        let mut next = Some(self);
        while let Some(node) = next.filter(|node| !node.never_ends()) {
            above = node.listeners.lock().token();
            if above.is_some() {
                break;
            }
            path.push(node);
            next = node.parent.as_ref();
        }
        for node in path.into_iter().rev() {
            let new = match above.as_ref().or(node.source()) {
                Some(above) => above.child_token(),
                None => CancellationToken::new(),
            };
            let token = {
                let mut listeners = node.listeners.lock();
                node.flags.set_has_listeners();
                listeners.token_or(new)
            };
            if node.is_done() {
                token.cancel();
            }
            above = Some(token);
        }
        above.unwrap_or_default()
    }

    /// The token that ends this node. The token of the node is a child of it, so that the one cancels
    /// the other without the node: neither a context that is dropped nor the number of those
    /// between two tokens makes a difference.
    fn source(&self) -> Option<&CancellationToken> {
        match &self.kind {
            Kind::External(external) => external.source.as_ref(),
            _ => None,
        }
    }
}
