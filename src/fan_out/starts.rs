//! Sees to it that the worker which a small fan-out has spawned last does not wait in a LIFO slot
//! while all others have started.
//!
//! tokio keeps the task that a thread has spawned last in the LIFO slot of that thread, where no
//! other thread takes it until the thread yields. Mostly the caller yields at once. If it computes,
//! the other workers, which were pushed out of the slot, run on other threads. The one of them that
//! starts last finds that only the last worker is missing, and spawns a replacement. That costs
//! nothing unless it is needed, while to push the last worker out costs a task each time.
//!
//! All workers are alike before they have pulled, so the replacement needs nothing from the last
//! worker. The two have one permit, which belongs to the one that starts first. The other one
//! leaves.

use crate::sync::atomic::{AtomicUsize, Ordering};

/// Counts the workers that have not started: twice the others, and 1 for the last one if that may
/// be in a LIFO slot.
pub(crate) struct Starts(AtomicUsize);

/// Which of the first workers one is.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// It was spawned last and may be in a LIFO slot, or it replaces that one.
    Last,
    Other,
}

const LAST: usize = 1;
const OTHER: usize = 2;

// Each is one read-modify-write of one atomic, so the last worker and its replacement cannot both
// claim their permit. `AcqRel` is more than that needs: nothing else is published through it.
impl Starts {
    pub(crate) fn new() -> Starts {
        Starts(AtomicUsize::new(0))
    }

    /// Notes the workers that are about to be spawned, besides the last one.
    pub(crate) fn expect(&self, others: usize) {
        self.0.store(LAST + OTHER * others, Ordering::Release);
    }

    /// Notes that one of the others has started. Returns whether only the last one is missing.
    pub(crate) fn other_starts(&self) -> bool {
        self.0.fetch_sub(OTHER, Ordering::AcqRel) == OTHER + LAST
    }

    /// Claims the permit of the last worker, for that or for its replacement. Returns false if the
    /// other one of the two has claimed it.
    pub(crate) fn claim_last(&self) -> bool {
        self.0.fetch_and(!LAST, Ordering::AcqRel) & LAST == LAST
    }
}
