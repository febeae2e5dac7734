//! The contexts of the handlers of a `ContextLayer`. Each handler has one of its own, so the entry
//! of its group does not say whether it is to stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entries::{End, TaskId};
use crate::panic;

/// The context of a handler.
pub(crate) trait HandlerContext: Send + Sync {
    /// Returns how it has ended, if it has. Runs user code, so it must be called without a lock.
    fn end(&self) -> Option<End>;
}

/// The contexts of some handlers. Without feature `tower` it is empty.
#[derive(Clone, Default)]
pub(crate) struct HandlerContexts(BTreeMap<TaskId, Kept>);

/// A context that is kept. This may be its last owner, and drop the values in it. A panic of their
/// destructors is discarded.
#[derive(Clone)]
pub(super) struct Kept(Option<Arc<dyn HandlerContext>>);

impl HandlerContexts {
    pub(super) const fn new() -> HandlerContexts {
        HandlerContexts(BTreeMap::new())
    }

    /// Adds the context of a handler, which has none yet.
    #[cfg(feature = "tower")]
    pub(super) fn insert(&mut self, task: TaskId, ctx: Arc<dyn HandlerContext>) {
        self.0.insert(task, Kept(Some(ctx)));
    }

    /// Adds the contexts that `other` has.
    pub(super) fn add_all(&mut self, other: &HandlerContexts) {
        self.0.extend(other.0.clone());
    }

    /// Takes the context of a handler. It must be dropped without a lock.
    pub(super) fn take(&mut self, task: TaskId) -> Option<Kept> {
        self.0.remove(&task)
    }

    /// Takes the context of a handler, and returns how it has ended. `None` if it is live, or if
    /// the task is no handler.
    pub(crate) fn end_of(&mut self, task: TaskId) -> Option<End> {
        let kept = self.take(task)?;
        kept.0.as_ref()?.end()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(ctx) = self.0.take() {
            panic::discard(ctx);
        }
    }
}
