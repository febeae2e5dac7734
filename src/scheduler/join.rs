//! How a wait joins all jobs and workers.

use std::task::{self, Poll, ready};

use tokio::task::coop;

use super::Scheduler;
use super::calls::Untaken;
use super::current;
use super::source::Source;
use super::state::Phase;
use crate::sync::{Arc, JoinSet};

impl<S: Source> Scheduler<S> {
    /// Waits until every task has ended and every worker has gone. Nothing is accepted from then on.
    pub(crate) async fn join(self: &Arc<Self>) {
        let mut leaving = None;
        std::future::poll_fn(|cx| {
            ready!(self.poll_joined(&mut leaving, cx));
            // A wait that is ready at once yields too when the task has used its budget up.
            ready!(coop::poll_proceed(cx)).made_progress();
            Poll::Ready(())
        })
        .await;
    }

    /// The same; `leaving` is where it keeps the workers from one poll to the next. A task that
    /// awaits it waits for this scheduler.
    pub(crate) fn poll_joined(
        self: &Arc<Self>,
        leaving: &mut Option<JoinSet<()>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        let polled = self.poll_workers_joined(leaving, cx);
        if polled.is_pending() {
            current::wait_for_all(self, cx.waker());
        }
        polled
    }

    fn poll_workers_joined(
        self: &Arc<Self>,
        leaving: &mut Option<JoinSet<()>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        let workers = match leaving {
            Some(workers) => workers,
            None => {
                ready!(self.poll_complete(cx));
                // Taken out, so that nobody's waker is touched under the lock; nothing is added any more.
                leaving.insert(std::mem::take(&mut *self.workers.lock()))
            }
        };
        while ready!(workers.poll_join_next(cx)).is_some() {}
        Poll::Ready(())
    }

    /// Resolves when every task has ended, and closes the door.
    fn poll_complete(self: &Arc<Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let untaken = ready!(self.with_effects(|state, effects| {
            if state.source.has_outcome() {
                // It came just now: it goes out first.
                effects.wake.push(waker);
                return Poll::Pending;
            }
            if !state.is_complete() {
                effects.stale_wakers.extend(state.waiter.replace(waker));
                return Poll::Pending;
            }
            match state.calls.take_untaken() {
                Untaken::None => {}
                Untaken::Yield => {
                    effects.wake.push(waker);
                    return Poll::Pending;
                }
                Untaken::Failures(failures) => {
                    effects.stale_wakers.push(waker);
                    return Poll::Ready(failures);
                }
            }
            effects.stale_wakers.push(waker);
            if state.phase == Phase::Open {
                state.phase = Phase::Closed;
            }
            state.relieve_watcher(effects);
            Poll::Ready(Vec::new())
        }));
        if untaken.is_empty() {
            return Poll::Ready(());
        }
        for failure in untaken {
            self.fail(failure);
        }
        // Ends: a failure is taken once, and no task is left that could fail.
        self.poll_complete(cx)
    }
}
