//! What a scheduler's lock guards.

use std::collections::VecDeque;
use std::task::Waker;
use std::thread::ThreadId;

use super::calls::Calls;
use super::effects::Effects;
use super::failures::Failures;
use super::lending::LenderId;
use super::permits::Permits;
use super::shutdown::Shutdown;
use super::source::Source;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// A wait has seen the end.
    Closed,
    Aborted,
}

pub(crate) struct State<S: Source> {
    pub(crate) permits: Permits,
    pub(crate) source: S,
    pub(crate) failures: Failures<S::Error>,
    pub(crate) calls: Calls<S::Error>,
    pub(crate) phase: Phase,
    /// What was accepted and has not ended.
    pub(crate) open: usize,
    /// What never runs, on its way to be dropped by a worker.
    pub(crate) rejected: VecDeque<Rejected<S>>,
    /// The one who waits for the end.
    pub(crate) waiter: Option<Waker>,
    pub(crate) shutdown: Shutdown,
    /// A failure has ended the context. Set before the permit of what failed is free, so that a
    /// thread that looked at the context before that starts nothing with it.
    pub(crate) ended_by_failure: bool,
    /// The runtime has shut down, so no worker can be called.
    pub(crate) runtime_lost: bool,
}

/// Work that never runs: the context was done first, or the group was aborted.
pub(crate) struct Rejected<S: Source> {
    pub(crate) tag: S::Tag,
    pub(crate) work: S::Work,
    pub(crate) permit: HadPermit,
}

/// Whether work that never runs had been given a permit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HadPermit {
    Yes,
    No,
}

/// A job that has ended: its value, and the permit that it gives back.
pub(crate) struct Completion<S: Source> {
    pub(crate) lender: Option<LenderId>,
    pub(crate) tag: S::Tag,
    pub(crate) value: Option<S::Value>,
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
            rejected: VecDeque::new(),
            waiter: None,
            shutdown: Shutdown::new(has_deadline),
            ended_by_failure: false,
            runtime_lost: false,
        }
    }

    /// Whether a task has been accepted and has not ended.
    pub(crate) fn has_open(&self) -> bool {
        self.open > 0
    }

    /// Whether every task has ended, none will come, and all of that has been reported.
    pub(crate) fn is_complete(&self) -> bool {
        self.open == 0 && !self.source.has_unstarted() && !self.source.is_reporting()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether a wait has seen the end.
    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Counts jobs in.
    pub(crate) fn count_in(&mut self, jobs: usize) {
        self.open += jobs;
    }

    pub(crate) fn wake_waiter(&mut self, effects: &mut Effects) {
        if self.is_complete() {
            effects.wake.extend(self.waiter.take());
        }
    }

    /// Makes sure that a worker will come and look, if there is anything to be had, whatever the
    /// caller does next.
    pub(crate) fn call_searcher(&mut self, effects: &mut Effects) {
        self.call_searcher_for(usize::MAX, effects);
    }

    /// The same from a worker that goes on to run a job: a single job that is left may wait until
    /// its starter yields.
    pub(crate) fn call_searcher_for_rest(&mut self, effects: &mut Effects) {
        self.call_searcher_for(self.ready(), effects);
    }

    fn call_searcher_for(&mut self, ready: usize, effects: &mut Effects) {
        if self.has_work() && !self.runtime_lost && self.permits.send_searcher(ready) {
            self.send_searcher(effects);
            effects.flush = true;
        }
    }

    /// How many jobs wait for a worker, as far as it matters for searchers: at least two if there may
    /// be more than one.
    fn ready(&self) -> usize {
        if self.rejected.is_empty() {
            self.source.ready()
        } else {
            usize::MAX
        }
    }

    /// Makes sure that a worker will come for a task that was just started: one that is alone may
    /// wait until its starter yields, as one of `tokio::spawn` may. `slot` is the caller's thread,
    /// if it has a LIFO slot.
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

    fn send_searcher(&mut self, effects: &mut Effects) {
        match self.source.unpark_one() {
            Some(waker) => effects.wake.push(waker),
            None => effects.spawn = true,
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        let starts = self.is_open() && self.source.has_job(&self.permits);
        starts || !self.rejected.is_empty() || self.source.has_report()
    }

    /// Decides all that is queued: it never starts. A worker drops it.
    pub(crate) fn reject_unstarted(&mut self, effects: &mut Effects) {
        self.reject_unstarted_without_worker(effects);
        self.call_searcher(effects);
    }

    /// Decides all that is queued. The caller has a worker called.
    pub(crate) fn reject_unstarted_without_worker(&mut self, effects: &mut Effects) {
        let unstarted = self.source.take_unstarted(&mut self.permits, effects);
        self.reject(unstarted, HadPermit::No);
        self.permits.grant(&mut effects.wake);
        self.relieve_watcher(effects);
        self.wake_waiter(effects);
    }

    /// Keeps what never runs until a worker drops it.
    pub(crate) fn reject(&mut self, works: Vec<(S::Tag, S::Work)>, permit: HadPermit) {
        let rejected = works
            .into_iter()
            .map(|(tag, work)| Rejected { tag, work, permit });
        self.rejected.extend(rejected);
    }

    /// Takes the next piece of work that never runs. An empty list gives back its memory.
    pub(crate) fn next_rejected(&mut self) -> Option<Rejected<S>> {
        let rejected = self.rejected.pop_front();
        if self.rejected.is_empty() {
            self.rejected = VecDeque::new();
        }
        rejected
    }

    /// Takes the next piece of work that never runs, for a worker to drop. Another worker is called
    /// for what is left, since a destructor may take its time.
    pub(crate) fn next_rejected_in_turn(
        &mut self,
        ended: bool,
        effects: &mut Effects,
    ) -> Option<Rejected<S>> {
        let ended = ended || self.ended_by_failure;
        if ended && self.is_open() && self.source.has_unstarted() {
            self.reject_unstarted(effects);
        }
        let rejected = self.next_rejected()?;
        self.call_searcher(effects);
        Some(rejected)
    }

    /// Permits have become free: claims first, then what may start.
    pub(crate) fn start_ready(&mut self, ended: bool, effects: &mut Effects) {
        self.start(ended, effects);
        self.call_searcher(effects);
    }

    pub(crate) fn start(&mut self, ended: bool, effects: &mut Effects) {
        self.permits.grant(&mut effects.wake);
        if !ended && !self.ended_by_failure {
            self.source.start(&mut self.permits, effects);
        }
        self.relieve_watcher(effects);
    }

    /// Takes back the permit of a supply that no job came out of.
    pub(crate) fn return_permit(&mut self, effects: &mut Effects) {
        self.permits.release(None, &mut effects.stale_wakers);
        self.count_out(effects);
    }

    /// Takes the permit of a job that has ended, and keeps what it gave.
    pub(crate) fn complete(&mut self, completion: Completion<S>, effects: &mut Effects) {
        self.permits
            .release(completion.lender, &mut effects.stale_wakers);
        self.end(completion.tag, completion.value, effects);
    }

    /// Counts a job as ended; or, if somebody is to be told first, has that done after the section.
    pub(crate) fn end(&mut self, tag: S::Tag, value: Option<S::Value>, effects: &mut Effects) {
        let succeeded = value.is_some();
        match self.source.accept(tag, value, effects) {
            Some(observer) => effects.observers.push((observer, succeeded)),
            None => self.count_out(effects),
        }
        if self.source.has_outcome() {
            effects.wake.extend(self.waiter.take());
        }
    }

    pub(crate) fn count_out(&mut self, effects: &mut Effects) {
        self.open -= 1;
        self.relieve_watcher(effects);
        self.wake_waiter(effects);
    }
}
