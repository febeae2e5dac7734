//! Wakers that are collected under a lock.

use std::task::Waker;

/// Wakers to be woken or dropped after a critical section. Mostly there is at most one, which needs
/// no allocation.
#[derive(Default)]
pub(crate) struct Wakers {
    first: Option<Waker>,
    /// Empty if `first` is `None`.
    more: Vec<Waker>,
}

impl Wakers {
    pub(crate) fn push(&mut self, waker: Waker) {
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            self.more.push(waker);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Removes the wakers, in the order in which they were added.
    pub(crate) fn for_each(self, mut act: impl FnMut(Waker)) {
        if let Some(first) = self.first {
            act(first);
            self.more.into_iter().for_each(act);
        }
    }
}

/// The lists for the wakers that a critical section takes out of the bookkeeping.
pub(crate) struct Taken<'a> {
    /// They are woken when the lock is released.
    pub(crate) wake: &'a mut Wakers,
    /// They are dropped then. What they would wake has ended, or has another waker.
    pub(crate) unneeded: &'a mut Wakers,
}

impl Extend<Waker> for Wakers {
    fn extend<I: IntoIterator<Item = Waker>>(&mut self, wakers: I) {
        wakers.into_iter().for_each(|waker| self.push(waker));
    }
}
