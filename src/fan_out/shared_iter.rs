//! Where the items of a fan-out come from, as what the workers share.
//!
//! The iterator and the function are user code and may take their time, so nobody waits for a worker that pulls: whoever
//! finds the tap in use goes away, and is called when it is free.
//!
//! # Invariants
//!
//! 1. One worker at a time pulls: the one that holds the guard, or has taken out what it pulls from. A guard is held for a pull
//!    or for a look; nobody blocks on one that is held for a pull.
//! 2. Who finds the tap in use says so in the core's state, then in `wake_requested`, and then looks once more. Who stops using it
//!    either goes to the state, or asks `wake_requested`. Both touch `wake_requested` by a read-modify-write; so one of the two sees the
//!    other, and whoever sees a free tap that somebody wants has a worker called.
//! 3. Items are numbered from 0 in the order in which they are pulled.

use std::pin::Pin;

use super::items::{Next, SizeHint};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, spin_loop};

/// How often a worker looks again before it goes away: an iterator that is quick is free again by then.
const LOOKS: usize = if cfg!(errgroup_loom) { 1 } else { 64 };

pub(crate) struct SharedIter<P> {
    state: Mutex<IterState<P>>,
    wake_requested: AtomicBool,
    /// How many have been pulled. Written by whoever holds the guard.
    pulled: AtomicUsize,
}

pub(crate) struct IterState<P> {
    /// `None` while a worker waits with it for the next item, and once nothing more is to be pulled.
    pub(crate) pull: Option<Pin<Box<P>>>,
    /// How many are left.
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

    /// For a pull, if nobody else is at it.
    #[inline]
    pub(crate) fn try_use(&self) -> Option<MutexGuard<'_, IterState<P>>> {
        for _ in 0..LOOKS {
            if let Some(state) = self.state.try_lock() {
                return state.pull.is_some().then_some(state);
            }
            spin_loop();
        }
        None
    }

    /// Puts back what was taken out.
    pub(crate) fn put_back(&self, pull: Option<Pin<Box<P>>>) {
        self.state.lock().pull = pull;
    }

    /// Whether somebody found it in use; for who has stopped using it.
    pub(crate) fn take_wake_request(&self) -> bool {
        self.wake_requested.swap(false, Ordering::AcqRel)
    }

    /// Says that it is wake_requested. Whether it is free now.
    pub(crate) fn request_wake(&self) -> bool {
        self.wake_requested.swap(true, Ordering::AcqRel);
        self.state
            .try_lock()
            .is_some_and(|state| state.pull.is_some())
    }

    /// Takes what is left, to drop it; if somebody is at it, that one does so.
    pub(crate) fn take(&self) -> Option<Pin<Box<P>>> {
        self.wake_requested.swap(true, Ordering::AcqRel);
        self.state.try_lock()?.pull.take()
    }

    /// The number of the item that was pulled.
    pub(crate) fn number(&self, _: &mut IterState<P>) -> usize {
        // `Relaxed`: only the guard's holder writes, and who looks without it wants to know about how many.
        let number = self.pulled.load(Ordering::Relaxed);
        self.pulled.store(number + 1, Ordering::Relaxed);
        number
    }

    /// The number of what is not an item: a panic of what was taken out, when it is dropped. Nobody pulls then.
    pub(crate) fn next_number(&self) -> usize {
        self.number(&mut self.state.lock())
    }

    /// How many have been pulled, as far as this thread knows.
    pub(crate) fn pulled(&self) -> usize {
        self.pulled.load(Ordering::Relaxed)
    }

    /// How many are left, when nobody pulls.
    pub(crate) fn left(&self) -> SizeHint {
        self.state.lock().left
    }
}
