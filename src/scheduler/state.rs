//! What a core's lock guards.

use std::collections::VecDeque;
use std::task::Waker;
use std::thread::ThreadId;

use super::batch::Batch;
use super::calls::Calls;
use super::effects::Effects;
use super::failures::Failures;
use super::lending::LenderId;
use super::permits::Permits;
use super::source::Source;
use super::watch::Watch;

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
    /// Workers that stay for what another worker is about to bring.
    pub(crate) parked: Vec<(ParkId, Waker)>,
    pub(crate) next_park: ParkId,
    pub(crate) watch: Watch,
    /// A failure has ended the context. Set before the permit of what failed is free, so that a
    /// thread that looked at the context before that starts nothing with it.
    pub(crate) ended_by_failure: bool,
    /// The runtime has shut down, so no worker can be called.
    pub(crate) runtime_lost: bool,
}

/// Names one stay of a worker at the counter.
pub(crate) type ParkId = u64;

/// The most workers that stay for what another one is about to bring; more of them leave, and are
/// spawned again when there is something to do. So what a burst has needed does not stay.
const MOST_PARKED: usize = 32;

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

/// What a worker that came to the counter does next.
pub(crate) enum Turn<S: Source> {
    Run(S::Supply),
    /// Work that never runs is dropped by a worker, not in the thread that ended the context; one
    /// piece at a time, since a destructor may take its time.
    Dispose(Rejected<S>),
    /// A report of the progress is due.
    Report,
    Park,
    Leave,
}

/// A job that has ended: its value, and the permit that it gives back.
pub(crate) struct Completion<S: Source> {
    pub(crate) lender: Option<LenderId>,
    pub(crate) tag: S::Tag,
    pub(crate) value: Option<S::Value>,
}

impl<S: Source> State<S> {
    pub(crate) fn new(source: S, limit: usize, timed: bool) -> State<S> {
        State {
            permits: Permits::new(limit, S::LENDS),
            source,
            failures: Failures::new(),
            calls: Calls::new(),
            phase: Phase::Open,
            open: 0,
            rejected: VecDeque::new(),
            waiter: None,
            parked: Vec::new(),
            next_park: 0,
            watch: Watch::new(timed),
            ended_by_failure: false,
            runtime_lost: false,
        }
    }

    /// Whether a task has been accepted and has not ended.
    pub(crate) fn has_open(&self) -> bool {
        self.open > 0
    }

    /// Whether every task has ended, none will come, and all of that has been reported.
    pub(crate) fn is_over(&self) -> bool {
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
        if self.is_over() {
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
        match self.rejected.is_empty() {
            true => self.source.ready(),
            false => usize::MAX,
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
        match self.parked.pop() {
            Some((_, waker)) => effects.wake.push(waker),
            None => effects.spawn = true,
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        let starts = self.is_open() && self.source.has_supply(&self.permits);
        starts || !self.rejected.is_empty() || self.source.has_report()
    }

    /// Decides all that is queued: it never starts. A worker drops it.
    pub(crate) fn cut(&mut self, effects: &mut Effects) {
        self.reject_unstarted(effects);
        self.call_searcher(effects);
    }

    /// Decides all that is queued. The caller has a worker called.
    pub(crate) fn reject_unstarted(&mut self, effects: &mut Effects) {
        let unstarted = self.source.cut(&mut self.permits, effects);
        self.reject(unstarted, HadPermit::No);
        self.permits.grant(&mut effects.wake);
        self.relieve_watcher(effects);
        self.dismiss_parked(effects);
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
            self.cut(effects);
        }
        let rejected = self.next_rejected()?;
        self.call_searcher(effects);
        Some(rejected)
    }

    /// Decides what a worker that has handed in what it had does next.
    pub(crate) fn next_turn(&mut self, ended: bool, effects: &mut Effects) -> Turn<S> {
        let ended = ended || self.ended_by_failure;
        if let Some(rejected) = self.next_rejected_in_turn(ended, effects) {
            return Turn::Dispose(rejected);
        }
        if self.source.has_report() {
            // The report is user code: what may start meanwhile starts elsewhere.
            if self.is_open() && self.source.has_supply(&self.permits) {
                self.call_searcher(effects);
            }
            return Turn::Report;
        }
        if !self.is_open() {
            return Turn::Leave;
        }
        self.start(ended, effects);
        let supply = self.supply(ended);
        self.call_searcher_for_rest(effects);
        match supply {
            Some(supply) => Turn::Run(supply),
            None if !ended && self.can_park() => Turn::Park,
            None => Turn::Leave,
        }
    }

    /// Whether a worker that finds nothing to do should stay, because another one will bring more.
    pub(crate) fn can_park(&self) -> bool {
        self.is_open() && self.source.is_busy() && self.parked.len() < MOST_PARKED
    }

    /// Nothing more will be had: whoever stays for it may go.
    pub(crate) fn dismiss_parked(&mut self, effects: &mut Effects) {
        effects
            .wake
            .extend(self.parked.drain(..).map(|(_, waker)| waker));
    }

    /// Permits have become free: claims first, then what may start.
    pub(crate) fn hand_out(&mut self, ended: bool, effects: &mut Effects) {
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

    /// Hands out what a worker is to run next.
    pub(crate) fn supply(&mut self, ended: bool) -> Option<S::Supply> {
        let supply = self.source.supply(&mut self.permits, ended)?;
        self.count_in(S::COUNTS_IN);
        Some(supply)
    }

    /// Takes back the permit of a supply that no job came out of.
    pub(crate) fn give_back(&mut self, effects: &mut Effects) {
        self.permits.put_back(None, &mut effects.replaced);
        self.count_out(effects);
    }

    /// Takes what has ended in a worker.
    pub(crate) fn complete_all(&mut self, batch: &mut Batch<S>, effects: &mut Effects) {
        if batch.has_earlier() {
            self.complete_earlier(batch, effects);
        }
        if let Some(last) = batch.take_last() {
            self.complete(last, effects);
        }
    }

    /// Takes what has ended before the last, whose permit went on.
    pub(crate) fn complete_earlier(&mut self, batch: &mut Batch<S>, effects: &mut Effects) {
        for (tag, value) in batch.take_earlier() {
            let observer = self.source.accept(tag, value, effects);
            debug_assert!(observer.is_none(), "no observer awaits a job of a batch");
        }
    }

    /// Takes the permit of a job that has ended, and keeps what it gave.
    pub(crate) fn complete(&mut self, completion: Completion<S>, effects: &mut Effects) {
        self.permits
            .put_back(completion.lender, &mut effects.replaced);
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
