//! `Display` and `Debug` of a context. They print its ancestry as Go does.

use std::fmt;

use tokio::time::Instant;

use super::Context;
use super::node::{Kind, Node};

/// Prints the ancestry, beginning with the root:
/// `context.Background.WithCancel.WithDeadline(.. [1.5s]).WithValue(app::RequestId)`.
///
/// The time that is left until a deadline is in brackets. A value is named by its type and never
/// printed.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = vec![&*self.node];
        while let Some(parent) = path.last().and_then(|node| node.parent()) {
            path.push(parent);
        }
        path.into_iter().rev().try_for_each(|node| step(node, f))
    }
}

fn step(node: &Node, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match node.kind() {
        Kind::Background => f.write_str("context.Background"),
        Kind::Todo => f.write_str("context.TODO"),
        Kind::WithCancel => f.write_str(".WithCancel"),
        Kind::WithDeadline { .. } => match node.deadline() {
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                write!(f, ".WithDeadline(.. [{left:?}])")
            }
            None => f.write_str(".WithDeadline(..)"),
        },
        Kind::WithValue(value) => write!(f, ".WithValue({})", (**value).type_name()),
        Kind::WithoutCancel => f.write_str(".WithoutCancel"),
        // The ancestry of the second parent is not printed: for a sequence of merges, the
        // text would be exponentially long.
        Kind::Merge(_) => f.write_str(".Merge(..)"),
        #[cfg(any(feature = "signal", feature = "tokio-util"))]
        Kind::External(external) => write!(f, ".{}", external.name),
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("path", &format_args!("{self}"))
            .field("err", &self.err())
            .finish_non_exhaustive()
    }
}
