//! A worker that yields to the other tasks of the runtime, and a searching worker that waits behind
//! the timers and sockets.

use std::task;

use super::Scheduler;
use super::permits::{Permits, Yielded};
use super::source::{Completion, Source};
use crate::sync::{self, Arc};

impl<S: Source> Scheduler<S> {
    /// Completes the job of a worker that yields to the other tasks of the runtime. The worker is
    /// scheduled again only if no searching worker is on its way to take over.
    pub(crate) fn yield_worker(self: &Arc<Self>, mut completed: Option<Completion<S>>) -> Yielded {
        let ended = self.ctx.is_done();
        self.complete_observed(&mut completed);
        let yielded = self.with_effects(|state, effects| {
            if let Some(completed) = completed {
                state.complete(completed, effects);
            }
            state.start(ended, effects);
            if state.has_work() {
                state.permits.yields()
            } else {
                Yielded::Leaves
            }
        });
        if yielded == Yielded::Leaves {
            self.reap();
        }
        yielded
    }

    /// Returns whether a searching worker waits until the runtime has polled its timers and
    /// sockets; it is woken then. It does so on a runtime with one thread, when it takes over from
    /// a worker that has yielded.
    pub(crate) fn waits_behind_driver(&self, cx: &mut task::Context<'_>) -> bool {
        // The worker that has yielded meant to let all other tasks of the runtime run.
        let waits = !self.has_threads() && self.with_permits(Permits::takes_over);
        if waits {
            self.wake_behind_others(cx);
        }
        waits
    }

    /// Wakes a worker that yields, so that it is polled again behind the tasks that are ready.
    ///
    /// With several threads, another thread may take it meanwhile. With one thread, it is woken
    /// after the runtime has polled its timers and sockets. tokio polls those after 61 polls of
    /// tasks or when no task is ready, and 61 polls of a worker take long.
    pub(crate) fn wake_behind_others(&self, cx: &mut task::Context<'_>) {
        if self.has_threads() {
            cx.waker().wake_by_ref();
        } else {
            sync::wake_after_driver(cx);
        }
    }
}
