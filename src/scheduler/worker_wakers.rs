//! The wakers with which an abort reaches the workers that are in no `JoinSet`.

use std::task::Waker;

use crate::sync;

/// The wakers of such workers whose job is pending. Each worker removes its own when its job has
/// ended, and an abort takes all of them. No worker adds one after that.
pub(crate) struct WorkerWakers {
    places: Vec<Place>,
    /// The free place that is used next, or `NONE`.
    free: usize,
    len: usize,
}

enum Place {
    Used(Waker),
    /// Holds the index of the next free place, or `NONE`.
    Free(usize),
}

/// The place of a worker's waker.
#[derive(Clone, Copy)]
pub(crate) struct WakerKey(usize);

const NONE: usize = usize::MAX;

/// The memory is kept for reuse if it has room for no more wakers than this.
const KEPT: usize = 32;

impl WorkerWakers {
    pub(crate) const fn new() -> WorkerWakers {
        WorkerWakers {
            places: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    pub(crate) fn insert(&mut self, waker: Waker) -> WakerKey {
        self.len += 1;
        let key = self.free;
        if let Some(place) = self.places.get_mut(key) {
            if let Place::Free(next) = std::mem::replace(place, Place::Used(waker)) {
                self.free = next;
            }
            return WakerKey(key);
        }
        if self.places.capacity() == 0 {
            self.places.reserve_exact(sync::MOST_IN_BURST);
        }
        self.places.push(Place::Used(waker));
        WakerKey(self.places.len() - 1)
    }

    /// Removes a waker. Returns `None` if an abort has taken it.
    pub(crate) fn remove(&mut self, WakerKey(key): WakerKey) -> Option<Waker> {
        let place = self.places.get_mut(key)?;
        let removed = std::mem::replace(place, Place::Free(self.free));
        self.free = key;
        self.len -= 1;
        if self.len == 0 {
            self.free = NONE;
            self.places.clear();
            self.places.shrink_to(KEPT);
        }
        match removed {
            Place::Used(waker) => Some(waker),
            Place::Free(_) => None,
        }
    }

    /// Takes all wakers, for an abort.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        let places = std::mem::replace(self, WorkerWakers::new()).places;
        places.into_iter().filter_map(|place| match place {
            Place::Used(waker) => Some(waker),
            Place::Free(_) => None,
        })
    }
}
