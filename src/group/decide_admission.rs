//! Decides the admissions of tasks that are in the queue, for the tasks that await them.

use std::task::{Poll, Waker};

use super::handle::{DecideAdmission, Number};
use super::permit_wait::PermitWait;
use super::queue::Queue;
use crate::scheduler::Scheduler;
use crate::scheduler::current;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::lease::Lease;
use crate::scheduler::permits::lending::{Lending, Waiter};
use crate::sync::Arc;

/// The task whose admission is asked for.
#[derive(Clone, Copy)]
enum Asked<'a> {
    Job(Number),
    Local(&'a PermitWait),
}

impl Asked<'_> {
    fn decision<E>(self, queue: &Queue<E>) -> Option<bool> {
        match self {
            Asked::Job(number) => queue.decision(number),
            Asked::Local(wait) => wait.decision(),
        }
    }

    /// Returns the task's waiter, or `None` if the admission is decided: the number of a local task
    /// may then be in use for another task.
    fn waiter<E>(self, queue: &mut Queue<E>) -> Option<&mut Option<Waiter>> {
        if self.decision(queue).is_some() {
            return None;
        }
        queue.waiter_of(match self {
            Asked::Job(number) => number,
            Asked::Local(wait) => wait.number()?,
        })
    }
}

impl<E> DecideAdmission for Scheduler<Queue<E>>
where
    E: GroupError,
{
    fn poll_decision(
        self: Arc<Self>,
        number: Number,
        lease: &mut Lease,
        waker: &Waker,
    ) -> Poll<bool> {
        self.poll_asked(Asked::Job(number), lease, waker)
    }

    fn give_up(self: Arc<Self>, number: Number, lease: &mut Lease) {
        self.give_up_asked(Asked::Job(number), lease);
    }

    fn decision(&self, number: Number) -> Option<bool> {
        self.try_read(|state| state.source.decision(number))
            .flatten()
    }
}

/// Decides the admission of a local task that had to wait, by its `PermitWait`.
pub(super) struct LocalDecider<E>
where
    E: GroupError,
{
    pub(super) scheduler: Arc<Scheduler<Queue<E>>>,
    pub(super) wait: Arc<PermitWait>,
}

impl<E> DecideAdmission for LocalDecider<E>
where
    E: GroupError,
{
    fn poll_decision(self: Arc<Self>, _: Number, lease: &mut Lease, waker: &Waker) -> Poll<bool> {
        self.scheduler
            .poll_asked(Asked::Local(&self.wait), lease, waker)
    }

    fn give_up(self: Arc<Self>, _: Number, lease: &mut Lease) {
        self.scheduler
            .give_up_asked(Asked::Local(&self.wait), lease);
    }

    fn decision(&self, _: Number) -> Option<bool> {
        self.wait.try_decision()
    }
}

impl<E> Scheduler<Queue<E>>
where
    E: GroupError,
{
    fn poll_asked(
        self: &Arc<Self>,
        asked: Asked<'_>,
        lease: &mut Lease,
        waker: &Waker,
    ) -> Poll<bool> {
        let ended = self.ctx().is_done();
        let mut new = Some(waker.clone());
        let how = current::own_poll(Lending::id(&**self), waker);
        let poll = self.with_effects(|state, effects| {
            let permits = &mut state.permits;
            if let Some(started) = asked.decision(&state.source) {
                let resumes = lease.resume(permits, &mut new, &mut effects.wakers());
                effects.stale_wakers.extend(new.take());
                return if resumes {
                    Poll::Ready(started)
                } else {
                    Poll::Pending
                };
            }
            let (lent, is_free) = lease.wait(how, permits);
            let waiter = new.take().map(|waker| Waiter { waker, lent });
            if let Some(slot) = asked.waiter(&mut state.source) {
                let old = std::mem::replace(slot, waiter);
                state.source.expects_more = true;
                effects.stale_wakers.extend(old.map(|old| old.waker));
            }
            if is_free {
                state.start_ready(ended, effects);
            }
            // A deadline may have passed without a notification: the queue is closed here.
            effects.reject_unstarted_if(ended);
            Poll::Pending
        });
        if poll.is_pending() {
            current::wait_for_permit(self, waker);
        }
        poll
    }

    fn give_up_asked(self: &Arc<Self>, asked: Asked<'_>, lease: &mut Lease) {
        self.with_effects(|state, effects| {
            let is_decided = asked.decision(&state.source).is_some();
            if let Some(waiter) = asked.waiter(&mut state.source).and_then(Option::take) {
                effects.stale_wakers.push(waiter.waker);
            }
            lease.end(is_decided, &mut state.permits, &mut effects.wakers());
        });
    }
}
