//! A job that has waited: it reserves the permits of its polls, and lends them after its polls.

use std::task::Waker;

use super::{CurrentJob, Polled, how_polled};
use crate::scheduler::permits::Permits;
use crate::scheduler::permits::lending::{Claimant, Lasts, LenderId, Lending};
use crate::sync::Arc;

impl CurrentJob {
    /// Reserves the permits under which the job is polled: its own, and those of the tasks on whose
    /// behalf it waited. If one of them is lent, `waker` is woken when it is granted again.
    pub(super) fn begin_poll(&mut self, waker: &Waker) -> bool {
        let Some(lender) = self.lender else {
            return true;
        };
        let begin = |permits: &mut Permits| permits.begin_poll(lender, Claimant::Task);
        let Some(abroad) = &mut self.abroad else {
            return reserve(&self.scheduler, lender, Claimant::Task, waker, begin);
        };
        let claimant = Claimant::Job(self.scheduler.id(), lender);
        abroad.find_tasks(&*self.scheduler, claimant);
        let acts_for = &abroad.acts_for;
        // Its own permit first, and then outwards. In the other order, the job would keep the
        // permit of an outer group while it waits for a permit of an inner group, whose tasks may
        // need the outer one.
        let has_all = reserve(&self.scheduler, lender, Claimant::Task, waker, |_| {})
            && acts_for
                .iter()
                .all(|task| reserve(&task.scheduler, task.lender, claimant, waker, |_| {}));
        if has_all {
            for task in acts_for {
                task.scheduler
                    .read(&mut |permits| permits.begin_poll(task.lender, claimant));
            }
            self.scheduler.read(&mut |permits| begin(permits));
        }
        has_all
    }

    /// Ends a poll in which the job was pending, and lends the permits of the tasks that wait.
    pub(super) fn end_poll(&mut self, waker: &Waker) {
        let has_pending = self
            .abroad
            .as_ref()
            .is_some_and(|it| !it.pending.is_empty());
        if self.lender.is_none() && !has_pending {
            return;
        }
        let lender = self.register_lender();
        let waits = self.waits;
        let scheduler = &self.scheduler;
        // The edges come first, and the search comes second: invariant 2 of `lending`.
        if let Some(abroad) = &mut self.abroad {
            abroad.publish(scheduler, lender);
        }
        scheduler
            .clone()
            .update(&mut |permits, _| permits.end_own_poll(lender, waits, waker));
        if let Some(abroad) = &mut self.abroad {
            abroad.lend(scheduler, lender);
            abroad.acts_for.drain(..).for_each(|task| task.end_poll());
        }
    }

    /// Ends the poll in which the job has finished.
    pub(super) fn end_last_poll(&mut self) {
        for task in self.leave_abroad() {
            task.end_poll();
        }
    }

    /// Prepares for the next job. Returns the id of the last job, if it has waited.
    pub(crate) fn renew(&mut self) -> Option<LenderId> {
        self.waits = false;
        let scheduler = self.scheduler.id();
        let claimant = self.lender.map(|lender| Claimant::Job(scheduler, lender));
        for task in self.leave_abroad() {
            claimant.into_iter().for_each(|it| task.abandon(it));
        }
        self.lender.take()
    }

    /// Prepares for the next job if the last one has no permit to release.
    pub(crate) fn forget(&mut self) {
        if let Some(lender) = self.renew() {
            self.scheduler.clone().update(&mut |permits, wakers| {
                permits.forget_waits(lender, wakers);
                false
            });
        }
    }

    /// Returns the id of the job. Registers it as a lender the first time.
    pub(super) fn register_lender(&mut self) -> LenderId {
        let scheduler = self.scheduler.clone();
        self.lender_or_register(|| {
            let mut lender = 0;
            scheduler.read(&mut |permits| lender = how_polled().register_lender(permits));
            lender
        })
    }

    /// Returns the id of the job. Calls `new` to register it the first time.
    pub(super) fn lender_or_register(&mut self, new: impl FnOnce() -> LenderId) -> LenderId {
        *self.lender.get_or_insert_with(new)
    }

    /// Forgets what was pending in this poll, so that the next poll shows whether the job waits.
    /// Returns `None` if no further poll is needed. After an abort there is none: the poll during
    /// which the abort came is the last one.
    pub(super) fn begin_probe(&mut self) -> Option<()> {
        let probes = self.seems_to_wait() && !self.scheduler.is_aborted();
        probes.then(|| self.forget_pending())
    }

    /// Returns whether the job seems to wait, so that a second poll must show whether it does.
    fn seems_to_wait(&self) -> bool {
        if self.waits {
            return true;
        }
        let pending = self.abroad.iter().flat_map(|abroad| &abroad.pending);
        let mut is_awaited = false;
        if pending
            .into_iter()
            .any(|edge| edge.lasts == Lasts::ThisPoll)
        {
            self.scheduler
                .read(&mut |permits| is_awaited = permits.has_awaiters());
        }
        is_awaited
    }

    fn forget_pending(&mut self) {
        self.waits = false;
        if let Some(abroad) = &mut self.abroad {
            abroad.pending.retain(|edge| edge.lasts == Lasts::TheJob);
        }
    }
}

impl Polled {
    pub(super) fn register_lender(self, permits: &mut Permits) -> LenderId {
        match self {
            Polled::With(_) => permits.register_lender(),
            Polled::Blocking => permits.register_blocking_lender(),
        }
    }
}

/// Reserves a permit, and calls `then` under the same lock. If the permit is lent, `waker` is woken
/// when it is granted again.
fn reserve(
    scheduler: &Arc<dyn Lending>,
    lender: LenderId,
    claimant: Claimant,
    waker: &Waker,
    then: impl Fn(&mut Permits),
) -> bool {
    let mut waker = Some(waker.clone());
    let mut is_reserved = false;
    scheduler.clone().update(&mut |permits, wakers| {
        if let Some(waker) = waker.take() {
            is_reserved = permits.reserve(lender, claimant, waker, wakers);
        }
        if is_reserved {
            then(permits);
        }
        permits.must_withdraw_claims()
    });
    is_reserved
}
