//! Actions that are collected under the lock and performed after it is released.

use std::any::Any;
use std::task::Waker;

use super::source::Observer;
use crate::context::StaticCause;
use crate::sync::Arc;

/// What follows from a critical section, to be done when the lock is released.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) wake: Wakers,
    /// Wakers that were replaced: dropping one is a call into user code too.
    pub(crate) stale_wakers: Wakers,
    /// Who is to be told that a job has ended, and whether it succeeded.
    pub(crate) observers: Vec<(Arc<dyn Observer>, bool)>,
    /// Other user code that is not needed any more.
    pub(crate) drop_later: Vec<Box<dyn Any + Send>>,
    pub(crate) spawn: bool,
    /// A task of ours was spawned or woken, and the caller may now block its thread.
    pub(crate) flush: bool,
    pub(crate) reject_unstarted: bool,
    pub(crate) watch: bool,
    /// What has come is enough, or what is to come cannot be: the context is to end, and why.
    pub(crate) enough: Option<&'static StaticCause>,
    /// Something has started or ended, and somebody wants to know.
    pub(crate) report: bool,
}

impl Effects {
    /// Mostly nothing follows.
    pub(crate) fn is_nothing(&self) -> bool {
        let flags = self.spawn | self.flush | self.reject_unstarted | self.watch | self.report;
        !flags
            && self.enough.is_none()
            && self.wake.is_empty()
            && self.stale_wakers.is_empty()
            && self.observers.is_empty()
            && self.drop_later.is_empty()
    }

    /// Has what is queued removed: the context has ended, by a deadline of which nobody tells.
    pub(crate) fn reject_unstarted_if(&mut self, ended: bool) {
        self.reject_unstarted |= ended;
    }
}

/// Wakers to be woken or dropped after a critical section. There is mostly one at most, which needs
/// no allocation.
#[derive(Default)]
pub(crate) struct Wakers {
    first: Option<Waker>,
    /// Empty while there is no first.
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

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Removes the wakers, in the order in which they came.
    pub(crate) fn for_each(self, act: impl FnMut(Waker)) {
        self.first.into_iter().chain(self.more).for_each(act);
    }
}

impl Extend<Waker> for Wakers {
    fn extend<I: IntoIterator<Item = Waker>>(&mut self, wakers: I) {
        wakers.into_iter().for_each(|waker| self.push(waker));
    }
}
