//! Which tasks have lent their permit, and what they wait for.
//!
//! A task that waits for a permit of its own group, or for a task of its own group, could wait
//! forever if it kept its permit. So it lends the permit, and it is not polled again until it has
//! one.
//!
//! ```text
//!            its poll ends, and it              it is woken            a permit is free
//!     Held ──── waits for its ───► Lent ─────── or what it ─► Claimed ─── (claims come ───► Held
//!               own group                       awaits is              before queued
//!                                               decided                tasks)
//! ```
//!
//! # Invariants
//!
//! 1. A job *waits for* a scheduler if an awaitable of that scheduler (an admission, a task handle,
//!    the end of a group or of a fan-out) was pending in the job's last poll. If the awaitable was
//!    polled through another waker than the job's own, the job waits until the awaitable is decided
//!    or dropped, because a list of futures polls a member only when that member was woken.
//! 2. A task lends its permit when it waits for its own scheduler: directly, or because it waits
//!    for a scheduler of which a job does, to any depth. Each scheduler knows what its jobs wait
//!    for (`abroad`) and which jobs wait for it (`awaiters`). A job that begins to wait first
//!    records that, and then searches for tasks that now wait for their own scheduler. So of two
//!    jobs that begin at the same time, the later one sees both records.
//! 3. A job is polled only while its task holds its permit. The same is true of a job of another
//!    scheduler that waited for this one on the task's behalf. It *reserves* the permit first. A
//!    permit that is reserved, or under which a poll is running, is not lent. So a permit that is
//!    granted leads to a poll, and the limit holds however tasks wait.
//! 4. Lending too often costs time and nothing else, because anything that wakes the task claims
//!    the permit back. So a task that no longer waits may be taken for one that does, but never the
//!    reverse.
//! 5. When an awaitable is decided, the permit of the task that waits for it is claimed at that
//!    moment. Otherwise a queued task would get the permit before the waiting task is polled.
//! 6. A permit that was reserved counts as in use from its grant until a job has started with it or
//!    it is given back. A task that has lent its own permit and gets the reserved one runs on that:
//!    it is *attached* to the task. See [`reserved`].
//! 7. A claimant that does not give up is woken when its claim ends, in whichever way that happens:
//!    the permit is granted, the task takes it back at once, or the task has ended. Nothing else
//!    would wake it, since a claim takes the place of the waker that a decision wakes.
//!
//! What is kept for each task is in [`lenders`], and invariant 2 in [`abroad`].

mod abroad;
mod blocking;
mod lenders;
mod reserved;

use std::task::Waker;

use super::Permits;
use crate::scheduler::wakers::{Taken, Wakers};
use crate::sync::Arc;
pub(crate) use abroad::{ActsFor, Edge, Lasts, Part, Target, all_asked, all_awaiters};
pub(crate) use lenders::LazyLenders;
use lenders::{Lender, TaskPermit};

/// A scheduler, as an awaitable or a job of another scheduler sees it: see
/// the head of this file.
pub(crate) trait Lending: Send + Sync {
    fn id(&self) -> SchedulerId;
    /// Returns whether everything was aborted, as far as this thread knows. Takes no lock.
    fn is_aborted(&self) -> bool;
    /// Runs `section` under the lock. The section must have no effects.
    fn read(&self, section: &mut dyn FnMut(&mut Permits));
    /// Runs `section` under the lock. The section adds the wakers that it takes out, and returns
    /// whether a permit has become free. A free permit is given to the next claim or job.
    fn update(self: Arc<Self>, section: &mut dyn FnMut(&mut Permits, &mut Taken<'_>) -> bool);
}

/// The id of a job that waits, within its scheduler. It is never reused, so a stale id finds
/// nothing.
pub(crate) type LenderId = u64;
/// The id of a scheduler while it exists: its address.
pub(crate) type SchedulerId = usize;

/// The id of a reserved permit while it exists: an address.
pub(crate) type ReservedId = usize;

/// The id of what reserves or claims the permit of a task: the task itself, or a job of another
/// scheduler.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claimant {
    Task,
    Job(SchedulerId, LenderId),
    /// One of the awaitables of a blocking closure.
    Blocking(u64),
}

/// How a task awaits an awaitable for which it lends its permit.
#[derive(Clone, Copy)]
pub(crate) struct Lent {
    pub(crate) lender: LenderId,
    /// Whether it was polled with the task's own waker, so that waking that waker leads to a poll.
    pub(crate) through: Through,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through {
    OwnWaker,
    List,
}

/// A waker that a decision wakes, with the task of the same group that awaits the decision, if one
/// does.
pub(crate) struct Waiter {
    pub(crate) waker: Waker,
    pub(crate) lent: Option<Lent>,
}

/// Permits of single tasks.
impl Permits {
    /// Returns the tasks that have lent their permit, and since when.
    #[cfg(feature = "inspect")]
    pub(crate) fn lent_by(
        &self,
    ) -> impl Iterator<Item = (crate::registry::TaskId, tokio::time::Instant)> {
        let lent = self.lenders.tasks.values().filter(|it| !it.has_permit());
        lent.filter_map(|lender| lender.task.zip(lender.lent_at))
    }

    /// Registers a job that begins to wait during a poll.
    pub(crate) fn register_lender(&mut self) -> LenderId {
        self.insert_lender(Lender::new(1))
    }

    fn insert_lender(&mut self, lender: Lender) -> LenderId {
        let lenders = &mut *self.lenders;
        lenders.next += 1;
        lenders.tasks.insert(lenders.next, lender);
        lenders.next
    }

    /// Reserves the permit of a task for the next poll of `claimant`. Returns whether it did. If
    /// the permit is lent, claims it, and `waker` is woken when it is granted.
    pub(crate) fn reserve(
        &mut self,
        id: LenderId,
        claimant: Claimant,
        waker: Waker,
        wakers: &mut Taken<'_>,
    ) -> bool {
        self.attach_granted(id, claimant);
        let may_take = self.running < self.limit.max(1) && !self.lenders.has_claims();
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            wakers.unneeded.push(waker);
            return true;
        };
        if lender.permit == TaskPermit::Lent && lender.attached == 0 && may_take {
            lender.hold(wakers.wake);
            self.running += 1;
        }
        if lender.has_permit() {
            lender.reserved.insert(claimant);
            wakers.unneeded.push(waker);
            return true;
        }
        let old = lender.claimants.insert(claimant, waker);
        wakers.unneeded.extend(old);
        self.claim(id);
        false
    }

    /// Begins the poll for which the permit was reserved.
    pub(crate) fn begin_poll(&mut self, id: LenderId, claimant: Claimant) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.reserved.remove(&claimant);
            lender.polls += 1;
            if claimant == Claimant::Task {
                lender.is_woken = false;
            }
        }
    }

    /// Ends a poll in which the task itself was pending. Returns whether its permit became free, or
    /// was claimed.
    pub(crate) fn end_own_poll(&mut self, id: LenderId, waits: bool, waker: &Waker) -> bool {
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            return false;
        };
        lender.polls -= 1;
        lender.waits = waits;
        if lender.listed > 0 && !lender.waker.as_ref().is_some_and(|it| it.will_wake(waker)) {
            // The waker of a worker, so no user code runs.
            lender.waker = Some(waker.clone());
        }
        self.lend_if_waiting(id) || self.claim_if_used_up(id, waker)
    }

    /// Ends a poll of a job on the task's behalf. Returns whether the permit became free.
    pub(crate) fn end_poll_for(&mut self, id: LenderId) -> bool {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.polls -= 1;
        }
        self.lend_if_waiting(id)
    }

    fn lend_if_waiting(&mut self, id: LenderId) -> bool {
        let lender = self.lenders.tasks.get(&id);
        lender.is_some_and(|lender| lender.waits || lender.listed > 0) && self.lend(id)
    }

    /// Lends the permit of a task that waits for its own scheduler, unless a poll needs it. Returns
    /// whether the permit became free.
    pub(crate) fn lend(&mut self, id: LenderId) -> bool {
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            return false;
        };
        let lends = self.lends
            && lender.permit == TaskPermit::Held
            && lender.polls == 0
            && lender.reserved.is_empty()
            && !lender.is_woken;
        if lends {
            lender.permit = TaskPermit::Lent;
            #[cfg(feature = "inspect")]
            {
                lender.lent_at = Some(tokio::time::Instant::now());
            }
            self.running -= 1;
        }
        lends
    }

    /// Removes a claimant that will not poll. Returns whether the permit became free.
    pub(crate) fn abandon(
        &mut self,
        id: LenderId,
        claimant: Claimant,
        wakers: &mut Taken<'_>,
    ) -> bool {
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            return false;
        };
        lender.reserved.remove(&claimant);
        wakers.unneeded.extend(lender.claimants.remove(&claimant));
        if lender.claimants.is_empty() {
            if let TaskPermit::Claimed(claim) = lender.permit {
                lender.permit = TaskPermit::Lent;
                self.lenders.claims.remove(&claim);
            }
        }
        self.lend_if_waiting(id)
    }

    /// Notes that the task awaits one more awaitable through a list's waker.
    pub(crate) fn list(&mut self, id: LenderId) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.listed += 1;
        }
    }

    /// Notes that such an awaitable was dropped, or is now polled by another task.
    pub(crate) fn unlist(&mut self, id: LenderId) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.listed -= 1;
        }
    }

    /// Notifies a waiter of a decision: wakes it, or claims its permit first.
    pub(crate) fn decide(&mut self, waiter: Waiter, wake: &mut Wakers) {
        let Waiter { waker, lent } = waiter;
        let lender = lent.and_then(|lent| {
            let lender = self.lenders.tasks.get_mut(&lent.lender)?;
            Some((lent, lender))
        });
        let Some((
            Lent {
                lender: id,
                through,
            },
            lender,
        )) = lender
        else {
            wake.push(waker);
            return;
        };
        let is_held = lender.has_permit();
        let own = match through {
            // The list has to know which of its members was woken. The task is polled when it has
            // its permit, even if the list no longer exists.
            Through::List => {
                lender.listed -= 1;
                wake.push(waker);
                lender.waker.take()
            }
            Through::OwnWaker if is_held => {
                lender.is_woken = true;
                wake.push(waker);
                None
            }
            Through::OwnWaker => Some(waker),
        };
        if let Some(own) = own.filter(|_| !is_held) {
            wake.extend(lender.claimants.insert(Claimant::Task, own));
            self.claim(id);
        }
    }

    /// Adds a claim for a permit that is lent.
    fn claim(&mut self, id: LenderId) {
        let lenders = &mut *self.lenders;
        if let Some(
            lender @ Lender {
                permit: TaskPermit::Lent,
                ..
            },
        ) = lenders.tasks.get_mut(&id)
        {
            lender.permit = TaskPermit::Claimed(lenders.next_claim);
            lenders.claims.insert(lenders.next_claim, id);
            lenders.next_claim += 1;
        }
    }

    /// Grants free permits to claims, oldest first.
    #[inline]
    pub(crate) fn grant(&mut self, wake: &mut Wakers) {
        if self.lenders.has_claims() {
            self.grant_claims(wake);
        }
    }

    fn grant_claims(&mut self, wake: &mut Wakers) {
        self.withdraw_claims(wake);
        // At limit 0, no job starts, but jobs that have started continue, one at a time.
        while self.lenders.has_claims() && self.running < self.limit.max(1) {
            let Some((_, id)) = self.lenders.claims.pop_first() else {
                return;
            };
            if let Some(lender) = self.lenders.tasks.get_mut(&id) {
                lender.hold(wake);
                self.running += 1;
            }
        }
    }

    /// Releases the permit of a task that has finished.
    pub(crate) fn release(&mut self, lender: Option<LenderId>, wakers: &mut Taken<'_>) {
        match lender.and_then(|id| self.forget(id, wakers)) {
            None | Some(TaskPermit::Held) => self.running -= 1,
            Some(TaskPermit::Lent) => {}
            Some(TaskPermit::Claimed(claim)) => _ = self.lenders.claims.remove(&claim),
        }
    }

    /// Forgets the waits of a job that holds its permit.
    pub(crate) fn forget_waits(&mut self, id: LenderId, wakers: &mut Taken<'_>) {
        self.forget(id, wakers);
    }

    fn forget(&mut self, id: LenderId, wakers: &mut Taken<'_>) -> Option<TaskPermit> {
        let lender = self.lenders.tasks.remove(&id)?;
        for (claimant, waker) in lender.claimants {
            match claimant {
                Claimant::Task => wakers.unneeded.push(waker),
                // They need no permit of this task any more.
                Claimant::Job(..) | Claimant::Blocking(_) => wakers.wake.push(waker),
            }
        }
        wakers.unneeded.extend(lender.waker);
        for scheduler in lender.abroad {
            self.count_out_abroad(scheduler);
        }
        Some(lender.permit)
    }
}
