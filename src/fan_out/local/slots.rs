//! The items in flight on the caller's task, each in a slot. Each is polled and dropped in its
//! span, and a panic of its destructor is caught.
//!
//! A slot keeps its heap memory and its waker for the next item, so that in the long run an item
//! allocates nothing. Only a waker that an item has left behind somewhere is not used again. When
//! no item is in flight, the slots of a burst are freed.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use futures_util::task::{ArcWake, waker_ref};

use super::turn::Turn;
use super::wakes::{ItemWaker, WakeQueue};
use crate::fan_out::item_tag::ItemTag;
use crate::panic::{self, Payload};
use crate::scheduler::job;
use crate::span;
use crate::sync::Arc;

/// The items in flight.
pub(super) struct Slots<F, W> {
    slots: Vec<Slot<F, W>>,
    /// The first free slot, or `NONE`.
    free: usize,
    len: usize,
    /// The slots to poll next, in the order in which their items were woken: see invariant 2 of
    /// [`wakes`](super::wakes).
    woken: VecDeque<usize>,
    queue: Arc<WakeQueue>,
}

struct Slot<F, W> {
    /// `None` while the slot is free. Boxed, because the slots move when there are more of them.
    future: Pin<Box<Option<F>>>,
    state: SlotState<W>,
    waker: Arc<ItemWaker>,
}

enum SlotState<W> {
    Used(ItemTag<W>),
    /// Holds the index of the next free slot, or `NONE`.
    Free(usize),
}

const NONE: usize = usize::MAX;

/// No more slots than this are kept while no item is in flight.
const KEPT: usize = 64;

/// An item that has returned or has panicked.
pub(super) struct Ended<T, W> {
    pub(super) tag: ItemTag<W>,
    pub(super) result: Result<T, Payload>,
}

/// What came of polling the items that were woken.
pub(super) enum Polled<T, W> {
    Ended(Ended<T, W>),
    /// The turn is used up, and some items that were woken have not been polled.
    UsedUp,
    /// All items that were woken have been polled.
    Idle,
}

impl<F, W> Slots<F, W> {
    pub(super) fn new() -> Self {
        Slots {
            slots: Vec::new(),
            free: NONE,
            len: 0,
            woken: VecDeque::new(),
            queue: WakeQueue::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts an item into a free slot, or a new one. Returns the slot, for the item's first poll.
    #[inline]
    pub(super) fn push(&mut self, tag: ItemTag<W>, future: Option<F>) -> usize {
        let at = self.free;
        self.len += 1;
        match self.slots.get_mut(at) {
            Some(slot) => {
                if let SlotState::Free(next) = slot.state {
                    self.free = next;
                }
                slot.state = SlotState::Used(tag);
                slot.future.set(future);
                at
            }
            None => {
                let at = self.slots.len();
                self.slots.push(Slot {
                    future: Box::pin(future),
                    state: SlotState::Used(tag),
                    waker: ItemWaker::new(&self.queue, at),
                });
                at
            }
        }
    }

    /// Frees all slots, none of which is used. What is left of them in the queue means nothing (see
    /// invariant 2 of [`wakes`](super::wakes)).
    #[cold]
    fn free_slots(&mut self) {
        self.slots = Vec::new();
        self.free = NONE;
        self.woken = VecDeque::new();
        self.queue.clear();
    }

    /// Wakes the item of a slot, instead of its first poll.
    pub(super) fn wake(&self, at: usize) {
        if let Some(slot) = self.slots.get(at) {
            ItemWaker::wake_by_ref(&slot.waker);
        }
    }

    /// Waits for the next wake of an item, which wakes `task`. Returns false if there was one
    /// already.
    pub(super) fn wait(&self, task: &task::Waker) -> bool {
        self.queue.wait(task)
    }

    /// Drops all items in the order in which they were pulled. Returns their tags, and the panics
    /// of their destructors.
    pub(super) fn stop(&mut self) -> Vec<(ItemTag<W>, Result<(), Payload>)> {
        if self.len == 0 {
            return Vec::new();
        }
        self.free = NONE;
        self.len = 0;
        let slots = self.slots.drain(..);
        let mut items: Vec<_> = slots
            .filter_map(|slot| match slot.state {
                SlotState::Used(tag) => Some((tag, slot.future)),
                SlotState::Free(_) => None,
            })
            .collect();
        items.sort_unstable_by_key(|(tag, _)| tag.number);
        let drop_one = |(tag, mut future): (ItemTag<W>, Pin<Box<Option<F>>>)| {
            let entered = span::enter(Some(&tag.span));
            let dropped = panic::catch(|| future.set(None));
            drop(entered);
            (tag, dropped)
        };
        items.into_iter().map(drop_one).collect()
    }
}

impl<F: Future, W> Slots<F, W> {
    /// Polls the items that were woken, until one of them ends or the turn is used up.
    #[inline]
    pub(super) fn poll_woken(&mut self, turn: &mut Turn) -> Polled<F::Output, W> {
        // The loop ends: each round takes a slot from `woken`, and each poll counts in `turn`. A
        // slot comes without a poll only from a waker that an item has left behind, and only once.
        loop {
            if self.woken.is_empty() {
                self.queue.take(&mut self.woken);
            }
            let Some(&at) = self.woken.front() else {
                return Polled::Idle;
            };
            if turn.must_yield() {
                return Polled::UsedUp;
            }
            self.woken.pop_front();
            let is_woken = |slot: &Slot<F, W>| slot.waker.take_woken();
            if !self.slots.get(at).is_some_and(is_woken) {
                continue;
            }
            if let Some(ended) = self.poll_slot(at, turn) {
                return Polled::Ended(ended);
            }
        }
    }

    /// Polls the item of a slot. Returns it if it has ended.
    #[inline]
    pub(super) fn poll_slot(&mut self, at: usize, turn: &mut Turn) -> Option<Ended<F::Output, W>> {
        let slot = self.slots.get_mut(at)?;
        let SlotState::Used(tag) = &slot.state else {
            return None;
        };
        let entered = span::enter(Some(&tag.span));
        let waker = waker_ref(&slot.waker);
        let mut cx = task::Context::from_waker(&waker);
        let polled = job::poll_to_end(slot.future.as_mut(), &mut cx);
        drop(entered);
        turn.add_step();
        match polled {
            Poll::Pending => {
                if slot.waker.is_woken() {
                    turn.add_yield();
                }
                None
            }
            Poll::Ready(result) => {
                let state = std::mem::replace(&mut slot.state, SlotState::Free(self.free));
                self.free = at;
                self.len -= 1;
                ItemWaker::renew(&mut slot.waker);
                if self.len == 0 && self.slots.len() > KEPT {
                    self.free_slots();
                }
                match state {
                    SlotState::Used(tag) => Some(Ended { tag, result }),
                    SlotState::Free(_) => None,
                }
            }
        }
    }
}

impl<F, W> Drop for Slots<F, W> {
    /// Drops the items one after the other. Two destructors that panic in one drop would abort the
    /// process.
    fn drop(&mut self) {
        self.stop().into_iter().for_each(panic::discard);
        self.queue.forget_task();
    }
}
