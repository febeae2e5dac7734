//! How tasks end, how all of them are stopped, and when it is over.

use std::panic::Location;
use std::task::{self, Poll, ready};
use std::time::Duration;

use tokio::task::{AbortHandle, coop};

use super::Scheduler;
use super::calls::{Failure, Untaken};
use super::current;
use super::effects::Effects;
use super::failures::Failures;
use super::lending::LenderId;
use super::source::{Outcome, Source, Tag};
use super::state::{Completion, HadPermit, Phase, Rejected, State};
use crate::context::ContextError;
use crate::context::{Cause, StaticCause};
use crate::panic::{self, Payload};
use crate::scheduler::error::{Label, Panic, TaskErrorKind};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, JoinSet};
use crate::tracing;

static WATCHER_FAILED: StaticCause =
    StaticCause("the group's watcher panicked: does the runtime have a timer?");
static TASK_ABORTED: StaticCause = StaticCause("the task was aborted");

/// What has started and is in no worker.
pub(crate) struct Reclaimed<S: Source> {
    /// What no worker has taken yet.
    pub(crate) works: Vec<(S::Tag, S::Work)>,
    /// Jobs that begin no more and count as ended at once, wherever their work is dropped.
    pub(crate) lost: Vec<(S::Tag, HadPermit)>,
    /// Tasks of their own.
    pub(crate) tasks: Vec<AbortHandle>,
}

impl<S: Source> Scheduler<S> {
    /// Records how a job ended, and stops the others if it failed (invariant 7). Hands back what a success gave.
    #[inline]
    pub(crate) fn record(
        self: &Arc<Self>,
        tag: &mut S::Tag,
        outcome: Outcome<S>,
    ) -> Option<S::Value> {
        let value = if let Outcome::Returned(Ok(value)) = outcome {
            Some(value)
        } else {
            self.record_failure(tag, outcome);
            None
        };
        tag.close_span();
        value
    }

    #[cold]
    fn record_failure(self: &Arc<Self>, tag: &mut S::Tag, outcome: Outcome<S>) {
        let kind = match outcome {
            Outcome::Returned(Ok(_)) => return,
            Outcome::Returned(Err(kind)) => kind,
            Outcome::Panicked(payload) => TaskErrorKind::Panicked(Panic::new(payload)),
            Outcome::Aborted => TaskErrorKind::Aborted(self.ctx().err().unwrap_or_else(|| {
                ContextError::cancelled(Some(Cause::from_static(&TASK_ABORTED)))
            })),
        };
        let (label, elapsed) = S::describe(&self.shared, tag);
        let failure = Failure {
            label,
            elapsed,
            kind,
            ended: self.ctx().is_done(),
        };
        let failure = match tag.failed_call() {
            Some(call) if !matches!(failure.kind, TaskErrorKind::Panicked(_)) => {
                self.with_effects(|state, _| state.calls.keep(call, failure))
            }
            _ => Some(failure),
        };
        let _entered = tracing::enter(tag.span());
        if let Some(failure) = failure {
            self.fail(failure);
        }
    }

    /// A failure is the group's.
    pub(crate) fn fail(self: &Arc<Self>, failure: Failure<S::Error>) {
        let cause = failure.report(self.on_failure);
        let (later, cause) = self.with_effects(|state, _| {
            if failure.is_own() {
                state.source.failed();
            }
            state.failures.record(failure, cause)
        });
        panic::discard(later);
        if let Some(cause) = cause {
            self.end_context_with(cause);
            self.with_effects(|state, _| state.ended_by_failure = true);
        }
    }

    /// Ends the context, and drops everything now: what waits, and what runs as soon as its present poll returns.
    pub(crate) fn abort(self: &Arc<Self>, why: &'static StaticCause) {
        self.end_context(why);
        // After a wait nothing is left to be stopped.
        if !self.read(State::is_closed) {
            self.abort_workers();
        }
    }

    pub(crate) fn abort_workers(self: &Arc<Self>) {
        let reclaimed = self.with_effects(|state, effects| self.begin_abort(state, effects));
        self.finish_abort(reclaimed);
    }

    /// Nothing runs or starts any more. What `finish_abort` is to do follows, outside the lock.
    pub(crate) fn begin_abort(&self, state: &mut State<S>, effects: &mut Effects) -> Reclaimed<S> {
        // No worker is called yet: it would be aborted with the others.
        state.reject_unstarted_without_worker(effects);
        if state.is_open() {
            state.phase = Phase::Aborted;
            self.aborted.store(true, Ordering::Relaxed);
        }
        let mut reclaimed = state.source.reclaim();
        state.reject(std::mem::take(&mut reclaimed.works), HadPermit::Yes);
        reclaimed
    }

    /// Aborts the workers, once. A later abort must not hit those that drop what never runs, and
    /// none returns before the workers have been aborted.
    fn abort_all_workers(&self) {
        let mut workers = self.workers.lock();
        // `Relaxed`: it is only touched under this lock.
        if !self.workers_aborted.swap(true, Ordering::Relaxed) {
            workers.abort_all();
        }
    }

    pub(crate) fn finish_abort(self: &Arc<Self>, reclaimed: Reclaimed<S>) {
        self.abort_all_workers();
        for task in reclaimed.tasks {
            task.abort();
        }
        for (tag, permit) in reclaimed.lost {
            self.complete_without_worker(tag, permit, Outcome::Aborted);
        }
        self.with_effects(State::call_searcher);
    }

    /// The watcher cannot watch. Its panic is the group's, and nothing runs on that it should have stopped.
    pub(crate) fn fail_watch(self: &Arc<Self>, payload: Payload) {
        let label = Label {
            name: Some("the group's watcher".into()),
            site: Location::caller(),
        };
        let kind = TaskErrorKind::Panicked(Panic::new(payload));
        let later =
            self.with_effects(|state, _| state.failures.add(label, Duration::ZERO, kind, false));
        panic::discard(later);
        self.abort(&WATCHER_FAILED);
    }

    /// Drops what was never polled, and counts it as ended.
    pub(crate) fn dispose(self: &Arc<Self>, rejected: Rejected<S>) {
        let Rejected { tag, work, permit } = rejected;
        let outcome = Outcome::of_drop(panic::catch(|| drop(work)));
        self.complete_without_worker(tag, permit, outcome);
    }

    /// Counts a job as ended that ran in no worker, or not at all.
    pub(crate) fn complete_without_worker(
        self: &Arc<Self>,
        tag: S::Tag,
        permit: HadPermit,
        outcome: Outcome<S>,
    ) {
        match permit {
            HadPermit::Yes => self.complete_elsewhere(tag, outcome, None),
            HadPermit::No => self.complete_unstarted(tag, outcome),
        }
    }

    /// Counts a job as ended that never had a permit.
    pub(crate) fn complete_unstarted(self: &Arc<Self>, mut tag: S::Tag, outcome: Outcome<S>) {
        let value = self.record(&mut tag, outcome);
        self.with_effects(|state, effects| state.end(tag, value, effects));
    }

    /// Counts a job as ended that does not come to the counter with its permit.
    pub(crate) fn complete_elsewhere(
        self: &Arc<Self>,
        mut tag: S::Tag,
        outcome: Outcome<S>,
        lender: Option<LenderId>,
    ) {
        let value = self.record(&mut tag, outcome);
        let completion = Completion { lender, tag, value };
        self.with_effects(|state, effects| state.complete(completion, effects));
        self.start_ready();
    }

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
    /// awaits it waits for this core.
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

    /// Asks everybody to stop.
    pub(crate) fn cancel(&self, cause: Option<Cause>) {
        match cause {
            Some(cause) => self.cancel.cancel_with(cause),
            None => self.cancel.cancel(),
        }
    }

    /// Ends the context on the core's own account.
    pub(crate) fn end_context(&self, why: &'static StaticCause) {
        self.end_context_with(Cause::from_static(why));
    }

    /// A waker that panics is not the task's doing, and must not undo the accounting.
    fn end_context_with(&self, cause: Cause) {
        if let Err(payload) = panic::catch(|| self.cancel.end_with(cause)) {
            panic::discard(payload);
        }
    }

    /// The failures, once it is over.
    pub(crate) fn take_failures(self: &Arc<Self>) -> Failures<S::Error> {
        self.with_effects(|state, _| std::mem::replace(&mut state.failures, Failures::new()))
    }
}
