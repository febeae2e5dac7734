//! Whether one more worker would be of use, for a searcher to ask before it takes part.
//!
//! Items that end at once are pulled one after another. Two workers that do so mostly wait for each other's cache lines, and are
//! slower together than either alone. So a searcher that finds many items pulled since it was called backs off, and looks
//! again after a moment: as long as the others are so quick, it would only be in their way.
//!
//! It stays a searcher all the while, and goes on coming: when a job takes its time, or blocks its thread, the next look sees so.

use std::time::{Duration, Instant};

/// The fewest pulls on its way that make a searcher back off.
const MANY: usize = 8;
/// How long a look lasts: what is quick has then been pulled some ten times and more, and a look is a cache line taken away.
const LOOK: Duration = Duration::from_micros(4);
/// How quick an item has to be: with one that takes longer, two workers are faster than one.
const QUICK: Duration = Duration::from_nanos(200);

/// What a searcher saw when it looked last.
#[derive(Clone, Copy)]
pub(crate) struct Backoff {
    pulled: usize,
    /// `None` for one that is on its way.
    at: Option<Instant>,
}

impl Backoff {
    /// That of a searcher that is being called.
    pub(crate) fn new(pulled: usize) -> Backoff {
        Backoff { pulled, at: None }
    }

    /// Whether it is the first one.
    pub(crate) fn is_first(&self) -> bool {
        self.at.is_none()
    }

    /// Looks. Says whether the others are quick enough without the searcher.
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
            *self = Backoff {
                pulled,
                at: Some(Instant::now()),
            };
        }
        are_quick
    }
}
