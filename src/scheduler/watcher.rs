//! Enforces the end of the context: rejects queued work, and aborts running jobs when the grace
//! period is over.
//!
//! The scheduler must notice that its context is done, because queued work must be dropped and the
//! grace period begins. It *subscribes* to a cancellation as an observer in the context's list of
//! listeners, from the first time that this is needed. A deadline that passes notifies nothing, so
//! a [timer](super::deadline) is started for it, on the runtime of the jobs, when a job is queued
//! or a grace period is set. It runs until the scheduler is dropped.
//!
//! The grace period is a time to wait, too. For it there is one watcher task, which exists while
//! the grace period lasts and jobs run. It is in the `JoinSet` with the workers, so a join waits
//! for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Scheduler;
use super::deadline::{DeadlineObserver, DeadlineTimer};
use super::effects::Effects;
use super::shutdown::Watcher;
use super::source::{Reach, Source};
use super::state::State;
use crate::context::{CancelObserver, deadline_after};
use crate::panic::{self, Payload};
use crate::sync::{self, Arc, Weak};

impl<S: Source> State<S> {
    /// Has the context watched: work was queued or a grace period was set, so the scheduler must
    /// notice when the context is done.
    pub(crate) fn watch(&mut self, effects: &mut Effects) {
        effects.watch |= !self.shutdown.subscribed || self.lacks_timer() || self.lacks_watcher();
    }

    /// Returns whether the deadline of the context has to be noticed and no timer runs for it.
    fn lacks_timer(&self) -> bool {
        let shutdown = &self.shutdown;
        shutdown.needs_timer
            && shutdown.ended.is_none()
            && self.is_open()
            && (shutdown.grace.is_some() || self.source.has_unstarted())
    }

    /// Returns whether a watcher has something to wait for and there is none.
    fn lacks_watcher(&self) -> bool {
        self.needs_watcher() && matches!(self.shutdown.watcher, Watcher::None)
    }

    /// Sets the grace period.
    pub(crate) fn set_grace(&mut self, grace: Option<Duration>, effects: &mut Effects) {
        self.shutdown.grace = grace;
        self.call_watcher(effects);
        effects.flush = true;
        self.watch_grace(effects);
    }

    /// Sets the grace period before the first job. The caller has the context watched.
    pub(crate) fn begin_with_grace(&mut self, grace: Duration) {
        self.shutdown.grace = Some(grace);
    }

    pub(crate) fn has_grace(&self) -> bool {
        self.shutdown.grace.is_some()
    }

    /// Has the context watched if a grace period is set: a job has started.
    pub(crate) fn watch_grace(&mut self, effects: &mut Effects) {
        if self.shutdown.grace.is_some() {
            self.watch(effects);
        }
    }

    /// Returns whether the watcher has something to wait for.
    fn needs_watcher(&self) -> bool {
        let shutdown = &self.shutdown;
        shutdown.ended.is_some() && shutdown.grace.is_some() && self.is_open() && self.has_open()
    }

    /// Wakes the watcher if it has nothing left to wait for, so that it finishes.
    pub(crate) fn relieve_watcher(&mut self, effects: &mut Effects) {
        if matches!(self.shutdown.watcher, Watcher::Waiting(_)) && !self.needs_watcher() {
            self.call_watcher(effects);
        }
    }

    /// Returns when the grace period ends, if the watcher has to wait for that.
    fn grace_ends(&self) -> Option<Instant> {
        let (ended, grace) = (self.shutdown.ended?, self.shutdown.grace?);
        self.needs_watcher().then(|| deadline_after(ended, grace))
    }

    /// Wakes the watcher, so that it looks again what it has to wait for.
    fn call_watcher(&mut self, effects: &mut Effects) {
        if let Watcher::Waiting(_) = self.shutdown.watcher {
            let waiting = std::mem::replace(&mut self.shutdown.watcher, Watcher::Coming);
            if let Watcher::Waiting(waker) = waiting {
                effects.wake.push(waker);
            }
        }
    }
}

impl<S: Source> Scheduler<S> {
    /// Subscribes to the cancellation of the context, starts the timer of its deadline, and spawns
    /// a watcher, each if it is needed and missing.
    pub(crate) fn watch(self: &Arc<Self>) {
        self.subscribe();
        let is_needed = self.read(State::lacks_timer);
        if is_needed && self.wake_driver() {
            self.start_deadline_timer();
        }
        self.spawn_watcher();
    }

    /// Subscribes to the cancellation of the context, once.
    pub(crate) fn subscribe(self: &Arc<Self>) {
        let subscribe =
            self.with_state(|state| !std::mem::replace(&mut state.shutdown.subscribed, true));
        if subscribe {
            let observer: Weak<Self> = Arc::downgrade(self);
            if !self.ctx().observe_cancel(observer, &self.cancel_key) {
                self.context_done();
            }
        }
    }

    /// Starts the timer of the deadline if it is needed and does not run. The caller has spawned
    /// tasks that other workers run, or has called `wake_driver`.
    pub(crate) fn start_deadline_timer(self: &Arc<Self>) {
        // Without a runtime no job has started, so there is nothing to stop yet.
        let (Some(deadline), Some(runtime)) = (self.ctx().deadline(), self.runtime()) else {
            return;
        };
        let start = self.with_state(|state| {
            let start = state.lacks_timer();
            state.shutdown.needs_timer &= !start;
            start
        });
        if !start {
            return;
        }
        let observer: Weak<Self> = Arc::downgrade(self);
        match panic::catch(|| DeadlineTimer::start(deadline, runtime, observer)) {
            Ok(Some(timer)) => {
                // Only one thread gets here.
                let _ = self.deadline_timer.set(timer);
            }
            Ok(None) => self.clone().deadline_passed(),
            Err(payload) => self.fail_timer(payload),
        }
    }

    /// Has another worker poll the timers of the runtime while the caller computes. Returns false
    /// if there is no runtime any more, or none yet.
    ///
    /// One worker polls the timers for all. If a timer or a socket wakes a single task, that worker
    /// leaves them to poll the task, and wakes no other worker. The caller may be that task.
    fn wake_driver(&self) -> bool {
        let Some(runtime) = self.runtime() else {
            return false;
        };
        if sync::has_shut_down(runtime) {
            return false;
        }
        // What that has spawned is in the caller's LIFO slot. To push it out wakes a worker.
        self.flush_lifo_slot();
        true
    }

    /// Handles that the context is done: rejects queued work, and begins the grace period. It may
    /// be called again: the timer of a deadline runs on after a cancellation.
    pub(crate) fn context_done(self: &Arc<Self>) {
        if self.read(State::is_closed) {
            // A fan-out cancels its context when everything is complete, and a timer runs on.
            return;
        }
        let ended = self.ctx().ended_at().unwrap_or_else(Instant::now);
        let reclaimed = self.with_effects(|state, effects| {
            state.reject_unstarted(effects);
            state.shutdown.ended.get_or_insert(ended);
            effects.flush = true;
            let at_once = S::ABORTS_ANYWHERE && state.shutdown.grace == Some(Duration::ZERO);
            at_once.then(|| self.begin_abort(Reach::AllButCleanup, state, effects))
        });
        match reclaimed {
            Some(reclaimed) => self.finish_abort(reclaimed),
            None => self.spawn_watcher(),
        }
    }

    /// Spawns a watcher if one is needed and there is none.
    fn spawn_watcher(self: &Arc<Self>) {
        // Without a runtime no job has started, so there is nothing to watch yet.
        if self.runtime().is_none() {
            return;
        }
        let spawn = self.with_state(|state| {
            let spawn = state.lacks_watcher();
            if spawn {
                state.shutdown.watcher = Watcher::Coming;
            }
            spawn
        });
        if spawn {
            self.spawn_task(|scheduler| WatcherTask {
                scheduler: scheduler.clone(),
                timer: None,
            });
            self.flush_lifo_slot();
        }
    }
}

impl<S: Source> CancelObserver for Scheduler<S> {
    fn cancelled(self: Arc<Self>) {
        self.context_done();
    }
}

impl<S: Source> DeadlineObserver for Scheduler<S> {
    fn deadline_passed(self: Arc<Self>) {
        if self.ctx().is_done() {
            self.context_done();
        }
    }
}

/// A scheduler as its watcher sees it. Behind this, the watcher is one type of task for all groups
/// and fan-outs.
trait Watched: Send + Sync {
    /// Returns when the grace period ends, and keeps the watcher's waker meanwhile. `None` if the
    /// watcher has nothing to wait for.
    fn grace_ends(self: Arc<Self>, waker: Waker) -> Option<Instant>;
    /// Aborts the jobs that run when the grace period is over.
    fn abort(self: Arc<Self>);
    /// Handles that the watcher has panicked.
    fn fail(self: Arc<Self>, payload: Payload);
}

impl<S: Source> Watched for Scheduler<S> {
    fn grace_ends(self: Arc<Self>, waker: Waker) -> Option<Instant> {
        self.with_effects(|state, effects| {
            let ends = state.grace_ends();
            let watcher = if ends.is_some() {
                Watcher::Waiting(waker)
            } else {
                effects.stale_wakers.push(waker);
                Watcher::None
            };
            if let Watcher::Waiting(old) = std::mem::replace(&mut state.shutdown.watcher, watcher) {
                effects.stale_wakers.push(old);
            }
            ends
        })
    }

    fn abort(self: Arc<Self>) {
        self.abort_workers(Reach::AllButCleanup);
    }

    fn fail(self: Arc<Self>, payload: Payload) {
        self.fail_timer(payload);
    }
}

/// The watcher task.
struct WatcherTask {
    scheduler: Arc<dyn Watched>,
    /// The timer of the grace period, with the instant at which that ends.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Future for WatcherTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        // A runtime without a timer panics here. The result of this task is not read, so the panic
        // is recorded as a failure of the group.
        panic::catch(|| self.as_mut().watch(cx)).unwrap_or_else(|payload| {
            self.scheduler.clone().fail(payload);
            Poll::Ready(())
        })
    }
}

impl WatcherTask {
    fn watch(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        while let Some(until) = self.scheduler.clone().grace_ends(cx.waker().clone()) {
            if until > Instant::now() {
                let timer = match &mut self.timer {
                    Some((armed, timer)) if *armed == until => timer,
                    timer => {
                        let sleep = Box::pin(tokio::time::sleep_until(until));
                        &mut timer.insert((until, sleep)).1
                    }
                };
                ready!(timer.as_mut().poll(cx));
            }
            self.scheduler.clone().abort();
        }
        Poll::Ready(())
    }
}
