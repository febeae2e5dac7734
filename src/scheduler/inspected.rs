//! What a scheduler tells the registry of itself.

use std::panic::Location;

use super::Scheduler;
use super::source::Source;
use crate::registry::{GroupId, GroupKind, Inspected, Look};
use crate::span::Span;
use crate::sync::{Arc, Weak};

impl<S: Source> Scheduler<S> {
    /// Enters the scheduler of a group or a fan-out that was made in `caller`.
    pub(crate) fn register(
        self: &Arc<Self>,
        caller: &Span,
        kind: GroupKind,
        site: &'static Location<'static>,
    ) {
        let this: Weak<Self> = Arc::downgrade(self);
        self.registered.enter(caller.caller(), kind, site, this);
    }

    /// Records how the context has ended, if it has.
    #[cold]
    pub(super) fn record_end(&self) {
        self.registered.ended(|| self.ctx().end_in_registry());
    }

    pub(crate) fn id_in_registry(&self) -> GroupId {
        self.registered.id()
    }

    /// Says that the group is one of another kind.
    pub(crate) fn set_kind(&self, kind: GroupKind) {
        self.registered.set_kind(kind);
    }
}

impl<S: Source> Inspected for Scheduler<S> {
    fn name(&self) -> Option<String> {
        S::name(&self.shared)
    }

    fn look(&self) -> Look {
        let ctx = self.ctx();
        // The end of the context may take locks of the tree, so it is read outside the lock.
        let end = ctx.end_in_registry();
        let deadline = ctx.deadline();
        let name = S::name(&self.shared);
        self.read(|state| Look {
            name,
            limit: Some(state.permits.limit()).filter(|limit| *limit != usize::MAX),
            running: Some(state.permits.running()),
            queued: state.source.queued(),
            is_waited_for: S::IS_A_CALL || state.is_waited_for(),
            is_over: !state.is_open() && !state.has_open(),
            grace: state.shutdown.grace,
            deadline,
            end,
            lent: state.permits.lent_by().collect(),
        })
    }
}
