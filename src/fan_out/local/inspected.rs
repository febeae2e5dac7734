//! The entry of a run on the caller's task in the registry.

use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;
use crate::fan_out::call_site::CallSite;
use crate::fan_out::limit::LimitHandle;
use crate::registry::recording::is_on;
use crate::registry::{GroupKind, Inspected, Look, Registered};

/// The entry, which is removed when this is dropped.
pub(super) struct InspectedRun {
    registered: Registered,
    /// What the entry points to.
    run: Arc<LocalGroup>,
}

/// What can be told of the run by another thread.
struct LocalGroup {
    ctx: Context,
    name: Option<String>,
    limit: usize,
    /// Changes the limit. `None` if no handle can.
    steering: Option<LimitHandle>,
    grace: Duration,
}

/// Enters a run.
pub(super) fn register(
    ctx: &Context,
    call_site: &CallSite,
    limit: usize,
    steering: Option<LimitHandle>,
    grace: Duration,
) -> InspectedRun {
    let run = Arc::new(LocalGroup {
        ctx: ctx.clone(),
        name: call_site.name.clone().map(String::from),
        limit,
        steering,
        grace,
    });
    ctx.record_end_time();
    let registered = Registered::new();
    let weak = Arc::downgrade(&run);
    let caller = call_site.span.caller();
    registered.enter(caller, GroupKind::FanOut, call_site.site, weak);
    InspectedRun { registered, run }
}

impl InspectedRun {
    /// Notes for a recorder how the context has ended.
    #[inline]
    pub(super) fn note_end(&self) {
        if is_on() {
            self.registered.ended(|| self.run.ctx.end_in_registry());
        }
    }
}

impl Inspected for LocalGroup {
    fn name(&self) -> Option<String> {
        self.name.clone()
    }

    fn look(&self) -> Look {
        Look {
            name: self.name.clone(),
            limit: match &self.steering {
                Some(handle) => handle.limit(),
                None => Some(self.limit).filter(|limit| *limit != usize::MAX),
            },
            // Its items are in the registry.
            running: None,
            queued: 0,
            is_waited_for: true,
            is_over: false,
            grace: Some(self.grace),
            deadline: self.ctx.deadline(),
            end: self.ctx.end_in_registry(),
            lent: Vec::new(),
        }
    }
}
