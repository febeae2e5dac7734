//! The items in flight of a run on the caller's task, in slots that suit the size of their futures.
//!
//! A big future is boxed as soon as it is made. Otherwise each call on its way into its slot would
//! copy it, which needs a multiple of its size on the stack.

use std::future::Future;
use std::pin::Pin;
use std::task::Waker;

use super::slots::{Ended, Polled, Slots};
use super::turn::Turn;
use crate::fan_out::item_tag::ItemTag;
use crate::panic::Payload;
use crate::scheduler::job;

pub(super) enum InFlight<Fut, W> {
    Small(Slots<Fut, W>),
    Big(Slots<Pin<Box<Fut>>, W>),
}

/// Calls a method of the slots, whichever they are.
macro_rules! each {
    ($in_flight:expr, $slots:ident => $call:expr) => {
        match $in_flight {
            InFlight::Small($slots) => $call,
            InFlight::Big($slots) => $call,
        }
    };
}

impl<Fut, W> InFlight<Fut, W> {
    pub(super) fn new() -> Self {
        if const { job::is_big::<Fut>() } {
            InFlight::Big(Slots::new())
        } else {
            InFlight::Small(Slots::new())
        }
    }

    /// Puts an item into a slot. Returns the slot, for the first poll of the item.
    #[inline]
    pub(super) fn push_small(&mut self, tag: ItemTag<W>, future: Option<Fut>) -> usize {
        match self {
            InFlight::Small(slots) => slots.push(tag, future),
            InFlight::Big(_) => unreachable!("a big future is boxed"),
        }
    }

    /// Puts an item with a big future into a slot. Returns the slot.
    pub(super) fn push_big(&mut self, tag: ItemTag<W>, future: Option<Pin<Box<Fut>>>) -> usize {
        match self {
            InFlight::Small(_) => unreachable!("a small future is not boxed"),
            InFlight::Big(slots) => slots.push(tag, future),
        }
    }

    /// Wakes the item of a slot, instead of its first poll.
    pub(super) fn wake(&self, at: usize) {
        each!(self, slots => slots.wake(at));
    }

    pub(super) fn len(&self) -> usize {
        each!(self, slots => slots.len())
    }

    /// Waits for the next wake of an item, which wakes `task`. Returns false if there was one
    /// already.
    pub(super) fn wait(&self, task: &Waker) -> bool {
        each!(self, slots => slots.wait(task))
    }

    /// Drops all items in the order in which they were pulled. Returns their tags, and the panics
    /// of their destructors.
    pub(super) fn stop(&mut self) -> Vec<(ItemTag<W>, Result<(), Payload>)> {
        each!(self, slots => slots.stop())
    }
}

impl<Fut: Future, W> InFlight<Fut, W> {
    /// Polls the item of a slot. Returns it if it has ended.
    #[inline]
    pub(super) fn poll_slot(
        &mut self,
        at: usize,
        turn: &mut Turn,
    ) -> Option<Ended<Fut::Output, W>> {
        each!(self, slots => slots.poll_slot(at, turn))
    }

    /// Polls the items that were woken, until one of them ends or the turn is used up.
    #[inline]
    pub(super) fn poll_woken(&mut self, turn: &mut Turn) -> Polled<Fut::Output, W> {
        each!(self, slots => slots.poll_woken(turn))
    }
}
