//! The workers of a fan-out that wait until there is something to pull.

use std::task::Waker;

/// Identifies one stay of a worker.
pub(crate) type ParkId = u64;

/// The most workers that are parked. Others leave, and are spawned again when there is something to
/// do. So a burst does not leave all of its workers behind.
const MOST: usize = 32;

/// The parked workers. The lock of the scheduler guards them.
pub(crate) struct Parking {
    parked: Vec<(ParkId, Waker)>,
    next: ParkId,
}

impl Parking {
    pub(crate) const fn new() -> Parking {
        Parking {
            parked: Vec::new(),
            next: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Returns whether one more worker may park.
    pub(crate) fn has_room(&self) -> bool {
        self.parked.len() < MOST
    }

    pub(crate) fn park(&mut self, waker: Waker) -> ParkId {
        self.next += 1;
        self.parked.push((self.next, waker));
        self.next
    }

    /// Removes a worker that was polled. Returns its waker, or `None` if the worker was removed
    /// before, to be woken.
    pub(crate) fn unpark(&mut self, id: ParkId) -> Option<Waker> {
        let at = self.parked.iter().position(|(parked, _)| *parked == id)?;
        Some(self.parked.swap_remove(at).1)
    }

    /// Removes the worker that has parked last.
    pub(crate) fn pop(&mut self) -> Option<Waker> {
        self.parked.pop().map(|(_, waker)| waker)
    }

    /// Removes all workers.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Waker> + use<'_> {
        self.parked.drain(..).map(|(_, waker)| waker)
    }
}
