//! The wakers of the tasks that wait until a scheduler is idle.

use std::collections::BTreeMap;
use std::task::Waker;

pub(super) struct Idlers {
    wakers: BTreeMap<IdlerKey, Waker>,
    last: IdlerKey,
}

/// Identifies a waker. A key is used once.
pub(super) type IdlerKey = u64;

impl Idlers {
    pub(super) const fn new() -> Idlers {
        Idlers {
            wakers: BTreeMap::new(),
            last: 0,
        }
    }

    pub(super) fn new_key(&mut self) -> IdlerKey {
        self.last += 1;
        self.last
    }

    /// Enters a waker. Returns the one that it replaces.
    pub(super) fn insert(&mut self, key: IdlerKey, waker: Waker) -> Option<Waker> {
        self.wakers.insert(key, waker)
    }

    pub(super) fn contains(&self, key: IdlerKey) -> bool {
        self.wakers.contains_key(&key)
    }

    pub(super) fn remove(&mut self, key: IdlerKey) -> Option<Waker> {
        self.wakers.remove(&key)
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.wakers).into_values()
    }
}
