//! Waits until all jobs are complete and all workers have finished.

use std::task::{self, Poll, ready};

use tokio::task::coop;

use super::Scheduler;
use super::calls::Untaken;
use super::current;
use super::source::Source;
use crate::panic;
use crate::sync::{Arc, JoinSet};

impl<S: Source> Scheduler<S> {
    /// Waits until every job is complete and every worker has finished. No job is accepted from
    /// then on.
    pub(crate) async fn join(self: &Arc<Self>) {
        let mut leaving = None;
        std::future::poll_fn(|cx| {
            ready!(self.poll_joined(&mut leaving, cx));
            // A task that has used up its budget yields even if the join is ready at once.
            ready!(coop::poll_proceed(cx)).made_progress();
            Poll::Ready(())
        })
        .await;
    }

    /// Polls the same. `leaving` keeps the workers from one poll to the next. A job that polls this
    /// waits for all jobs of this scheduler.
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

    /// Waits until every job is complete, and joins the workers.
    fn poll_workers_joined(
        self: &Arc<Self>,
        leaving: &mut Option<JoinSet<()>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        let workers = match leaving {
            Some(workers) => workers,
            None => {
                ready!(self.poll_complete(cx));
                // The set is taken out, so that the caller's waker is not touched under the lock.
                // Nothing is spawned into it any more.
                match self.workers.lock().take() {
                    Some(workers) => leaving.insert(workers),
                    None => return Poll::Ready(()),
                }
            }
        };
        while ready!(workers.poll_join_next(cx)).is_some() {}
        Poll::Ready(())
    }

    /// Waits until every job is complete, and closes the scheduler.
    pub(super) fn poll_complete(self: &Arc<Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut new = Some(cx.waker().clone());
        let untaken = self.with_effects(|state, effects| {
            state.is_joined = true;
            if state.source.has_outcome() {
                // The outcome came just now. The consumer takes it first.
                effects.wake.extend(new.take());
                return Poll::Pending;
            }
            if !state.is_complete() {
                state.end_background(effects);
                std::mem::swap(&mut state.waiter, &mut new);
                return Poll::Pending;
            }
            match state.conclude(effects) {
                Untaken::None => Poll::Ready(Vec::new()),
                Untaken::Yield => {
                    effects.wake.extend(new.take());
                    Poll::Pending
                }
                Untaken::Failures(failures) => Poll::Ready(failures),
            }
        });
        // What is left here, the waker of an earlier poll or the new one, is not needed any more.
        panic::discard(new);
        let untaken = ready!(untaken);
        if untaken.is_empty() {
            return Poll::Ready(());
        }
        for failure in untaken {
            self.fail(failure);
        }
        // Ends: each failure is taken once, and no task is left that could fail.
        self.poll_complete(cx)
    }
}
