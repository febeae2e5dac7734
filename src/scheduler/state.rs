//! The state that a scheduler's lock guards.

use std::collections::VecDeque;
use std::task::Waker;
use std::thread::ThreadId;

use super::calls::Calls;
use super::effects::Effects;
use super::extras::Extras;
use super::failures::Failures;
use super::permits::Permits;
use super::shutdown::Shutdown;
use super::source::{Completion, HadPermit, Rejected, Source, Tag};
use crate::context::StaticCause;

static ALL_FINISHED: StaticCause = StaticCause("all tasks have finished");

/// The phase of a scheduler (invariant 2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// A join has seen that everything is complete.
    Closed,
    Aborted,
}

/// Permits, jobs, failures and lifecycle of a scheduler.
pub(crate) struct State<S: Source> {
    pub(crate) permits: Permits,
    pub(crate) source: S,
    pub(crate) failures: Failures<S::Error>,
    pub(crate) calls: Calls<S::Error>,
    pub(crate) phase: Phase,
    /// The number of jobs that were accepted and have not been completed.
    pub(crate) open: usize,
    /// How many of them have failed, which is recorded already.
    pub(super) failed: usize,
    /// How many of them are background tasks.
    pub(crate) background: usize,
    /// Whether the context was cancelled because only background tasks were left.
    pub(crate) all_finished: bool,
    /// Work that never runs, until a worker drops it.
    pub(crate) rejected: VecDeque<Rejected<S>>,
    /// The waker of the task that joins.
    pub(crate) waiter: Option<Waker>,
    /// Whether a join has begun. It ends with the scheduler.
    pub(super) is_joined: bool,
    /// Whether a join has seen that everything is complete, before or after an abort.
    pub(super) is_concluded: bool,
    pub(super) extras: Option<Box<Extras<S::Error>>>,
    pub(crate) shutdown: Shutdown,
    /// Whether a failure has cancelled the context. It is set before the permit of the failed job
    /// is free, so that a thread that read the context before the failure starts no job with that
    /// permit.
    pub(crate) ended_by_failure: bool,
    /// Whether new jobs are refused although the phase is `Open`: a failure has cancelled the
    /// context, or the group was closed.
    pub(crate) is_shut: bool,
    /// Whether the runtime has shut down, so that no worker can be called.
    pub(crate) runtime_lost: bool,
}

impl<S: Source> State<S> {
    pub(crate) fn new(source: S, limit: usize, has_deadline: bool) -> State<S> {
        State {
            permits: Permits::new(limit, S::LENDS),
            source,
            failures: Failures::new(),
            calls: Calls::new(),
            phase: Phase::Open,
            open: 0,
            failed: 0,
            background: 0,
            all_finished: false,
            rejected: VecDeque::new(),
            waiter: None,
            is_joined: false,
            is_concluded: false,
            extras: None,
            shutdown: Shutdown::new(has_deadline),
            ended_by_failure: false,
            is_shut: false,
            runtime_lost: false,
        }
    }

    /// Returns whether a job was accepted and has not been completed.
    pub(crate) fn has_open(&self) -> bool {
        self.open > 0
    }

    /// Returns whether every job is complete, none will come, and all of that has been reported.
    pub(crate) fn is_complete(&self) -> bool {
        self.open == 0 && !self.source.has_uncounted() && !self.source.is_reporting()
    }

    /// Returns whether a join has seen that everything is complete. Then it does not wait for what
    /// comes later, such as a clean-up task.
    pub(crate) fn is_concluded(&self) -> bool {
        self.is_concluded
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Returns whether a join has seen that everything is complete.
    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Counts jobs as accepted.
    pub(crate) fn count_in(&mut self, jobs: usize) {
        self.open += jobs;
    }

    /// Cancels the context if only background tasks are left and a call waits for all jobs. A call
    /// that waits until the scheduler is idle waits for reserved permits, too, and a join does not.
    pub(crate) fn end_background(&mut self, effects: &mut Effects) {
        let has_only_background = self.background > 0 && self.open == self.background;
        if !has_only_background || self.all_finished || !self.is_waited_for() {
            return;
        }
        if self.is_joined || !self.source.has_reservations(&self.permits) {
            self.all_finished = true;
            // No task starts between this section and the end of the context.
            self.ended_by_failure = true;
            self.is_shut = true;
            effects.enough = Some(&ALL_FINISHED);
        }
    }

    /// Makes sure that a worker looks for a job if there is work, whatever the caller does next.
    pub(crate) fn call_searcher(&mut self, effects: &mut Effects) {
        self.call_searcher_for(usize::MAX, effects);
    }

    /// Makes sure that another worker looks for a job if there is work. The caller is a worker that
    /// runs a job next. If only one job is left, no searcher is pushed out of a LIFO slot for it.
    pub(crate) fn call_searcher_for_rest(&mut self, effects: &mut Effects) {
        self.call_searcher_for(self.ready(), effects);
    }

    fn call_searcher_for(&mut self, ready: usize, effects: &mut Effects) {
        if self.has_work() && !self.runtime_lost && self.permits.send_searcher(ready) {
            self.send_searcher(effects);
            effects.flush = true;
        }
    }

    /// Returns how many jobs wait for a worker, or any number above one if it is not known exactly.
    fn ready(&self) -> usize {
        if self.rejected.is_empty() {
            self.source.ready()
        } else {
            usize::MAX
        }
    }

    /// Makes sure that a worker looks for a task that was just started. A single task may wait
    /// until the task that started it yields, as it may with `tokio::spawn`. `slot` returns the
    /// caller's thread if that has a LIFO slot.
    pub(crate) fn call_searcher_for_start(
        &mut self,
        slot: impl FnOnce() -> Option<ThreadId>,
        effects: &mut Effects,
    ) {
        let ready = self.ready();
        if !self.has_work() || self.runtime_lost || !self.permits.may_need_searcher(ready) {
            return;
        }
        let sends = match slot() {
            Some(thread) => self.permits.send_searcher_in_slot(thread, ready),
            None => self.permits.send_searcher(usize::MAX),
        };
        if sends {
            self.send_searcher(effects);
        }
    }

    /// Wakes a parked worker, or has one spawned.
    fn send_searcher(&mut self, effects: &mut Effects) {
        match self.source.unpark_one() {
            Some(waker) => effects.wake.push(waker),
            None => effects.spawn = true,
        }
    }

    /// Returns whether a worker that looks now finds something to do.
    pub(crate) fn has_work(&self) -> bool {
        let starts = self.is_open() && self.source.has_job(&self.permits);
        starts || !self.rejected.is_empty() || self.source.has_report()
    }

    /// Rejects all work that has not started, and calls a worker that drops it.
    pub(crate) fn reject_unstarted(&mut self, effects: &mut Effects) {
        self.reject_unstarted_without_worker(effects);
        self.call_searcher(effects);
    }

    /// Rejects all work that has not started. The caller sees to it that a worker drops it.
    pub(crate) fn reject_unstarted_without_worker(&mut self, effects: &mut Effects) {
        let unstarted = self.source.take_unstarted(&mut self.permits, effects);
        self.reject(unstarted, HadPermit::No);
        self.permits.grant(&mut effects.wake);
        self.relieve_watcher(effects);
        self.wake_waiter(effects);
    }

    /// Rejects all work that has not started if the context is done.
    pub(crate) fn reject_if_ended(&mut self, ended: bool, effects: &mut Effects) {
        let ended = ended || self.ended_by_failure;
        if ended && self.is_open() && self.source.has_unstarted() {
            self.reject_unstarted(effects);
        }
    }

    /// Returns whether there is work that never runs and that no worker has taken.
    pub(crate) fn has_rejected(&self) -> bool {
        !self.rejected.is_empty()
    }

    /// Keeps work that never runs until a worker drops it.
    pub(crate) fn reject(&mut self, works: Vec<(S::Tag, S::Work)>, permit: HadPermit) {
        let rejected = works
            .into_iter()
            .map(|(tag, work)| Rejected { tag, work, permit });
        self.rejected.extend(rejected);
    }

    /// Takes the next piece of work that never runs. An empty list frees its memory.
    #[inline]
    pub(crate) fn next_rejected(&mut self) -> Option<Rejected<S>> {
        // The rest is not compiled into the way of work that runs.
        if self.rejected.is_empty() {
            return None;
        }
        self.pop_rejected()
    }

    #[cold]
    fn pop_rejected(&mut self) -> Option<Rejected<S>> {
        let rejected = self.rejected.pop_front()?;
        if self.rejected.is_empty() {
            self.rejected = VecDeque::new();
        }
        Some(rejected)
    }

    /// Takes the next piece of work that never runs, for a worker that drops it. Calls another
    /// worker for the rest, because a destructor may take long.
    pub(crate) fn next_rejected_for_worker(
        &mut self,
        ended: bool,
        effects: &mut Effects,
    ) -> Option<Rejected<S>> {
        self.reject_if_ended(ended, effects);
        let rejected = self.next_rejected()?;
        self.call_searcher(effects);
        Some(rejected)
    }

    /// Gives free permits to claims, and then, unless the context is done, to jobs that can start.
    /// Makes sure that a worker looks for those.
    pub(crate) fn start_ready(&mut self, ended: bool, effects: &mut Effects) {
        self.start(ended, effects);
        self.call_searcher(effects);
    }

    /// Gives free permits to claims, and then, unless the context is done, to jobs that can start.
    pub(crate) fn start(&mut self, ended: bool, effects: &mut Effects) {
        self.permits.grant(&mut effects.wake);
        if !ended && !self.ended_by_failure {
            self.source.start(&mut self.permits, effects);
        }
        self.relieve_watcher(effects);
    }

    /// Releases a permit with which no job was started.
    pub(crate) fn return_permit(&mut self, effects: &mut Effects) {
        self.permits.release(None, &mut effects.wakers());
        self.count_out(true, effects);
    }

    /// Releases the permit of a job that has finished, and keeps its value. A claim may get the
    /// permit at once: whatever the caller does next, such as to drop work that never runs, may
    /// take long, and may be the end of its worker.
    pub(crate) fn complete(&mut self, completion: Completion<S>, effects: &mut Effects) {
        if completion.tag.takes_permit() {
            self.permits
                .release(completion.lender, &mut effects.wakers());
            self.permits.grant(&mut effects.wake);
        }
        self.end(completion.tag, completion.value, effects);
    }

    /// Keeps the value of a job and counts the job as completed. If the job has an observer, that
    /// is notified first, after the lock is released, and the job is counted then.
    pub(crate) fn end(&mut self, tag: S::Tag, value: Option<S::Value>, effects: &mut Effects) {
        let succeeded = value.is_some();
        self.background -= usize::from(tag.is_background());
        match self.source.accept(tag, value, effects) {
            Some(observer) => effects.observers.push((observer, succeeded)),
            None => self.count_out(succeeded, effects),
        }
        if self.source.has_outcome() {
            effects.wake.extend(self.waiter.take());
        }
    }

    /// Counts a job as completed.
    #[inline(always)]
    pub(crate) fn count_out(&mut self, succeeded: bool, effects: &mut Effects) {
        self.open -= 1;
        if !succeeded || self.extras.is_some() {
            self.enter_in_ledger(succeeded, effects);
        }
        self.relieve_watcher(effects);
        self.wake_waiter(effects);
    }
}
