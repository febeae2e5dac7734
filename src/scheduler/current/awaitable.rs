//! What an awaitable asks the job on this thread, and what it notes there.
//!
//! An awaitable is an admission, a task handle, a reservation, or the end of a group or a fan-out.

use std::task::Waker;

use super::abroad::Deferred;
use super::{CurrentJob, Polled, WakerId, how_polled, look};
use crate::scheduler::permits::Permits;
use crate::scheduler::permits::lending::{
    Claimant, Edge, Lasts, LenderId, Lending, Part, SchedulerId, Target,
};
use crate::sync::{Arc, Weak};

/// How a job polls an awaitable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    WithOwnWaker,
    /// With the waker of a list, which polls it only when that waker was woken.
    InList,
    Blocking,
}

/// Returns how the job on this thread polls with this waker.
fn how(waker: &Waker) -> How {
    match how_polled() {
        Polled::Blocking => How::Blocking,
        Polled::With(own) if own == WakerId::of(waker) => How::WithOwnWaker,
        Polled::With(_) => How::InList,
    }
}

impl CurrentJob {
    /// Returns whether this poll runs under the permit of that task of `scheduler`.
    fn is_polled_under(&self, scheduler: SchedulerId, lender: LenderId) -> bool {
        let is_own = self.scheduler.id() == scheduler && self.lender == Some(lender);
        let mut acts_for = self.abroad.iter().flat_map(|abroad| &abroad.acts_for);
        is_own || acts_for.any(|task| task.scheduler.id() == scheduler && task.lender == lender)
    }
}

/// Returns how the job on this thread polls with this waker, if it is a job of `scheduler`. Takes
/// no lock.
pub(crate) fn own_poll(scheduler: SchedulerId, waker: &Waker) -> Option<How> {
    let how = look(|job| (job.scheduler.id() == scheduler).then(|| how(waker)));
    how.filter(|_| !wakes_nothing(waker))
}

/// Returns whether a job of that scheduler runs on this thread.
pub(crate) fn is_job_of(scheduler: SchedulerId) -> bool {
    look(|job| Some(job.scheduler.id() == scheduler)).unwrap_or(false)
}

/// Registers the job on this thread as a lender. The permits are those of its scheduler. Called
/// under the lock of the scheduler.
pub(crate) fn register_own_lender(permits: &mut Permits) -> Option<LenderId> {
    look(|job| Some(job.lender_or_register(|| how_polled().register_lender(permits))))
}

/// Returns the id of the job on this thread, if it is a job of `scheduler` and has waited.
pub(crate) fn own_lender(scheduler: SchedulerId) -> Option<LenderId> {
    look(|job| job.lender.filter(|_| job.scheduler.id() == scheduler))
}

/// Returns the job on this thread as a claimant, if it is a job of another scheduler than
/// `scheduler` and is polled with a waker that wakes something. Must not be called under a lock.
pub(crate) fn claimant_abroad(scheduler: SchedulerId, waker: &Waker) -> Option<Claimant> {
    look(|job| {
        let is_abroad = job.scheduler.id() != scheduler && !wakes_nothing(waker);
        if !is_abroad || how_polled() == Polled::Blocking {
            return None;
        }
        Some(Claimant::Job(job.scheduler.id(), job.register_lender()))
    })
}

/// Defers the start of a job until the poll on this thread has ended, if that poll runs under the
/// permit of that task of `scheduler`. Otherwise returns the start.
pub(crate) fn defer(
    scheduler: SchedulerId,
    lender: LenderId,
    start: Deferred,
) -> Result<(), Deferred> {
    let mut start = Some(start);
    look(|job| {
        let is_polled = matches!(how_polled(), Polled::With(_));
        if is_polled && job.is_polled_under(scheduler, lender) {
            let abroad = job.abroad.get_or_insert_default();
            abroad.deferred.extend(start.take());
        }
        Some(())
    });
    start.map_or(Ok(()), Err)
}

/// Notes that the job on this thread waits for its own scheduler in this poll.
pub(crate) fn note_own() {
    look(|job| {
        job.waits = true;
        Some(())
    });
}

/// Notes that the job on this thread, if there is one, waits for all jobs of `scheduler`. Must not
/// be called under a lock.
pub(crate) fn wait_for_all<C: Lending + 'static>(scheduler: &Arc<C>, waker: &Waker) {
    wait_for(scheduler.id(), Part::All, waker, || weak(scheduler));
}

/// Notes that the job on this thread, if there is one, waits for a permit of `scheduler`. Must not
/// be called under a lock.
pub(crate) fn wait_for_permit<C: Lending + 'static>(scheduler: &Arc<C>, waker: &Waker) {
    wait_for(scheduler.id(), Part::One, waker, || weak(scheduler));
}

/// Notes that the job on this thread, if there is one, waits for a job of `scheduler`. Must not be
/// called under a lock.
pub(crate) fn wait_for_job(scheduler: &Arc<dyn Lending>, waker: &Waker) {
    wait_for(scheduler.id(), Part::One, waker, || {
        Arc::downgrade(scheduler)
    });
}

/// Notes that the job waits for another scheduler. A wait for its own scheduler is noted in the
/// waiter instead.
fn wait_for(
    id: SchedulerId,
    part: Part,
    waker: &Waker,
    scheduler: impl FnOnce() -> Weak<dyn Lending>,
) {
    look(|job| {
        if job.scheduler.id() == id || wakes_nothing(waker) {
            return None;
        }
        let lasts = match how(waker) {
            How::WithOwnWaker => Lasts::ThisPoll,
            How::InList | How::Blocking => Lasts::TheJob,
        };
        let target = Target {
            scheduler: id,
            part,
        };
        let scheduler = scheduler();
        job.wait_for(Edge {
            target,
            scheduler,
            lasts,
        });
        Some(())
    });
}

fn weak<C: Lending + 'static>(scheduler: &Arc<C>) -> Weak<dyn Lending> {
    let scheduler: Arc<dyn Lending> = scheduler.clone();
    Arc::downgrade(&scheduler)
}

/// Returns whether the waker does nothing: such a poll reads the state, and does not wait.
///
/// Wakers that do nothing have no data. `will_wake` would not find all of them: it also compares
/// the addresses of their functions, of which an optimized program may have several copies.
fn wakes_nothing(waker: &Waker) -> bool {
    waker.data().is_null()
}
