//! What an admission or a handle does for lending: the same protocol for each of them.

use std::task::Waker;

use super::current::{self, How};
use super::effects::Wakers;
use super::lending::{Claimant, LenderId, Lent, Through};
use super::permits::Permits;
use super::source::Lending;

/// What an awaitable keeps of its waiting from one poll to the next.
pub(crate) enum Lease {
    None,
    /// That task has polled it in a list.
    Listed(LenderId),
    /// It was polled in that blocking closure. Boxed, so that an admission stays small.
    Blocking(Box<(LenderId, Claimant)>),
}

impl Lease {
    /// It is undecided, and is polled: by a job of its scheduler in that way, if `how` says so, which then
    /// waits for it. Returns what its waiter carries, and whether a
    /// permit became free. Under the lock of the scheduler.
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

    /// The same for one that has its own lock, under which this is called.
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

    /// It is not in a list any more, unless in one of task `except`.
    fn unlist(&mut self, permits: &mut Permits, except: Option<LenderId>) {
        match *self {
            Lease::Listed(lender) if Some(lender) != except => {
                permits.unlist(lender);
                *self = Lease::None;
            }
            _ => {}
        }
    }

    /// It has been decided. Whether the task may see that now: a blocking closure goes on only with
    /// a permit. If not, `waker` is woken when it may. Under the lock of the scheduler.
    pub(crate) fn resume(
        &mut self,
        permits: &mut Permits,
        waker: &mut Option<Waker>,
        unneeded: &mut Wakers,
    ) -> bool {
        if let Lease::Blocking(blocking) = self {
            let (lender, claimant) = **blocking;
            let reserved = waker
                .take()
                .is_none_or(|waker| permits.reserve(lender, claimant, waker, unneeded));
            if !reserved {
                return false;
            }
            permits.take_reserved(lender, claimant);
        }
        *self = Lease::None;
        true
    }

    /// The same for one that has its own lock, under which this is called.
    pub(crate) fn resume_in(
        &mut self,
        scheduler: Option<&dyn Lending>,
        waker: &mut Option<Waker>,
        unneeded: &mut Wakers,
    ) -> bool {
        let Some(scheduler) = scheduler.filter(|_| !self.is_none()) else {
            return true;
        };
        let mut resumes = false;
        scheduler.read(&mut |permits| resumes = self.resume(permits, waker, unneeded));
        resumes
    }

    /// It is dropped. Under the lock of the scheduler.
    pub(crate) fn end(&mut self, is_decided: bool, permits: &mut Permits, unneeded: &mut Wakers) {
        match std::mem::replace(self, Lease::None) {
            Lease::Listed(lender) if !is_decided => permits.unlist(lender),
            Lease::Listed(_) | Lease::None => {}
            Lease::Blocking(blocking) => permits.retake(blocking.0, blocking.1, unneeded),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Lease::None)
    }
}
