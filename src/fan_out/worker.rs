//! A fan-out's worker: a task of the `JoinSet` that pulls one item after another and runs it.
//!
//! ```text
//!                        ┌─────────────── completed, or batched ◄──┐
//!                        ▼                                         │
//!     spawned ─► next: a permit ─► pull ─► item ────► poll ─────► ready
//!      ▲  │        │        ▲       │ │                │▲
//!      │ back off  │ park   │       │ └─ the stream    ▼│
//!      └──┘        ▼        │       │    is pending   pending
//!                leave      └───────┘ in use, or no more items
//! ```
//!
//! A worker needs a permit to pull. After an item that has succeeded it keeps the permit for the
//! next item (see [`batch`](super::batch)). If the iterator is in use, or nothing can be pulled
//! now, it parks. A searching worker that would only contend with the others backs off (see
//! [`backoff`](super::backoff)).

mod pause;
mod permits;

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;

use super::backoff::Backoff;
use super::batch::Batch;
use super::items::SizeHint;
use super::parking::ParkId;
use super::pulls::{Pulled, PulledItem, Pulls, UnusedPermit};
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::current::{self, CurrentJob};
use crate::scheduler::effects::Effects;
use crate::scheduler::job::poll_job;
use crate::scheduler::permits::Yielded;
use crate::scheduler::poll_budget::PollBudget;
use crate::scheduler::source::{Completion, Outcome, Rejected, Tag};
use crate::scheduler::state::State;
use crate::sync::Arc;
use pause::Found;

pin_project! {
    pub(crate) struct Worker<S: Pulls> {
        scheduler: Arc<Scheduler<S>>,
        state: WorkerState,
        taken: Option<S::Taken>,
        // Of the item that runs. Both are `Some`, or none is.
        tag: Option<S::Tag>,
        #[pin]
        item: Option<S::Item>,
        // On the thread while this is polled.
        current: Option<CurrentJob>,
    }

    impl<S: Pulls> PinnedDrop for Worker<S> {
        // The accounting of a worker that is dropped before it has left: it was aborted, or its
        // runtime has shut down.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(tag) = this.tag.take() {
                let outcome = Outcome::of_drop(panic::catch(|| this.item.set(None)));
                let lender = this.current.as_mut().and_then(CurrentJob::renew);
                this.scheduler.complete_elsewhere(tag, outcome, lender);
                return;
            }
            // The stream may have waited for a task.
            this.current.iter_mut().for_each(CurrentJob::forget);
            if let Some(taken) = this.taken.take() {
                S::abandon(this.scheduler, taken);
                return;
            }
            match *this.state {
                // The lock on the workers may be held further up the stack, and to return a permit
                // may wake a task.
                WorkerState::HasPermit => {
                    this.scheduler.worker_lost_with_job(S::tag_of_permit(), UnusedPermit);
                }
                WorkerState::Searching(_) => this.scheduler.searcher_lost(),
                WorkerState::Parked(id) => {
                    if this.scheduler.unpark(id) {
                        this.scheduler.searcher_lost();
                    }
                }
                WorkerState::Working | WorkerState::Left => {}
            }
        }
    }
}

#[derive(Clone, Copy)]
enum WorkerState {
    /// Spawned with a permit, and not polled yet.
    HasPermit,
    /// Woken or spawned, and has not looked for a permit yet.
    Searching(Backoff),
    /// It has an item or a stream, or another worker or its own wake-up will see to the rest.
    Working,
    Parked(ParkId),
    Left,
}

/// What a worker does next.
enum Next<S: Pulls> {
    /// It has a permit; and the stream, if it has waited for that.
    Pull(Option<S::Taken>),
    /// Returns a permit that was not used.
    Dispose(Rejected<S>),
    /// Calls `on_progress`.
    Report,
    Park,
    Leave,
}

impl<S: Pulls> Worker<S> {
    /// A worker that looks for a permit.
    pub(crate) fn searching(scheduler: Arc<Scheduler<S>>) -> Worker<S> {
        let backoff = Backoff::new(S::pulled(&scheduler), scheduler.has_threads());
        Worker::new(scheduler, WorkerState::Searching(backoff))
    }

    fn new(scheduler: Arc<Scheduler<S>>, state: WorkerState) -> Worker<S> {
        Worker {
            current: Some(CurrentJob::new(scheduler.clone())),
            scheduler,
            state,
            taken: None,
            tag: None,
            item: None,
        }
    }
}

impl<S: Pulls> Future for Worker<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let mut searching = false;
        let mut has_permit = false;
        match *this.state {
            WorkerState::HasPermit => has_permit = true,
            WorkerState::Searching(backoff) => {
                if let Some(backoff) = this.scheduler.back_off(backoff, cx) {
                    *this.state = WorkerState::Searching(backoff);
                    return Poll::Pending;
                }
                searching = true;
            }
            WorkerState::Parked(id) => searching = this.scheduler.unpark(id),
            WorkerState::Working => {}
            WorkerState::Left => return Poll::Ready(()),
        }
        *this.state = WorkerState::Working;
        let _on_thread = current::enter(this.current, cx.waker());
        // A permit from before may be of no use any more: the context is done, or it is decided.
        if has_permit && !S::may_pull(this.scheduler) {
            this.scheduler.return_permit();
            has_permit = false;
        }
        let first = match this.taken.take() {
            Some(taken) => Some(Next::Pull(Some(taken))),
            None => has_permit.then_some(Next::Pull(None)),
        };
        let mut items = Items {
            scheduler: this.scheduler,
            state: this.state,
            taken: this.taken,
            budget: if has_permit || this.tag.is_some() {
                PollBudget::start_with_job()
            } else {
                PollBudget::start()
            },
            tag: this.tag,
            item: this.item.as_mut(),
            left: (0, None),
            batch: Batch::new(),
            completed: None,
            may_be_last: false,
            searching,
        };
        items.poll(first, cx)
    }
}

/// The items of a worker, one after another, in one of its polls.
struct Items<'a, S: Pulls> {
    scheduler: &'a Arc<Scheduler<S>>,
    state: &'a mut WorkerState,
    taken: &'a mut Option<S::Taken>,
    tag: &'a mut Option<S::Tag>,
    item: Pin<&'a mut Option<S::Item>>,
    /// How many items are left after the one that was pulled last.
    left: SizeHint,
    budget: PollBudget,
    batch: Batch<S>,
    /// The last item that has finished, with the permit of the batch.
    completed: Option<Completion<S>>,
    /// Whether the item may be the last one, and it has not been polled yet.
    may_be_last: bool,
    searching: bool,
}

impl<S: Pulls> Items<'_, S> {
    /// Runs items until one is pending, nothing is left to do, or the poll has taken its time.
    fn poll(&mut self, mut first: Option<Next<S>>, cx: &mut task::Context<'_>) -> Poll<()> {
        // Ends: each round adds a step to the budget, and an item that is pending ends it at once.
        loop {
            if self.tag.is_none() {
                let next = match first.take() {
                    Some(first) => first,
                    None if self.budget.is_used_up() => return self.yield_now(cx),
                    None => self.next(),
                };
                self.budget.add_step();
                ready!(self.begin(next, cx));
                if let WorkerState::Left = self.state {
                    return Poll::Ready(());
                }
            } else {
                self.budget.add_step();
            }
            if self.tag.is_some() {
                ready!(self.poll_item(cx));
            }
        }
    }

    /// Completes what has finished, and decides what to do next.
    fn next(&mut self) -> Next<S> {
        let searching = std::mem::take(&mut self.searching);
        self.cancel_look();
        let next = self
            .scheduler
            .next(searching, &mut self.batch, self.completed.take());
        // What a destructor or a report may have awaited is no wait of the next item.
        current::forget();
        next
    }

    /// The item that may be the last one has finished, so no look for the end is needed: the pull
    /// that comes sees it.
    fn cancel_look(&mut self) {
        if std::mem::take(&mut self.may_be_last) {
            self.scheduler
                .with_state(|state| state.source.cancel_look());
        }
    }

    /// Does what is next. It is pending if the worker waits or parks; otherwise there is an item
    /// now, or the worker has left, or it is to look again.
    fn begin(&mut self, next: Next<S>, cx: &mut task::Context<'_>) -> Poll<()> {
        match next {
            Next::Pull(taken) => {
                let (slot, left) = (self.item.as_mut(), &mut self.left);
                match S::pull(self.scheduler, taken, slot, left, cx) {
                    Pulled::Item(item) => self.start(item),
                    Pulled::Nothing => {}
                    Pulled::Pending(taken) => {
                        *self.taken = Some(taken);
                        return Poll::Pending;
                    }
                    Pulled::InUse => return self.park(Found::InUse, cx),
                }
            }
            Next::Dispose(rejected) => S::dispose(self.scheduler, rejected),
            Next::Report => S::report(self.scheduler),
            Next::Park => return self.park(Found::Nothing, cx),
            Next::Leave => {
                self.scheduler.reap();
                *self.state = WorkerState::Left;
            }
        }
        Poll::Ready(())
    }

    fn start(&mut self, item: PulledItem<S>) {
        let mut tag = item.tag;
        tag.started();
        *self.tag = Some(tag);
        self.may_be_last = item.may_be_last;
    }

    /// Parks; ready if that is of no use any more.
    fn park(&mut self, found: Found, cx: &mut task::Context<'_>) -> Poll<()> {
        match self.scheduler.park(found, cx) {
            Some(id) => {
                *self.state = WorkerState::Parked(id);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// Polls the item. When it has finished, pulls the next one of the batch or ends the batch.
    fn poll_item(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let span = self.tag.as_ref().and_then(S::Tag::span);
        let Poll::Ready(ended) = poll_job(&mut self.item, span, cx) else {
            self.scheduler.complete_batch(&mut self.batch);
            if std::mem::take(&mut self.may_be_last) {
                S::look_for_end(self.scheduler, cx);
            }
            return Poll::Pending;
        };
        let outcome = Outcome::of_poll(ended.map(S::output));
        let Some(mut tag) = self.tag.take() else {
            return Poll::Ready(());
        };
        let value = self.scheduler.record(&mut tag, outcome);
        let lender = current::renew();
        // A failure is completed at once, and so is an item whose permit may have been lent.
        let may_batch = S::BATCHES && value.is_some() && lender.is_none() && self.batch.has_room();
        if may_batch && !self.budget.is_used_up() {
            let (slot, left) = (self.item.as_mut(), &mut self.left);
            if let Some(item) = S::pull_on(self.scheduler, slot, left, cx) {
                if self.may_be_last {
                    // The one before was not the last: others may pull what is left.
                    S::found_more(self.scheduler, self.left);
                }
                self.start(item);
                self.batch.add(tag, value);
                return Poll::Ready(());
            }
        }
        self.completed = Some(Completion { lender, tag, value });
        Poll::Ready(())
    }

    /// The poll has taken its time: other tasks of the runtime are polled before the next item.
    fn yield_now(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        self.cancel_look();
        self.scheduler.complete_batch(&mut self.batch);
        *self.state = match self.scheduler.yield_worker(self.completed.take()) {
            Yielded::AsSearcher => {
                let (pulled, has_threads) =
                    (S::pulled(self.scheduler), self.scheduler.has_threads());
                WorkerState::Searching(Backoff::new(pulled, has_threads))
            }
            Yielded::AsWorker => WorkerState::Working,
            Yielded::Leaves => {
                *self.state = WorkerState::Left;
                return Poll::Ready(());
            }
        };
        self.scheduler.wake_behind_others(cx);
        Poll::Pending
    }
}

impl<S: Pulls> Scheduler<S> {
    /// Completes what a worker has run, and decides what it does next.
    fn next(
        self: &Arc<Self>,
        searching: bool,
        batch: &mut Batch<S>,
        completed: Option<Completion<S>>,
    ) -> Next<S> {
        let ended = self.ctx().is_done();
        self.with_effects(|state, effects| {
            if searching {
                state.permits.search_done();
            }
            state.complete_batch(batch, effects);
            if let Some(completed) = completed {
                state.complete(completed, effects);
            }
            state.next(ended, effects)
        })
    }
}

impl<S: Pulls> State<S> {
    fn next(&mut self, ended: bool, effects: &mut Effects) -> Next<S> {
        let ended = ended || self.ended_by_failure;
        if let Some(rejected) = self.next_rejected_for_worker(ended, effects) {
            return Next::Dispose(rejected);
        }
        if self.source.has_report() {
            // The report is user code. Another worker pulls meanwhile.
            if self.is_open() && self.source.has_job(&self.permits) {
                self.call_searcher(effects);
            }
            return Next::Report;
        }
        if !self.is_open() {
            return Next::Leave;
        }
        self.start(ended, effects);
        let has_permit = !ended && self.take_permit();
        self.call_searcher_for_rest(effects);
        if has_permit {
            Next::Pull(None)
        } else if !ended && self.can_park() {
            Next::Park
        } else {
            Next::Leave
        }
    }
}
