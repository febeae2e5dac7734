//! Actions that are collected under the lock and performed after it is released.

use std::any::Any;

use super::calls::CallId;
use super::permits::lending::Lending;
use super::wakers::{Taken, Wakers};
use crate::context::{ContextError, StaticCause};
use crate::registry::TaskRef;
use crate::sync::Arc;

/// The actions that follow from a critical section. They are performed when the lock is released.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) wake: Wakers,
    /// Wakers that are not needed any more. Dropping a waker may run user code, too.
    pub(crate) stale_wakers: Wakers,
    /// The observers of jobs that have finished, each with whether its job succeeded.
    pub(crate) observers: Vec<(Arc<dyn Observer>, bool)>,
    /// Other user code that is not needed any more.
    pub(crate) drop_later: Vec<Box<dyn Any + Send>>,
    pub(crate) spawn: bool,
    /// A worker or an internal task was spawned or woken, and the caller may now block its thread.
    pub(crate) flush: bool,
    pub(crate) reject_unstarted: bool,
    pub(crate) watch: bool,
    /// The collector is decided: it has enough results, or can no longer get them. The context is
    /// cancelled with this cause.
    pub(crate) enough: Option<&'static StaticCause>,
    /// A job has started or finished, and the caller of the fan-out wants a report.
    pub(crate) report: bool,
}

impl Effects {
    /// Returns whether there is nothing to do, which is the common case.
    pub(crate) fn is_nothing(&self) -> bool {
        let flags = self.spawn | self.flush | self.reject_unstarted | self.watch | self.report;
        !flags
            && self.enough.is_none()
            && self.wake.is_empty()
            && self.stale_wakers.is_empty()
            && self.observers.is_empty()
            && self.drop_later.is_empty()
    }

    /// Returns the lists for wakers.
    pub(crate) fn wakers(&mut self) -> Taken<'_> {
        Taken {
            wake: &mut self.wake,
            unneeded: &mut self.stale_wakers,
        }
    }

    /// Has the unstarted work rejected if the context is done. A deadline that passes notifies
    /// nothing, so the scheduler may not know yet.
    pub(crate) fn reject_unstarted_if(&mut self, ended: bool) {
        self.reject_unstarted |= ended;
    }
}

/// An observer that is notified when a job has finished and its permit is free.
pub(crate) trait Observer: Send + Sync {
    /// Notifies the observer.
    fn ended(&self, scheduler: &dyn Lending, succeeded: bool);
    /// Notes that the job has failed. Returns the call that receives its error, if one does; the
    /// error is then not a failure of the group.
    fn failed_call(&self) -> Option<CallId> {
        None
    }
    /// Notes that the job has started, and where its handle finds its entry in the registry. Must
    /// be called without a lock.
    fn started(&self, _entry: TaskRef) {}
    /// Returns whether the handle has stopped the job.
    fn is_stopped(&self) -> bool {
        false
    }
    /// Keeps the failure of the job for the handle. It is called before `ended`.
    fn failed(&self, _failure: ContextError, _is_panic: bool) {}
}
