//! Nodes that a signal or a token cancels, and tokens that a node cancels.

#[cfg(feature = "tokio-util")]
use tokio_util::sync::CancellationToken;

use std::any::Any;

use super::{External, Kind, Node};
use crate::sync::{Arc, OnceLock};

impl Node {
    /// Derives a child that a signal cancels.
    #[cfg(feature = "signal")]
    pub(crate) fn with_signal(self: &Arc<Node>) -> Arc<Node> {
        self.with_external(External {
            name: "WithSignals",
            kept_alive: OnceLock::new(),
            #[cfg(feature = "tokio-util")]
            source: None,
        })
    }

    /// Derives a child that `source` cancels.
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

    /// Stores `value` in a node that a signal or a token cancels, to be dropped with the node.
    pub(crate) fn keep_alive(&self, value: Box<dyn Any + Send + Sync>) {
        if let Kind::External(external) = &self.kind {
            // The only write: the function that made the node calls this once, and then returns.
            let _ = external.kept_alive.set(value);
        }
    }
}

#[cfg(feature = "tokio-util")]
impl Node {
    /// Returns the token of this node, which is cancelled together with the node. Makes one if
    /// there is none.
    ///
    /// Each ancestor that can end gets a token too. So the tokens form a tree of their own, down
    /// which a cancel is propagated, because a token may outlive the contexts that it was made
    /// from. The walk up stops at the first ancestor that has a token, since every ancestor above
    /// has one, too. So a chain in which each new context is asked for its token takes linear time.
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

    /// Returns the token that cancels this node.
    ///
    /// The token of the node is a child of it, so it is cancelled even if
    /// contexts between the two tokens were dropped.
    fn source(&self) -> Option<&CancellationToken> {
        match &self.kind {
            Kind::External(external) => external.source.as_ref(),
            _ => None,
        }
    }
}
