//! Blocking closures. They are never polled, so a pending poll inside lends at once.
//!
//! For the same reason it is not known when a closure begins to wait again. It may have its permit
//! for one of its awaitables, or because it has dropped one, and then wait for another one whose
//! last poll was before that. If nothing polled that one again, the closure would wait with its
//! permit. So all pending awaitables of a closure are woken when it holds its permit again, and
//! when a poll of a job on its behalf has ended. Those that the closure waits for are polled, and
//! lend the permit again. The others are not polled, and the closure keeps its permit.

use std::task::Waker;

use super::lenders::{Lender, TaskPermit};
use super::{Claimant, LenderId};
use crate::scheduler::permits::Permits;
use crate::scheduler::wakers::Taken;

impl Permits {
    /// Registers a blocking closure, which is never polled.
    pub(crate) fn register_blocking_lender(&mut self) -> LenderId {
        self.insert_lender(Lender::new(0))
    }

    /// Returns a claimant for an awaitable of a blocking closure.
    pub(crate) fn claimant(&mut self) -> Claimant {
        self.lenders.next += 1;
        Claimant::Blocking(self.lenders.next)
    }

    /// Lends the permit of a closure that has polled a pending awaitable with `waker`. Returns
    /// whether the permit became free.
    pub(crate) fn lend_in_closure(
        &mut self,
        (id, claimant): (LenderId, Claimant),
        waker: Waker,
        wakers: &mut Taken<'_>,
    ) -> bool {
        let lends = self.lend(id);
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            wakers.unneeded.push(waker);
            return lends;
        };
        let reserved = lender.reserved.len();
        lender
            .reserved
            .retain(|it| !matches!(it, Claimant::Blocking(_)));
        if lender.reserved.len() < reserved {
            // The closure may never poll the awaitable for which the permit was reserved. So this
            // one is polled again, and lends then, unless the other one was polled in between.
            wakers.wake.push(waker);
        } else {
            let old = lender.awaited.insert(claimant, waker);
            wakers.unneeded.extend(old);
        }
        lends
    }

    /// Notes that an awaitable of a closure is decided, or that the closure has dropped it.
    pub(crate) fn end_await(&mut self, id: LenderId, claimant: Claimant, wakers: &mut Taken<'_>) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            wakers.unneeded.extend(lender.awaited.remove(&claimant));
        }
    }

    /// Uses the permit that was reserved: the closure continues.
    pub(crate) fn take_reserved(&mut self, id: LenderId, claimant: Claimant) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.reserved.remove(&claimant);
        }
    }

    /// Takes the permit back for a closure that has dropped what it awaited. The closure continues
    /// at once and cannot be made to wait, so this may exceed the limit.
    pub(crate) fn retake(&mut self, id: LenderId, claimant: Claimant, wakers: &mut Taken<'_>) {
        self.end_await(id, claimant, wakers);
        self.abandon(id, claimant, wakers);
        let lenders = &mut *self.lenders;
        let Some(lender) = lenders.tasks.get_mut(&id) else {
            return;
        };
        if let TaskPermit::Claimed(claim) = lender.permit {
            lenders.claims.remove(&claim);
        }
        if lender.permit != TaskPermit::Held {
            lender.hold(wakers.wake);
            self.running += 1;
        }
    }
}
