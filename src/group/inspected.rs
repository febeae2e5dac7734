//! What a group enters in the registry.

#[cfg(feature = "tower")]
use std::panic::Location;
use std::time::Duration;

#[cfg(feature = "tower")]
use tokio::time::Instant;

use super::Group;
#[cfg(feature = "tower")]
use crate::context::Context;
use crate::inspect::warn_stragglers;
use crate::registry::GroupKind;
#[cfg(feature = "tower")]
use crate::registry::{Entry, First, TaskKind};
use crate::scheduler::group_error::GroupError;
use crate::sync::Arc;

impl<E> Group<E>
where
    E: GroupError,
{
    /// Warns of tasks that ignore the cancellation, with feature `inspect`.
    ///
    /// While the group is waited for after its context was done, one `tracing` event at level
    /// `WARN` names each task that still runs: `after` the end of the context, and then each time
    /// that the time since the end has doubled. Nothing is said of a group whose tasks end in time.
    /// The event has the target `errgroup` and the fields `group`, `site`, `cause`, `elapsed` and
    /// `tasks`. A second call adds a second warner.
    ///
    /// It costs a task of the runtime, which waits for the end of the context.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    #[cfg_attr(docsrs, doc(cfg(feature = "inspect")))]
    #[track_caller]
    pub fn warn_stragglers(&self, after: Duration) {
        self.scheduler.bind("Group::warn_stragglers");
        let group = self.scheduler.id_in_registry();
        let (ctx, scheduler) = (
            self.scheduler.ctx().clone(),
            Arc::downgrade(&self.scheduler),
        );
        let Some(runtime) = self.scheduler.runtime() else {
            return;
        };
        drop(runtime.spawn(async move {
            ctx.done().await;
            // It must not keep a group that has been waited for.
            drop(ctx);
            let is_waited_for = || {
                let scheduler = scheduler.upgrade()?;
                scheduler.read(|state| state.has_open().then(|| state.is_waited_for()))
            };
            warn_stragglers(group, after, is_waited_for).await;
        }));
    }

    /// Says that the group is one of another kind.
    pub(crate) fn set_kind(&self, kind: GroupKind) {
        self.scheduler.set_kind(kind);
    }

    /// Enters a handler that runs inside its connection, as a task of the group. `ctx` is the
    /// handler's own context.
    #[cfg(feature = "tower")]
    pub(crate) fn enter_handler(
        &self,
        name: String,
        site: &'static Location<'static>,
        ctx: &Context,
    ) -> Entry {
        // A snapshot says how long ago it has ended.
        ctx.record_end_time();
        let group = self.scheduler.shared.span.caller();
        let entry = group.task(Some(&name.into()), site, TaskKind::Handler, First::Starts);
        entry.handler_started(Instant::now(), Arc::new(ctx.clone()));
        entry
    }
}
