//! A worker that does not pull for a while: it backs off or parks.

use std::task;

use crate::fan_out::backoff::Backoff;
use crate::fan_out::parking::ParkId;
use crate::fan_out::pulls::Pulls;
use crate::scheduler::Scheduler;
use crate::scheduler::permits::Permits;
use crate::scheduler::state::State;
use crate::sync::Arc;

/// Why a worker parks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing can be pulled now.
    Nothing,
    /// Another worker uses the iterator. The parking worker returns its permit.
    InUse,
}

impl<S: Pulls> Scheduler<S> {
    /// Decides whether a searching worker backs off. `Some` if it does; it is woken again then.
    pub(super) fn back_off(
        &self,
        mut backoff: Backoff,
        cx: &mut task::Context<'_>,
    ) -> Option<Backoff> {
        // A worker that backs off comes here again at once. So it reads nothing of the scheduler
        // between two looks: that would take cache lines away from the worker that pulls.
        if !backoff.has_threads {
            return self.waits_behind_driver(cx).then_some(backoff);
        }
        let is_first = backoff.is_first_look();
        let backs_off = backoff.others_are_quick(|| S::pulled(self))
            && (!is_first || self.with_permits(Permits::hold_searcher_back));
        if backs_off {
            cx.waker().wake_by_ref();
        }
        backs_off.then_some(backoff)
    }

    /// Parks a worker, unless nothing more will come.
    pub(super) fn park(
        self: &Arc<Self>,
        found: Found,
        cx: &mut task::Context<'_>,
    ) -> Option<ParkId> {
        let waker = cx.waker().clone();
        let parked = self.with_effects(|state, effects| {
            if found == Found::InUse {
                state.source.block();
                state.return_unused_permit(effects);
            }
            if !state.can_park() {
                effects.stale_wakers.push(waker);
                return None;
            }
            Some(state.source.parking().park(waker))
        });
        if found == Found::InUse {
            S::look_again(self);
        }
        parked
    }

    /// Ends a stay. Returns whether the worker was woken as a searching worker.
    pub(super) fn unpark(self: &Arc<Self>, id: ParkId) -> bool {
        self.with_effects(|state, effects| {
            let waker = state.source.parking().unpark(id);
            let was_woken = waker.is_none();
            effects.stale_wakers.extend(waker);
            was_woken
        })
    }
}

impl<S: Pulls> State<S> {
    /// Returns whether a worker that cannot pull now should stay, because more items will come.
    pub(super) fn can_park(&mut self) -> bool {
        self.is_open() && self.source.is_pulling() && self.source.parking().has_room()
    }
}
