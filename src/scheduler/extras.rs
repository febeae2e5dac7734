//! The state that few schedulers need. It is boxed, so that the others pay for a pointer.

use super::failures::CauseWith;
use super::idlers::Idlers;
use super::ledger::Ledger;
use crate::panic;

pub(super) struct Extras<E> {
    pub(super) idlers: Idlers,
    /// The number of calls that wait for all jobs, besides a join.
    pub(super) waits: usize,
    /// `Some` while the scheduler is being drained.
    pub(super) ledger: Option<Ledger>,
    /// Makes the cause that other jobs see when a job has failed.
    pub(super) cause_with: Option<CauseWith<E>>,
}

impl<E> Default for Extras<E> {
    fn default() -> Extras<E> {
        Extras {
            idlers: Idlers::new(),
            waits: 0,
            ledger: None,
            cause_with: None,
        }
    }
}

impl<E> Drop for Extras<E> {
    /// The function is user code. A panic of its destructor is discarded, because no caller is left
    /// that could handle it.
    fn drop(&mut self) {
        panic::discard(self.cause_with.take());
    }
}
