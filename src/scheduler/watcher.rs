//! Enforces the end of the context: rejects queued work, and aborts running jobs when the grace
//! period is over.
//!
//! The scheduler must notice that its context is done, because queued work must be dropped and the
//! grace period begins. It *subscribes* to a cancellation as an observer in the context's list of
//! listeners, from the first time that this is needed. A deadline that passes notifies nothing, and
//! the grace period is a time to wait. For these two there is one watcher task, which exists only
//!
//! - before the context is done, if it has a deadline: from the first queued job on while jobs run,
//!   or while a grace period is set;
//! - after the context is done: while the grace period lasts and jobs run.
//!
//! The watcher is in the `JoinSet` with the workers, so a join waits for it, too.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Scheduler;
use super::effects::Effects;
use super::shutdown::Watcher;
use super::source::{Reach, Source};
use super::state::State;
use crate::context::{CancelObserver, DoneOwned, deadline_after};
use crate::panic::{self, Payload};
use crate::sync::{Arc, Weak};

impl<S: Source> State<S> {
    /// Has the context watched: work was queued or a grace period was set, so the scheduler must
    /// notice when the context is done.
    pub(crate) fn watch(&mut self, effects: &mut Effects) {
        effects.watch |= self.must_be_watched();
    }

    /// Returns whether the scheduler would not notice that the context is done.
    pub(crate) fn must_be_watched(&self) -> bool {
        !self.shutdown.subscribed || self.lacks_watcher()
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
        let grace = shutdown.grace.is_some() && self.has_open();
        // A watcher stays while jobs run. Otherwise tasks that are queued and started one after
        // another would each pay for a watcher.
        let stays = !matches!(shutdown.watcher, Watcher::None) && self.has_open();
        let queue = stays || self.source.has_unstarted();
        let before_the_end = shutdown.has_deadline && (shutdown.grace.is_some() || queue);
        self.is_open()
            && (if shutdown.ended.is_some() {
                grace
            } else {
                before_the_end
            })
    }

    /// Wakes the watcher if it has nothing left to wait for, so that it finishes.
    pub(crate) fn relieve_watcher(&mut self, effects: &mut Effects) {
        if matches!(self.shutdown.watcher, Watcher::Waiting(_)) && !self.needs_watcher() {
            self.call_watcher(effects);
        }
    }

    /// Returns what the watcher waits for next.
    fn next_wait(&self) -> Next {
        if !self.needs_watcher() {
            return Next::Leave;
        }
        match (self.shutdown.ended, self.shutdown.grace) {
            (Some(ended), Some(grace)) => Next::Grace(deadline_after(ended, grace)),
            _ => Next::End,
        }
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
    /// Subscribes to the cancellation of the context, and spawns a watcher if one is needed.
    pub(crate) fn watch(self: &Arc<Self>) {
        if self.watch_from_slot() {
            self.flush_lifo_slot();
        }
    }

    /// Does what `watch` does. Returns whether it has spawned a watcher, which may be in the LIFO
    /// slot of the calling worker.
    pub(crate) fn watch_from_slot(self: &Arc<Self>) -> bool {
        let tell =
            self.with_state(|state| !std::mem::replace(&mut state.shutdown.subscribed, true));
        if tell {
            let observer: Weak<Self> = Arc::downgrade(self);
            if !self.ctx().observe_cancel(observer, &self.cancel_key) {
                self.context_done();
            }
        }
        self.spawn_watcher()
    }

    /// Handles that the context is done: rejects queued work, and begins the grace period.
    pub(crate) fn context_done(self: &Arc<Self>) {
        if self.read(State::is_closed) {
            // A fan-out cancels its context when everything is complete.
            return;
        }
        let ended = self.ctx().ended_at().unwrap_or_else(Instant::now);
        let reclaimed = self.with_effects(|state, effects| {
            state.reject_unstarted(effects);
            state.shutdown.ended.get_or_insert(ended);
            state.call_watcher(effects);
            effects.flush = true;
            let at_once = S::ABORTS_ANYWHERE && state.shutdown.grace == Some(Duration::ZERO);
            at_once.then(|| self.begin_abort(Reach::AllButCleanup, state, effects))
        });
        match reclaimed {
            Some(reclaimed) => self.finish_abort(reclaimed),
            None => {
                if self.spawn_watcher() {
                    self.flush_lifo_slot();
                }
            }
        }
    }

    /// Spawns a watcher if one is needed and there is none. Returns whether it did.
    fn spawn_watcher(self: &Arc<Self>) -> bool {
        // Without a runtime no job has started, so there is nothing to watch yet.
        if self.runtime().is_none() {
            return false;
        }
        let send = self.with_state(|state| {
            let send = state.lacks_watcher();
            if send {
                state.shutdown.watcher = Watcher::Coming;
            }
            send
        });
        if send {
            self.spawn_task(|scheduler| WatcherTask {
                done: scheduler.ctx().done_owned(),
                scheduler: scheduler.clone(),
                timer: None,
            });
        }
        send
    }
}

impl<S: Source> CancelObserver for Scheduler<S> {
    fn cancelled(self: Arc<Self>) {
        self.context_done();
    }
}

/// A scheduler as its watcher sees it. Behind this, the watcher is one type of task for all groups
/// and fan-outs.
trait Watched: Send + Sync {
    /// Returns what the watcher waits for next, and keeps its waker meanwhile.
    fn next_wait(self: Arc<Self>, waker: Waker) -> Next;
    /// Handles that the context is done.
    fn end(self: Arc<Self>);
    /// Aborts the jobs that run when the grace period is over.
    fn abort(self: Arc<Self>);
    /// Handles that the watcher has panicked.
    fn fail(self: Arc<Self>, payload: Payload);
}

impl<S: Source> Watched for Scheduler<S> {
    fn next_wait(self: Arc<Self>, waker: Waker) -> Next {
        self.with_effects(|state, effects| {
            let next = state.next_wait();
            let watcher = match next {
                Next::Leave => {
                    effects.stale_wakers.push(waker);
                    Watcher::None
                }
                _ => Watcher::Waiting(waker),
            };
            if let Watcher::Waiting(old) = std::mem::replace(&mut state.shutdown.watcher, watcher) {
                effects.stale_wakers.push(old);
            }
            next
        })
    }

    fn end(self: Arc<Self>) {
        self.context_done();
    }

    fn abort(self: Arc<Self>) {
        self.abort_workers(Reach::AllButCleanup);
    }

    fn fail(self: Arc<Self>, payload: Payload) {
        self.fail_watch(payload);
    }
}

/// The watcher task.
struct WatcherTask {
    scheduler: Arc<dyn Watched>,
    done: DoneOwned,
    /// The timer of the grace period, with the instant at which that ends.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// What the watcher waits for next.
enum Next {
    Leave,
    End,
    Grace(Instant),
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
        loop {
            match self.scheduler.clone().next_wait(cx.waker().clone()) {
                Next::Leave => return Poll::Ready(()),
                Next::End => {
                    ready!(Pin::new(&mut self.done).poll(cx));
                    self.scheduler.clone().end();
                }
                Next::Grace(until) if until <= Instant::now() => self.scheduler.clone().abort(),
                Next::Grace(until) => {
                    let timer = match &mut self.timer {
                        Some((armed, timer)) if *armed == until => timer,
                        timer => {
                            &mut timer
                                .insert((until, Box::pin(tokio::time::sleep_until(until))))
                                .1
                        }
                    };
                    ready!(timer.as_mut().poll(cx));
                    self.scheduler.clone().abort();
                }
            }
        }
    }
}
