//! Seeing the end of the context, while something must follow from it.
//!
//! Two things do: what is queued must be dropped, and when the grace has run out, what still runs must be aborted. A cancel is
//! *told*: the scheduler has an entry in the context's list of waiters, from the first time that it is needed on. A deadline is
//! told by nobody, and the grace is a time to wait: for these there is one watcher task, which exists only
//!
//! - before the end, if there is a deadline: from the first queued task on while tasks run, or
//!   while there is a grace;
//! - after it, while the grace runs and tasks do.
//!
//! It is in the `JoinSet` with the workers, so a wait proves that it is gone, too.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Wake, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Scheduler;
use super::effects::Effects;
use super::source::Source;
use super::state::State;
use crate::context::{DoneOwned, deadline_after};
use crate::panic;
use crate::sync::{Arc, Weak};

/// What a scheduler knows about being told.
pub(crate) struct Shutdown {
    /// Whether the context tells the scheduler of its cancel.
    subscribed: bool,
    /// Whether the context has a deadline, of which nobody tells.
    has_deadline: bool,
    /// How long tasks may run on after the end.
    grace: Option<Duration>,
    /// When the end was seen, while there is a grace.
    ended: Option<Instant>,
    watcher: Watcher,
}

enum Watcher {
    None,
    /// Spawned, or woken to look again.
    Coming,
    Waiting(Waker),
}

impl Shutdown {
    pub(crate) fn new(has_deadline: bool) -> Shutdown {
        Shutdown {
            subscribed: false,
            has_deadline,
            grace: None,
            ended: None,
            watcher: Watcher::None,
        }
    }
}

impl<S: Source> State<S> {
    /// Something has been queued, or a grace was set: the end of the context must now be seen by somebody.
    pub(crate) fn watch(&mut self, effects: &mut Effects) {
        let send = self.needs_watcher() && matches!(self.shutdown.watcher, Watcher::None);
        effects.watch |= send || !self.shutdown.subscribed;
    }

    pub(crate) fn set_grace(&mut self, grace: Option<Duration>, effects: &mut Effects) {
        self.shutdown.grace = grace;
        self.call_watcher(effects);
        effects.flush = true;
        self.watch_grace(effects);
    }

    pub(crate) fn has_grace(&self) -> bool {
        self.shutdown.grace.is_some()
    }

    /// Something has started, so that a grace is of use.
    pub(crate) fn watch_grace(&mut self, effects: &mut Effects) {
        if self.shutdown.grace.is_some() {
            self.watch(effects);
        }
    }

    /// Whether there is something for a watcher to see.
    fn needs_watcher(&self) -> bool {
        let shutdown = &self.shutdown;
        let grace = shutdown.grace.is_some() && self.has_open();
        // Once there is one, it stays while tasks run: tasks that queue and start one after another
        // would otherwise each pay for a watcher of their own.
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

    /// If there is nothing left to see, the watcher may go.
    pub(crate) fn relieve_watcher(&mut self, effects: &mut Effects) {
        if matches!(self.shutdown.watcher, Watcher::Waiting(_)) && !self.needs_watcher() {
            self.call_watcher(effects);
        }
    }

    /// Returns what the watcher is to wait for.
    fn next_wait(&self) -> Next {
        if !self.needs_watcher() {
            return Next::Leave;
        }
        match (self.shutdown.ended, self.shutdown.grace) {
            (Some(ended), Some(grace)) => Next::Grace(deadline_after(ended, grace)),
            _ => Next::End,
        }
    }

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
    /// Sees to it that the end of the context is seen, and that there is a watcher if one is needed.
    pub(crate) fn watch(self: &Arc<Self>) {
        let tell =
            self.with_effects(|state, _| !std::mem::replace(&mut state.shutdown.subscribed, true));
        if tell {
            let waker = Waker::from(Arc::new(CancelWaker(Arc::downgrade(self))));
            if !self.ctx().wake_on_cancel(waker) {
                self.context_done();
            }
        }
        self.send_watcher();
    }

    /// The context has ended: what is queued never starts, and the grace begins.
    fn context_done(self: &Arc<Self>) {
        if self.read(State::is_closed) {
            // A fan-out cancels its context when everything has finished.
            return;
        }
        let ended = self.ctx().ended_at().unwrap_or_else(Instant::now);
        let reclaimed = self.with_effects(|state, effects| {
            state.reject_unstarted(effects);
            state.shutdown.ended.get_or_insert(ended);
            state.call_watcher(effects);
            effects.flush = true;
            let at_once = S::ABORTS_ANYWHERE && state.shutdown.grace == Some(Duration::ZERO);
            at_once.then(|| self.begin_abort(state, effects))
        });
        match reclaimed {
            Some(reclaimed) => self.finish_abort(reclaimed),
            None => self.send_watcher(),
        }
    }

    fn send_watcher(self: &Arc<Self>) {
        // Without a runtime nothing has been started, and so there is nothing to see yet.
        if self.runtime().is_none() {
            return;
        }
        let send = self.with_effects(|state, _| {
            let send = state.needs_watcher() && matches!(state.shutdown.watcher, Watcher::None);
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
            self.flush_lifo_slot();
        }
    }
}

/// How the context tells the scheduler of a cancel, in the thread that cancels. Weak: the context is the scheduler's own.
struct CancelWaker<S: Source>(Weak<Scheduler<S>>);

impl<S: Source> Wake for CancelWaker<S> {
    fn wake(self: std::sync::Arc<Self>) {
        if let Some(scheduler) = self.0.upgrade() {
            scheduler.context_done();
        }
    }
}

/// The watcher task.
struct WatcherTask<S: Source> {
    scheduler: Arc<Scheduler<S>>,
    done: DoneOwned,
    /// Armed when the grace begins, for the instant at which it runs out.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// What the watcher is to wait for.
enum Next {
    Leave,
    End,
    Grace(Instant),
}

impl<S: Source> WatcherTask<S> {
    fn next(&self, waker: Waker) -> Next {
        self.scheduler.with_effects(|state, effects| {
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
}

impl<S: Source> Future for WatcherTask<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        // A runtime without a timer panics here. Nobody joins this task for its outcome, so the group takes it.
        panic::catch(|| self.as_mut().watch(cx)).unwrap_or_else(|payload| {
            self.scheduler.fail_watch(payload);
            Poll::Ready(())
        })
    }
}

impl<S: Source> WatcherTask<S> {
    fn watch(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        loop {
            match self.next(cx.waker().clone()) {
                Next::Leave => return Poll::Ready(()),
                Next::End => {
                    ready!(Pin::new(&mut self.done).poll(cx));
                    self.scheduler.context_done();
                }
                Next::Grace(until) if until <= Instant::now() => self.scheduler.abort_workers(),
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
                    self.scheduler.abort_workers();
                }
            }
        }
    }
}
