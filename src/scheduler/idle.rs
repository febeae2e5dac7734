//! Waits until a scheduler is idle, by any number of tasks, and closes a group to new tasks.
//!
//! # Invariants
//!
//! 1. A task that waits has its waker in `Idlers`, or it has seen that the scheduler is idle. Both
//!    happen under the lock under which a job is counted as completed. The section that makes the
//!    scheduler idle takes all wakers, so none of the tasks misses it.
//! 2. A waker that is no longer in `Idlers` was taken because the scheduler was idle. So the task
//!    that it belongs to has waited long enough, even if other jobs were accepted meanwhile.
//! 3. A scheduler that is shut accepts no job any more. So once it is complete and idle, it stays
//!    so, and the first task that sees this takes the failures and closes it, in one section.

use std::future::poll_fn;
use std::task::{self, Poll, Waker, ready};

use tokio::task::coop;

use super::Scheduler;
use super::calls::Untaken;
use super::current;
use super::effects::Effects;
use super::extras::Extras;
use super::failures::Failures;
use super::idlers::IdlerKey;
use super::source::Source;
use super::state::{Phase, State};
use crate::panic;
use crate::sync::Arc;

impl<S: Source> State<S> {
    /// Returns how many jobs are open for which an idle scheduler waits.
    fn foreground(&self) -> usize {
        // A background task leaves both counts when it ends, `background` first.
        self.open - self.background
    }

    /// Returns whether nothing is running or queued, and no permit is out.
    pub(crate) fn is_idle(&self) -> bool {
        self.foreground() == 0 && !self.source.has_unstarted() && self.permits.running() == 0
    }

    /// Returns whether a call waits for the end of all jobs: a join, or another one that has
    /// entered itself with [`Waiting`].
    pub(crate) fn is_waited_for(&self) -> bool {
        self.is_joined || self.extras.as_ref().is_some_and(|it| it.waits > 0)
    }

    /// Wakes the task that joins if everything is complete, and those that wait until the scheduler
    /// is idle.
    pub(crate) fn wake_waiter(&mut self, effects: &mut Effects) {
        if self.foreground() == 0 {
            self.wake_waiters(effects);
        }
    }

    /// Not inlined into the completion of each job.
    #[inline(never)]
    fn wake_waiters(&mut self, effects: &mut Effects) {
        if self.is_complete() {
            effects.wake.extend(self.waiter.take());
        }
        self.end_background(effects);
        if self.extras.is_some() && self.is_idle() {
            let idlers = self.extras.iter_mut().flat_map(|it| it.idlers.take_all());
            effects.wake.extend(idlers);
        }
    }

    pub(super) fn extras(&mut self) -> &mut Extras<S::Error> {
        self.extras.get_or_insert_default()
    }

    /// Closes the scheduler if no call of `start` has left a failure. Everything is complete.
    pub(super) fn conclude(&mut self, effects: &mut Effects) -> Untaken<S::Error> {
        let untaken = self.calls.take_untaken();
        if let Untaken::None = untaken {
            self.is_concluded = true;
            if self.phase == Phase::Open {
                self.phase = Phase::Closed;
            }
            if self.source.has_unstarted() {
                // Reservations, for which no join waits.
                self.reject_unstarted_without_worker(effects);
            }
            self.relieve_watcher(effects);
        }
        untaken
    }
}

/// A call that waits for all jobs, from its first poll until it is dropped.
pub(crate) struct Waiting<'a, S: Source>(&'a Arc<Scheduler<S>>);

impl<'a, S: Source> Waiting<'a, S> {
    pub(crate) fn begin(scheduler: &'a Arc<Scheduler<S>>) -> Waiting<'a, S> {
        scheduler.with_state(|state| state.extras().waits += 1);
        Waiting(scheduler)
    }
}

impl<S: Source> Drop for Waiting<'_, S> {
    fn drop(&mut self) {
        self.0.with_state(|state| state.extras().waits -= 1);
    }
}

/// A place among the tasks that wait until the scheduler is idle. It is given up on drop.
struct Place<'a, S: Source> {
    scheduler: &'a Arc<Scheduler<S>>,
    /// `None` before the first poll in which it had to wait.
    key: Option<IdlerKey>,
}

impl<S: Source> Place<'_, S> {
    /// Returns whether the waker was taken (invariant 2).
    fn was_woken(&self, state: &State<S>) -> bool {
        let idlers = state.extras.as_ref().map(|it| &it.idlers);
        self.key
            .is_some_and(|key| idlers.is_none_or(|idlers| !idlers.contains(key)))
    }

    /// Enters the waker in `new`. What is left there afterwards is dropped outside the lock.
    fn enter(&mut self, state: &mut State<S>, new: &mut Option<Waker>) {
        let Some(waker) = new.take() else { return };
        let idlers = &mut state.extras().idlers;
        let key = *self.key.get_or_insert_with(|| idlers.new_key());
        *new = idlers.insert(key, waker);
    }

    fn poll_idle(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut new = Some(cx.waker().clone());
        let is_idle = self.scheduler.with_state(|state| {
            let is_idle = self.was_woken(state) || state.is_idle();
            if !is_idle {
                self.enter(state, &mut new);
            }
            is_idle
        });
        panic::discard(new);
        if is_idle {
            return Poll::Ready(());
        }
        current::wait_for_all(self.scheduler, cx.waker());
        Poll::Pending
    }

    /// Waits until the scheduler, which is shut, is complete, and closes it. Returns the failures
    /// that no other call has taken.
    fn poll_closed(&mut self, cx: &mut task::Context<'_>) -> Poll<Failures<S::Error>> {
        let scheduler = self.scheduler;
        // Ends: each failure is taken once, and no task is left that could fail.
        loop {
            let mut new = Some(cx.waker().clone());
            let concluded = scheduler.with_effects(|state, effects| {
                if !(state.is_complete() && state.is_idle()) {
                    state.end_background(effects);
                    self.enter(state, &mut new);
                    return None;
                }
                let untaken = state.conclude(effects);
                match untaken {
                    Untaken::None => {
                        let failures = std::mem::replace(&mut state.failures, Failures::new());
                        return Some(Ok(failures));
                    }
                    Untaken::Yield => effects.wake.extend(new.take()),
                    Untaken::Failures(_) => {}
                }
                Some(Err(untaken))
            });
            panic::discard(new);
            match concluded {
                None => {
                    current::wait_for_all(scheduler, cx.waker());
                    return Poll::Pending;
                }
                Some(Ok(failures)) => return Poll::Ready(failures),
                Some(Err(Untaken::Failures(untaken))) => {
                    untaken
                        .into_iter()
                        .for_each(|failure| scheduler.fail(failure));
                }
                Some(Err(Untaken::None | Untaken::Yield)) => return Poll::Pending,
            }
        }
    }
}

impl<S: Source> Drop for Place<'_, S> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self
                .scheduler
                .with_state(|state| state.extras().idlers.remove(key));
            panic::discard(waker);
        }
    }
}

impl<S: Source> Scheduler<S> {
    /// Refuses every job from now on. Those that were accepted are not affected.
    pub(crate) fn shut(&self) {
        self.with_state(|state| state.is_shut = true);
    }

    /// Waits until nothing is running or queued.
    pub(crate) async fn idle(self: &Arc<Self>) {
        let mut place = Place {
            scheduler: self,
            key: None,
        };
        poll_fn(|cx| {
            let budget = ready!(coop::poll_proceed(cx));
            ready!(place.poll_idle(cx));
            budget.made_progress();
            Poll::Ready(())
        })
        .await;
    }

    /// Refuses every job from now on, and waits until all are complete and no permit is out.
    /// Returns the failures, of several calls to the first.
    pub(crate) async fn shut_and_join(self: &Arc<Self>) -> Failures<S::Error> {
        self.shut();
        let _waiting = Waiting::begin(self);
        let mut place = Place {
            scheduler: self,
            key: None,
        };
        poll_fn(|cx| {
            let budget = ready!(coop::poll_proceed(cx));
            let failures = ready!(place.poll_closed(cx));
            budget.made_progress();
            Poll::Ready(failures)
        })
        .await
    }
}
