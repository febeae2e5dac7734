//! Blocking closures. They are never polled, so a pending poll inside lends at once.

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

    /// Uses the permit that was reserved: the closure continues.
    pub(crate) fn take_reserved(&mut self, id: LenderId, claimant: Claimant) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.reserved.remove(&claimant);
        }
    }

    /// Takes the permit back for a closure that has dropped what it awaited. The closure continues
    /// at once and cannot be made to wait, so this may exceed the limit.
    pub(crate) fn retake(&mut self, id: LenderId, claimant: Claimant, wakers: &mut Taken<'_>) {
        self.abandon(id, claimant, wakers);
        let lenders = &mut *self.lenders;
        let Some(lender) = lenders.tasks.get_mut(&id) else {
            return;
        };
        if let TaskPermit::Claimed(claim) = lender.permit {
            lenders.claims.remove(&claim);
        }
        if lender.permit != TaskPermit::Held {
            lender.permit = TaskPermit::Held;
            self.running += 1;
            // Other awaitables of the closure may have claimed the permit. It is not reserved for
            // them: the closure runs on, and may never poll them. Those that it polls claim again.
            let claimants = std::mem::take(&mut lender.claimants);
            wakers.wake.extend(claimants.into_values());
        }
    }
}
