//! The protocol by which an awaitable (an admission or a task handle) has the waiting task lend its
//! permit.

use std::task::Waker;

use super::current::{self, How};
use super::permits::Permits;
use super::permits::lending::Lending;
use super::permits::lending::{Claimant, LenderId, Lent, Through};
use super::wakers::Taken;

/// The state of an awaitable's wait from one poll to the next.
pub(crate) enum Lease {
    None,
    /// That task has polled it through the waker of a list.
    Listed(LenderId),
    /// It was polled in that blocking closure. Boxed, so that an admission stays small.
    Blocking(Box<(LenderId, Claimant)>),
}

impl Lease {
    /// Handles a poll of an undecided awaitable. `how` says in which way a job of its scheduler
    /// polls it, if one does; that job then waits for it. Returns what the waiter has to know about
    /// the task, and whether a permit became free. Called under the lock of the scheduler.
    pub(crate) fn wait(&mut self, how: Option<How>, permits: &mut Permits) -> (Option<Lent>, bool) {
        let lender = how.and_then(|how| Some((how, current::register_own_lender(permits)?)));
        let Some((how, lender)) = lender else {
            self.unlist(permits, None);
            return (None, false);
        };
        let through = match how {
            How::WithOwnWaker => {
                self.unlist(permits, None);
                current::note_own();
                Through::OwnWaker
            }
            How::InList => {
                self.unlist(permits, Some(lender));
                if let Lease::None = self {
                    permits.list(lender);
                    *self = Lease::Listed(lender);
                }
                Through::List
            }
            How::Blocking => {
                if let Lease::None = self {
                    *self = Lease::Blocking(Box::new((lender, permits.claimant())));
                }
                return (None, permits.lend(lender));
            }
        };
        (Some(Lent { lender, through }), false)
    }

    /// Handles a poll like `wait`, for an awaitable with a lock of its own, under which this is
    /// called.
    pub(crate) fn wait_in(
        &mut self,
        how: Option<How>,
        scheduler: Option<&dyn Lending>,
    ) -> (Option<Lent>, bool) {
        let mut waits = (None, false);
        let is_elsewhere = how.is_none() && self.is_none();
        if let Some(scheduler) = scheduler.filter(|_| !is_elsewhere) {
            scheduler.read(&mut |permits| waits = self.wait(how, permits));
        }
        waits
    }

    /// Takes the awaitable out of its task's list, unless that is task `except`.
    fn unlist(&mut self, permits: &mut Permits, except: Option<LenderId>) {
        match *self {
            Lease::Listed(lender) if Some(lender) != except => {
                permits.unlist(lender);
                *self = Lease::None;
            }
            _ => {}
        }
    }

    /// Handles that the awaitable was decided. Returns whether the task may see that now: a
    /// blocking closure continues only with a permit. If it may not, `waker` is woken when it may.
    /// Called under the lock of the scheduler.
    pub(crate) fn resume(
        &mut self,
        permits: &mut Permits,
        waker: &mut Option<Waker>,
        wakers: &mut Taken<'_>,
    ) -> bool {
        if let Lease::Blocking(blocking) = self {
            let (lender, claimant) = **blocking;
            let reserved = waker
                .take()
                .is_none_or(|waker| permits.reserve(lender, claimant, waker, wakers));
            if !reserved {
                return false;
            }
            permits.take_reserved(lender, claimant);
        }
        *self = Lease::None;
        true
    }

    /// Handles a decision like `resume`, for an awaitable with a lock of its own, under which this
    /// is called.
    pub(crate) fn resume_in(
        &mut self,
        scheduler: Option<&dyn Lending>,
        waker: &mut Option<Waker>,
        wakers: &mut Taken<'_>,
    ) -> bool {
        let Some(scheduler) = scheduler.filter(|_| !self.is_none()) else {
            return true;
        };
        let mut resumes = false;
        scheduler.read(&mut |permits| resumes = self.resume(permits, waker, wakers));
        resumes
    }

    /// Handles that the awaitable is dropped. Called under the lock of the scheduler.
    pub(crate) fn end(&mut self, is_decided: bool, permits: &mut Permits, wakers: &mut Taken<'_>) {
        match std::mem::replace(self, Lease::None) {
            Lease::Listed(lender) if !is_decided => permits.unlist(lender),
            Lease::Listed(_) | Lease::None => {}
            Lease::Blocking(blocking) => permits.retake(blocking.0, blocking.1, wakers),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Lease::None)
    }
}
