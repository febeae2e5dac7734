//! What a task with a value and its handle share: the value or the error, and whether the handle
//! has stopped the task.

use std::task::Waker;

use crate::context::ContextError;
use crate::panic;
use crate::registry::TaskRef;
use crate::scheduler::effects::Observer;
use crate::scheduler::permits::lending::{Lending, Waiter};
use crate::scheduler::wakers::Wakers;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};

/// What a task and its handle share: the value, and whether the handle has stopped the task. Its
/// lock is taken before the scheduler's.
pub(crate) struct Slot<T> {
    pub(super) state: Mutex<State<T>>,
    /// Set with `Stop::Drop`, for polls that do not take the lock.
    drops_job: AtomicBool,
}

pub(super) struct State<T> {
    pub(super) value: Option<T>,
    /// Why there is no value, for a task that has failed or was stopped.
    pub(super) error: Option<ContextError>,
    pub(super) ended: bool,
    /// The handle was dropped, so a value is not kept.
    pub(super) abandoned: bool,
    pub(super) waiter: Option<Waiter>,
    stop: Stop,
    /// Wakes the task, so that it is dropped at its await.
    job_waker: Option<Waker>,
    /// The entry of a task that has started, to note there that it was stopped.
    entry: Option<TaskRef>,
}

/// Whether the handle has stopped the task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    No,
    /// The context of the task's own is cancelled.
    Cancel,
    /// The task is dropped at its next await.
    Drop,
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Arc<Slot<T>> {
        Arc::new(Slot {
            state: Mutex::new(State {
                value: None,
                error: None,
                ended: false,
                abandoned: false,
                waiter: None,
                stop: Stop::No,
                job_waker: None,
                entry: None,
            }),
            drops_job: AtomicBool::new(false),
        })
    }

    /// Returns whether the handle has the job dropped before its next poll.
    pub(crate) fn drops_job(&self) -> bool {
        // `Relaxed`: a job that misses it finds it when it has been polled.
        self.drops_job.load(Ordering::Relaxed)
    }

    /// Keeps the waker of a job that is pending. Returns whether the job waits: not if the handle
    /// has it dropped.
    pub(crate) fn keep_job_waker(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        if state.stop == Stop::Drop {
            return false;
        }
        if state
            .job_waker
            .as_ref()
            .is_some_and(|it| it.will_wake(waker))
        {
            return true;
        }
        let old = state.job_waker.replace(waker.clone());
        drop(state);
        drop(old);
        true
    }

    /// Returns the error of a job that its handle has stopped.
    pub(crate) fn stop_error(&self) -> ContextError {
        let error = self.state.lock().error.clone();
        error.unwrap_or_else(|| ContextError::cancelled(None))
    }

    /// Stops the job for the handle. Returns whether the job has not ended yet.
    pub(super) fn stop(&self, stop: Stop, error: ContextError) -> bool {
        let mut state = self.state.lock();
        if state.ended {
            return false;
        }
        let note = state.entry.take().map(|entry| (entry, error.clone()));
        // The first reason stays.
        let unwanted = match state.stop {
            Stop::No => state.error.replace(error),
            Stop::Cancel | Stop::Drop => Some(error),
        };
        state.stop = state.stop.max(stop);
        let waker = match state.stop {
            Stop::Drop => {
                self.drops_job.store(true, Ordering::Relaxed);
                state.job_waker.take()
            }
            Stop::No | Stop::Cancel => None,
        };
        drop(state);
        if let Some((entry, why)) = note {
            note_stop(entry, why);
        }
        panic::discard(unwanted);
        waker.into_iter().for_each(panic::wake);
        true
    }

    /// Keeps the value for the handle. If the handle was dropped, drops the value here, in the
    /// task: a panic of its destructor is then a panic of the task.
    pub(crate) fn put(&self, value: T) {
        drop(self.try_put(value));
    }

    /// Keeps the value for the handle. If the handle was dropped, returns the value, which the
    /// caller drops when it holds no lock.
    pub(crate) fn try_put(&self, value: T) -> Option<T> {
        let mut state = self.state.lock();
        if state.abandoned {
            return Some(value);
        }
        state.value.replace(value)
    }

    /// Wakes the handle because the task has ended. Keeps a value that is here.
    pub(crate) fn end(&self, scheduler: Option<&dyn Lending>) {
        self.end_after(scheduler, |_| None);
    }

    /// Wakes the handle because the task has failed, and drops a value that is here: a destructor
    /// of the task may have panicked after the value was put here.
    pub(crate) fn end_without_value(&self, scheduler: Option<&dyn Lending>) {
        self.end_after(scheduler, Option::take);
    }

    fn end_after(
        &self,
        scheduler: Option<&dyn Lending>,
        take: impl FnOnce(&mut Option<T>) -> Option<T>,
    ) {
        let mut state = self.state.lock();
        state.ended = true;
        let unwanted = take(&mut state.value);
        let job_waker = state.job_waker.take();
        let mut wake = Wakers::default();
        if let Some(waiter) = state.waiter.take() {
            decide(waiter, scheduler, &mut wake);
        }
        drop(state);
        panic::discard((unwanted, job_waker));
        wake.for_each(panic::wake);
    }
}

/// Wakes a waiter. If it has lent its permit, claims a permit for it before a queued task gets it.
fn decide(waiter: Waiter, scheduler: Option<&dyn Lending>, wake: &mut Wakers) {
    let Some(scheduler) = scheduler else {
        wake.push(waiter.waker);
        return;
    };
    let mut waiter = Some(waiter);
    scheduler.read(&mut |permits| {
        if let Some(waiter) = waiter.take() {
            permits.decide(waiter, wake);
        }
        permits.grant(wake);
    });
}

/// Notes in its entry that a task was stopped. Must be called without a lock, because it runs the
/// `Display` of the cause.
fn note_stop(entry: TaskRef, why: ContextError) {
    match why.cause() {
        Some(cause) => entry.stopped(cause),
        None => entry.stopped(&why),
    }
    panic::discard(why);
}

impl<T: Send> Observer for Slot<T> {
    fn ended(&self, scheduler: &dyn Lending, succeeded: bool) {
        if succeeded {
            self.end(Some(scheduler));
        } else {
            self.end_without_value(Some(scheduler));
        }
    }

    fn started(&self, entry: TaskRef) {
        let mut state = self.state.lock();
        if state.stop == Stop::No {
            state.entry = Some(entry);
            return;
        }
        // It was stopped on its way to its worker.
        let why = state.error.clone();
        drop(state);
        if let Some(why) = why {
            note_stop(entry, why);
        }
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().stop != Stop::No
    }

    fn failed(&self, failure: ContextError, is_panic: bool) {
        let mut state = self.state.lock();
        // The reason of a stop stays, but a panic is not hidden by it.
        let unwanted = if state.error.is_none() || is_panic {
            state.error.replace(failure)
        } else {
            Some(failure)
        };
        drop(state);
        panic::discard(unwanted);
    }
}
