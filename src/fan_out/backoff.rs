//! Decides whether one more worker would be of use, before a searching worker takes part.
//!
//! Items that finish at once are pulled one after another. Two workers that do so mostly wait for
//! each other's cache lines, and are slower together than one of them alone. So a searching worker
//! that finds that many items have been pulled since it was woken backs off, and looks again after
//! a moment. As long as the other workers are so quick, it would only contend with them.
//!
//! It stays the searching worker all the while and is scheduled again and again. If an item takes
//! its time, or blocks its thread, the next look finds few pulls, and the worker takes part.

use std::time::{Duration, Instant};

/// The fewest pulls since it was woken that make a searching worker back off.
const MANY: usize = 8;
/// The time between two looks. Some ten quick items are pulled in that time, and each look takes
/// the cache line with the count away from the worker that pulls.
const LOOK: Duration = Duration::from_micros(4);
/// An item that takes longer than this is not quick: two workers are then faster than one.
const QUICK: Duration = Duration::from_nanos(200);

/// The last look of a searching worker.
#[derive(Clone, Copy)]
pub(crate) struct Backoff {
    /// How many items had been pulled then.
    pulled: usize,
    /// When that was. `None` before the first look.
    at: Option<Instant>,
    /// Whether workers may run in parallel.
    pub(super) has_threads: bool,
}

impl Backoff {
    /// For a worker that is woken when `pulled` items have been pulled.
    pub(crate) fn new(pulled: usize, has_threads: bool) -> Backoff {
        Backoff {
            pulled,
            at: None,
            has_threads,
        }
    }

    pub(crate) fn is_first_look(&self) -> bool {
        self.at.is_none()
    }

    /// Returns whether the other workers are quick enough without this one.
    pub(crate) fn others_are_quick(&mut self, pulled: impl FnOnce() -> usize) -> bool {
        let elapsed = self.at.map(|at| at.elapsed());
        if elapsed.is_some_and(|elapsed| elapsed < LOOK) {
            return true;
        }
        let pulled = pulled();
        let count = pulled.wrapping_sub(self.pulled);
        let are_quick = match elapsed {
            None => count >= MANY,
            Some(elapsed) => elapsed.as_nanos() < QUICK.as_nanos() * count as u128,
        };
        if are_quick {
            self.pulled = pulled;
            self.at = Some(Instant::now());
        }
        are_quick
    }
}
