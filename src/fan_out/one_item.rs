//! A worker of a small fan-out: it pulls one item, runs it, and leaves.
//!
//! A fan-out of few items spawns such a worker for each of them, with a permit. It is a tokio task
//! that nothing joins: a wait needs no more than that its permit or its item has been completed,
//! and an abort reaches it through the scheduler. It reports its item in the critical section in
//! which the item begins to wait or is completed, so an item costs one section, or two.
//!
//! The worker of the item after which there are no more, by the iterator's own count, looks for the
//! end after the first poll of that item. So the end needs no further worker. What such a worker
//! cannot do, others do, which are searching workers of the general kind (see
//! [`worker`](super::worker)): they pull what an iterator has beyond its count, and what could not
//! be pulled because the iterator was in use.
//!
//! # Invariants
//!
//! 1. A worker touches the iterator only while its permit or its item is counted as open. So when
//!    everything is complete, no worker uses the iterator, and it can be dropped before the call
//!    returns. After its last critical section a worker runs no user code.
//! 2. A worker whose item is pending has its waker in
//!    [`WorkerWakers`](crate::scheduler::worker_wakers), or it has seen that the scheduler was
//!    aborted. The waker is entered under the lock under which an abort takes the wakers, and none
//!    is entered after that. So an abort wakes every worker whose item is pending, and that worker
//!    drops its item in its next poll.
//! 3. A pull counts in `pulling` until the worker has reported its item. So while workers are on
//!    their way to the items that are left, no other worker is called for these.
//! 4. A worker that finds the iterator in use follows invariant 2 of the
//!    [shared iterator](super::shared_iter), but leaves where another one would park.
//! 5. A worker that is dropped by its runtime before its first poll has no runtime any more: an
//!    abort drops none. No lock is held then, since the worker is spawned without one.
//! 6. The last worker and its replacement have one permit (see [`starts`](super::starts)). The one
//!    that is first polled, or dropped, claims it. The other one touches nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker};

use pin_project_lite::pin_project;

use super::item_slot::{self, Boxed, Inline, ItemSlot};
use super::items::SizeHint;
use super::pulls::{PulledItem, Pulls};
use super::starts::Place;
use crate::panic::{self, Payload};
use crate::scheduler::Scheduler;
use crate::scheduler::current::{self, CurrentJob};
use crate::scheduler::job::poll_job;
use crate::scheduler::source::{Completion, JobOutput, Outcome, Tag};
use crate::scheduler::state::State;
use crate::scheduler::worker_wakers::WakerKey;
use crate::sync::{Arc, Handle};

pin_project! {
    struct OneItemWorker<S: Pulls, I: ItemSlot<S::Item>> {
        scheduler: Arc<Scheduler<S>>,
        stage: Stage,
        // Of the item. Both are `Some` while the item runs, and `None` before and after that.
        tag: Option<S::Tag>,
        #[pin]
        item: I,
        // What is on the thread while the worker is polled.
        current: Option<CurrentJob>,
    }

    impl<S: Pulls, I: ItemSlot<S::Item>> PinnedDrop for OneItemWorker<S, I> {
        // Its runtime has shut down, unless it has left.
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            match *this.stage {
                Stage::HasPermit(place) => {
                    if this.scheduler.note_start(place) {
                        this.scheduler.runtime_lost();
                        this.scheduler.return_permit();
                    }
                }
                Stage::Pending(key) => {
                    let current = this.current.take();
                    let item = this.item.get();
                    drop_item(this.scheduler, Counted::Yes(key), this.tag, item, current);
                }
                Stage::Left => {}
            }
        }
    }
}

/// How far a worker has come.
#[derive(Clone, Copy)]
enum Stage {
    /// Spawned with a permit, and not polled yet.
    HasPermit(Place),
    /// Its item is pending, and its waker is where an abort finds it.
    Pending(WakerKey),
    /// It has left, or its item is in its first poll.
    Left,
}

/// Whether the item has been counted as started.
#[derive(Clone, Copy)]
enum Counted {
    /// Not yet. The number that is left after the item.
    No(SizeHint),
    /// Yes, and the waker of its worker is where an abort finds it.
    Yes(WakerKey),
}

/// The result of a poll.
enum Polled {
    Pending(WakerKey),
    /// The item is not polled any more: it is to be dropped.
    Stopped(Counted),
    Left,
}

impl<S: Pulls, I: ItemSlot<S::Item>> Future for OneItemWorker<S, I> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = self.project();
        let scheduler = &*this.scheduler;
        let stage = std::mem::replace(this.stage, Stage::Left);
        if let Stage::HasPermit(place) = stage {
            if !scheduler.note_start(place) {
                return Poll::Ready(());
            }
        }
        let mut item = this.item.get();
        let polled = {
            let _on_thread = current::enter(this.current, cx.waker());
            match stage {
                Stage::HasPermit(_) => pull_and_poll(scheduler, this.tag, item.as_mut(), cx),
                Stage::Pending(key) => poll_again(scheduler, key, this.tag, item.as_mut(), cx),
                Stage::Left => Polled::Left,
            }
        };
        match polled {
            Polled::Pending(key) => {
                *this.stage = Stage::Pending(key);
                return Poll::Pending;
            }
            Polled::Stopped(counted) => {
                drop_item(scheduler, counted, this.tag, item, this.current.take());
            }
            Polled::Left => {}
        }
        Poll::Ready(())
    }
}

/// Pulls the item and polls it for the first time.
fn pull_and_poll<S: Pulls>(
    scheduler: &Arc<Scheduler<S>>,
    tag: &mut Option<S::Tag>,
    mut item: Pin<&mut Option<S::Item>>,
    cx: &mut task::Context<'_>,
) -> Polled {
    let mut left = (0, None);
    let Some(pulled) = S::pull_one(scheduler, item.as_mut(), &mut left, cx) else {
        // What a destructor may have awaited is no wait of a job.
        current::forget();
        return Polled::Left;
    };
    let PulledItem {
        tag: mut started,
        may_be_last,
    } = pulled;
    started.started();
    let started = tag.insert(started);
    let counted = Counted::No(left);
    // The function that has made the future may have ended the context.
    if is_stopped(scheduler) {
        return Polled::Stopped(counted);
    }
    if let Poll::Ready(ended) = poll_job(&mut item, started.span(), cx) {
        complete(
            scheduler,
            counted,
            tag,
            ended.map(S::output),
            may_be_last,
            cx,
        );
        return Polled::Left;
    }
    let end = look_for_end(scheduler, may_be_last, cx);
    match begin_to_wait(scheduler, started, left, end, cx.waker()) {
        Some(key) => Polled::Pending(key),
        None => Polled::Stopped(counted),
    }
}

/// Polls the item of a worker whose waker is where an abort finds it. tokio polls a task with the
/// same waker each time.
fn poll_again<S: Pulls>(
    scheduler: &Arc<Scheduler<S>>,
    key: WakerKey,
    tag: &mut Option<S::Tag>,
    mut item: Pin<&mut Option<S::Item>>,
    cx: &mut task::Context<'_>,
) -> Polled {
    let counted = Counted::Yes(key);
    if scheduler.is_aborted() {
        return Polled::Stopped(counted);
    }
    let span = tag.as_ref().and_then(S::Tag::span);
    if let Poll::Ready(ended) = poll_job(&mut item, span, cx) {
        complete(scheduler, counted, tag, ended.map(S::output), false, cx);
        return Polled::Left;
    }
    // An abort that came during the poll has woken the worker before it was pending.
    if scheduler.is_aborted() {
        return Polled::Stopped(counted);
    }
    Polled::Pending(key)
}

/// Returns whether no further item starts. It reads no clock: the pull has read it, and the timer
/// of a deadline tells when that has passed.
fn is_stopped<S: Pulls>(scheduler: &Scheduler<S>) -> bool {
    scheduler.is_aborted() || scheduler.ctx().has_ended()
}

/// Looks for the end of the iterator, after an item that may be the last one. Returns how many
/// items there were if it has been reached.
fn look_for_end<S: Pulls>(
    scheduler: &Arc<Scheduler<S>>,
    may_be_last: bool,
    cx: &mut task::Context<'_>,
) -> Option<usize> {
    if !may_be_last || is_stopped(scheduler) {
        return None;
    }
    S::find_end(scheduler, cx)
}

/// Reports an item that begins to wait, and puts the waker of its worker where an abort finds it
/// (invariant 2). Returns `None` if the scheduler was aborted. Then nothing is reported.
fn begin_to_wait<S: Pulls>(
    scheduler: &Arc<Scheduler<S>>,
    tag: &S::Tag,
    left: SizeHint,
    end: Option<usize>,
    waker: &Waker,
) -> Option<WakerKey> {
    let mut waker = Some(waker.clone());
    let (key, others_are_needed) = scheduler.with_state(|state| {
        let has_parked = state.source.reached_end(end);
        let key = waker.take_if(|_| state.is_open()).map(|waker| {
            state.source.report_start(tag, left);
            state.source.worker_wakers().insert(waker)
        });
        (key, has_parked || state.has_work())
    });
    if others_are_needed {
        scheduler.with_effects(|state, effects| {
            state.source.wake_if_ended(effects);
            state.call_searcher(effects);
        });
    }
    key
}

/// Completes an item that has ended in a poll. Other workers pull what can be pulled now.
fn complete<S: Pulls>(
    scheduler: &Arc<Scheduler<S>>,
    counted: Counted,
    tag: &mut Option<S::Tag>,
    ended: Result<JobOutput<S>, Payload>,
    may_be_last: bool,
    cx: &mut task::Context<'_>,
) {
    let Some(mut tag) = tag.take() else { return };
    let value = scheduler.record(&mut tag, Outcome::of_poll(ended));
    let lender = current::renew();
    let end = look_for_end(scheduler, may_be_last, cx);
    // What the iterator may have awaited is no wait of a job.
    current::forget();
    // Without the clock, which the next pull reads.
    let ended = scheduler.ctx().has_ended();
    let waker = scheduler.with_effects(|state, effects| {
        let waker = counted.end(&tag, state);
        if state.source.reached_end(end) {
            state.source.wake_if_ended(effects);
        }
        let completion = Completion { lender, tag, value };
        state.complete(completion, effects);
        state.reject_if_ended(ended, effects);
        state.start_ready(ended, effects);
        waker
    });
    drop(waker);
}

/// Drops an item that has not ended, and completes it.
#[cold]
fn drop_item<S: Pulls>(
    scheduler: &Arc<Scheduler<S>>,
    counted: Counted,
    tag: &mut Option<S::Tag>,
    mut item: Pin<&mut Option<S::Item>>,
    mut current: Option<CurrentJob>,
) {
    let outcome = Outcome::of_drop(panic::catch(|| item.set(None)));
    // What the destructor has polled is no wait of the item any more.
    let lender = current.as_mut().and_then(CurrentJob::renew);
    if let Some(tag) = tag.take() {
        let waker = scheduler.with_state(|state| counted.end(&tag, state));
        drop(waker);
        scheduler.complete_elsewhere(tag, outcome, lender);
    }
}

impl Counted {
    /// Counts the item that is about to be completed as started, if that has not been done. Returns
    /// the waker of its worker, unless an abort has taken it.
    fn end<S: Pulls>(self, tag: &S::Tag, state: &mut State<S>) -> Option<Waker> {
        match self {
            Counted::No(left) => {
                state.source.report_start(tag, left);
                None
            }
            Counted::Yes(key) => state.source.worker_wakers().remove(key),
        }
    }
}

impl<S: Pulls> Scheduler<S> {
    /// Spawns a worker for each item, if the iterator says that there are at most `most`, and as
    /// far as there are permits. Returns whether it has spawned one.
    pub(super) fn spawn_one_item_workers(self: &Arc<Self>, most: usize) -> bool {
        let Some(runtime) = self.runtime() else {
            return false;
        };
        let count = self.take_first_permits(most);
        let Some(others) = count.checked_sub(1) else {
            return false;
        };
        // A single worker has no other one that could replace it, and is pushed out of the slot.
        let last = if others > 0 && self.slot().is_some() {
            S::starts(&self.shared).expect(others);
            Place::Last
        } else {
            Place::Other
        };
        for _ in 0..others {
            self.spawn_one_item_worker(runtime, Place::Other);
        }
        self.spawn_one_item_worker(runtime, last);
        if others == 0 {
            self.flush_lifo_slot();
        }
        true
    }

    /// Spawns a worker. A runtime that has shut down drops it here.
    fn spawn_one_item_worker(self: &Arc<Self>, runtime: &Handle, place: Place) {
        if const { item_slot::is_boxed::<S::Item>() } {
            self.spawn_with_slot::<Boxed<S::Item>>(runtime, place);
        } else {
            self.spawn_with_slot::<Inline<S::Item>>(runtime, place);
        }
    }

    fn spawn_with_slot<I>(self: &Arc<Self>, runtime: &Handle, place: Place)
    where
        I: ItemSlot<S::Item> + Send + 'static,
    {
        drop(runtime.spawn(OneItemWorker {
            scheduler: self.clone(),
            stage: Stage::HasPermit(place),
            tag: None,
            item: I::empty(),
            current: Some(CurrentJob::new(self.clone())),
        }));
    }

    /// Notes that a worker starts. Returns false if it has no permit (invariant 6).
    fn note_start(self: &Arc<Self>, place: Place) -> bool {
        let starts = S::starts(&self.shared);
        match place {
            Place::Last => starts.claim_last(),
            Place::Other => {
                if starts.other_starts() {
                    self.replace_last();
                }
                true
            }
        }
    }

    /// Spawns a replacement of the last worker, which may be in a LIFO slot.
    #[cold]
    fn replace_last(self: &Arc<Self>) {
        if let Some(runtime) = self.runtime() {
            self.spawn_one_item_worker(runtime, Place::Last);
            // The caller is a worker that may block its thread.
            self.flush_lifo_slot();
        }
    }
}
