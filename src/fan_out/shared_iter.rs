//! The iterator or stream of a fan-out, with its function, as the workers share it.
//!
//! The iterator and the function are user code and may be slow, so no worker waits while another
//! one pulls. A worker that finds the iterator in use parks, and is woken when it is free.
//!
//! # Invariants
//!
//! 1. One worker pulls at a time: the one that holds the guard of the lock, or the one that has
//!    taken the iterator out. A guard is held for a pull or for a look. No worker blocks on a guard
//!    that is held for a pull.
//! 2. A worker that finds the iterator in use notes that in the state of the scheduler, then sets
//!    `wake_requested`, and then checks once more. A worker that releases the iterator either takes
//!    the lock of that state, or reads `wake_requested`. Both touch `wake_requested` by a
//!    read-modify-write, so one of the two sees the other. The one that sees a free iterator and a
//!    request has a worker woken.
//! 3. Items are numbered from 0 in the order in which they are pulled.

use std::pin::Pin;

use super::items::{Next, SizeHint};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, TRY_LOCKS, spin_loop};

/// The shared iterator.
pub(crate) struct SharedIter<P> {
    state: Mutex<IterState<P>>,
    /// Whether a worker has found the iterator in use and is to be woken (invariant 2).
    wake_requested: AtomicBool,
    /// How many items have been pulled. Written only by the holder of the guard.
    pulled: AtomicUsize,
}

/// The state under the lock of the shared iterator.
pub(crate) struct IterState<P> {
    /// The iterator and the function. `None` while a worker has taken them out to wait for the next
    /// item, and once nothing more is to be pulled.
    pub(crate) pull: Option<Pin<Box<P>>>,
    /// How many items are left.
    pub(crate) left: SizeHint,
}

impl<P: Next> SharedIter<P> {
    pub(crate) fn new(pull: Pin<Box<P>>) -> SharedIter<P> {
        SharedIter {
            state: Mutex::new(IterState {
                left: pull.size_hint(),
                pull: Some(pull),
            }),
            wake_requested: AtomicBool::new(false),
            pulled: AtomicUsize::new(0),
        }
    }

    /// Locks the iterator for a pull; `None` if it is in use, taken out, or exhausted.
    #[inline]
    pub(crate) fn try_use(&self) -> Option<MutexGuard<'_, IterState<P>>> {
        // A quick iterator is free before the last attempt, and the worker need not park.
        for _ in 0..TRY_LOCKS {
            if let Some(state) = self.state.try_lock() {
                return state.pull.is_some().then_some(state);
            }
            spin_loop();
        }
        None
    }

    /// Puts back the iterator that was taken out.
    pub(crate) fn put_back(&self, pull: Option<Pin<Box<P>>>) {
        self.state.lock().pull = pull;
    }

    /// Returns whether a worker has found the iterator in use, and clears the request. The worker
    /// that has released the iterator calls this.
    pub(crate) fn take_wake_request(&self) -> bool {
        self.wake_requested.swap(false, Ordering::AcqRel)
    }

    /// Requests a wake-up from the worker that uses the iterator. Returns whether the iterator is
    /// free now, so that the caller must serve the request itself.
    pub(crate) fn request_wake(&self) -> bool {
        self.wake_requested.swap(true, Ordering::AcqRel);
        self.state
            .try_lock()
            .is_some_and(|state| state.pull.is_some())
    }

    /// Takes the iterator to drop it. Returns `None` if a worker uses it: the request that this
    /// sets makes that worker drop it.
    pub(crate) fn take(&self) -> Option<Pin<Box<P>>> {
        self.wake_requested.swap(true, Ordering::AcqRel);
        self.state.try_lock()?.pull.take()
    }

    /// Returns the number of the item that was just pulled, and counts it.
    pub(crate) fn number(&self, _: &mut IterState<P>) -> usize {
        // `Relaxed`: only the holder of the guard writes, and the lock orders these writes. A read
        // without the guard needs an approximate number only.
        let number = self.pulled.load(Ordering::Relaxed);
        self.pulled.store(number + 1, Ordering::Relaxed);
        number
    }

    /// Returns a number for a panic in the destructor of the iterator, which counts as an item. No
    /// worker pulls at that time.
    pub(crate) fn next_number(&self) -> usize {
        self.number(&mut self.state.lock())
    }

    /// Returns how many items have been pulled, as far as this thread knows.
    pub(crate) fn pulled(&self) -> usize {
        self.pulled.load(Ordering::Relaxed)
    }

    /// Returns how many items are left. Is called while no worker pulls.
    pub(crate) fn left(&self) -> SizeHint {
        self.state.lock().left
    }
}
