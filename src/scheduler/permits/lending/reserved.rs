//! Permits that were reserved, and the tasks that run on them.
//!
//! A task that awaits a reservation of its own group has lent its permit. If it had to claim that
//! permit back when the reservation is granted, it would wait forever at a limit of 1, because the
//! reserved permit is the only one. So it runs on the reserved permit.
//!
//! ```text
//!           the reservation                           a job has started with it
//!     Lent ── is granted ────► attached: runs on ──┬──────────────────────────► Lent, claims
//!                              the reserved permit └──────────────────────────► Held
//!                                                     it was given back in a poll
//! ```
//!
//! # Invariants
//!
//! 1. `running` counts a reserved permit once, whether it is attached or not. A task with attached
//!    permits and without one of its own counts for nothing else.
//! 2. A permit is attached to at most one task, and only if that task holds no permit of its own.
//!    So a task that holds its own permit and then reserves one has both, and lends its own when it
//!    waits again.
//! 3. A task with an attached permit may be polled. It lends nothing when it waits: its own permit
//!    is lent already, and the reserved one may be used at any moment.
//! 4. When the last attached permit is given back while a poll runs under it, it becomes the task's
//!    own. When a job starts with it, the task claims its own before it is polled again: at the end
//!    of its poll, unless it waits for its group then. A job that is started in a poll under the
//!    permit starts when that poll has ended ([`defer`](crate::scheduler::current::defer)). So the
//!    limit holds. If the permit is used anywhere else, a poll of the task may be running, and that
//!    poll is one more than the limit allows.
//! 5. A reservation may be awaited by a job of another scheduler on behalf of a task of this one.
//!    The job is noted at the grant, and the permit is attached to the task when the job reserves
//!    the task's permit for its next poll, because only then is it known which task that is.
//! 6. If a task has claimed its permit and another one is attached to it, the claim is withdrawn in
//!    the same critical section, and the claimants are woken.

use std::collections::BTreeMap;
use std::task::Waker;

use super::{Claimant, LenderId, ReservedId, TaskPermit, Waiter};
use crate::scheduler::permits::Permits;
use crate::scheduler::wakers::Wakers;

/// The reserved permits of a scheduler that concern its lenders.
pub(super) struct Reserved {
    /// The task to which a permit is attached. The task may have ended.
    attached: BTreeMap<ReservedId, LenderId>,
    /// The job of another scheduler that awaited a permit which was granted.
    granted_to: BTreeMap<ReservedId, Claimant>,
    /// Tasks that had claimed their permit when one was attached.
    withdraw: Vec<LenderId>,
}

impl Reserved {
    pub(super) const fn new() -> Reserved {
        Reserved {
            attached: BTreeMap::new(),
            granted_to: BTreeMap::new(),
            withdraw: Vec::new(),
        }
    }
}

impl Permits {
    /// Notifies the waiter of a reservation that its permit is granted. `job` is the job of another
    /// scheduler that awaits it, if one does. The caller grants claims next.
    pub(crate) fn decide_reserved(
        &mut self,
        reserved: ReservedId,
        job: Option<Claimant>,
        waiter: Waiter,
        wake: &mut Wakers,
    ) {
        match (&waiter.lent, job) {
            (Some(lent), _) => {
                let id = lent.lender;
                if self.attach(id, reserved) {
                    // If it was awaited in a list, that may not exist any more.
                    let lender = self.lenders.tasks.get_mut(&id);
                    wake.extend(lender.and_then(|lender| lender.waker.take()));
                }
            }
            (None, Some(job)) => _ = self.lenders.reserved.granted_to.insert(reserved, job),
            (None, None) => {}
        }
        self.decide(waiter, wake);
    }

    /// Attaches a reserved permit to a task, unless the task holds a permit of its own. Returns
    /// whether it did.
    pub(crate) fn attach(&mut self, id: LenderId, reserved: ReservedId) -> bool {
        let lenders = &mut *self.lenders;
        let Some(lender) = lenders.tasks.get_mut(&id) else {
            return false;
        };
        match lender.permit {
            TaskPermit::Held => return false,
            TaskPermit::Lent => {}
            TaskPermit::Claimed(_) => lenders.reserved.withdraw.push(id),
        }
        lender.attached += 1;
        lenders.reserved.attached.insert(reserved, id);
        true
    }

    /// Attaches a permit that was granted to `job`, which is about to be polled on the task's
    /// behalf.
    pub(super) fn attach_granted(&mut self, id: LenderId, job: Claimant) {
        let granted_to = &self.lenders.reserved.granted_to;
        let granted = granted_to.iter().find(|(_, it)| **it == job);
        if let Some(reserved) = granted.map(|(reserved, _)| *reserved) {
            if self.attach(id, reserved) {
                self.lenders.reserved.granted_to.remove(&reserved);
            }
        }
    }

    /// Notes that the owner of a reservation has taken its permit.
    pub(crate) fn take_granted(&mut self, reserved: ReservedId) {
        if !self.lenders.reserved.granted_to.is_empty() {
            self.lenders.reserved.granted_to.remove(&reserved);
        }
    }

    /// Returns the task to which a reserved permit is attached. It may have ended.
    pub(crate) fn attached_to(&self, reserved: ReservedId) -> Option<LenderId> {
        self.lenders.reserved.attached.get(&reserved).copied()
    }

    /// Notes that a job starts with a reserved permit, which is the job's from now on.
    pub(crate) fn use_reserved(&mut self, reserved: ReservedId) {
        self.detach(reserved);
    }

    /// Takes a reserved permit back. Returns whether a permit became free.
    pub(crate) fn give_back(&mut self, reserved: ReservedId) -> bool {
        self.take_granted(reserved);
        if let Some(id) = self.detach(reserved) {
            if let Some(lender) = self.lenders.tasks.get_mut(&id) {
                let is_needed = lender.polls > 0 || !lender.reserved.is_empty();
                if !lender.has_permit() && is_needed {
                    lender.permit = TaskPermit::Held;
                    return false;
                }
            }
        }
        self.running -= 1;
        true
    }

    fn detach(&mut self, reserved: ReservedId) -> Option<LenderId> {
        // Before it looks in `Lenders` to change them: most schedulers have none.
        self.attached_to(reserved)?;
        let id = self.lenders.reserved.attached.remove(&reserved)?;
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.attached -= 1;
        }
        Some(id)
    }

    /// Claims the permit of a task whose last attached permit was used during the poll that has
    /// just ended, unless the task waits for its group. Returns whether it did.
    pub(super) fn claim_if_used_up(&mut self, id: LenderId, waker: &Waker) -> bool {
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            return false;
        };
        let is_waiting = lender.waits || lender.listed > 0;
        if lender.permit != TaskPermit::Lent || lender.attached > 0 || is_waiting {
            return false;
        }
        // The waker of a worker, so no user code runs.
        lender.claimants.insert(Claimant::Task, waker.clone());
        self.claim(id);
        true
    }

    /// Returns whether claims have to be withdrawn, which `grant` does.
    pub(crate) fn must_withdraw_claims(&self) -> bool {
        !self.lenders.reserved.withdraw.is_empty()
    }

    /// Withdraws the claims of tasks to which a permit was attached.
    pub(super) fn withdraw_claims(&mut self, wake: &mut Wakers) {
        let lenders = &mut *self.lenders;
        for id in std::mem::take(&mut lenders.reserved.withdraw) {
            let Some(lender) = lenders.tasks.get_mut(&id) else {
                continue;
            };
            let TaskPermit::Claimed(claim) = lender.permit else {
                continue;
            };
            lender.permit = TaskPermit::Lent;
            lenders.claims.remove(&claim);
            lender.reserve_for_claimants(wake);
        }
    }
}
