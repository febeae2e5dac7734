//! Jobs that a place runs one after another on one ticket.
//!
//! A turn at the counter costs a lock, which two workers contend for. Where nobody looks at an outcome before the last, a
//! place whose job succeeds keeps the ticket, takes the next job without a turn, and hands in what it has every so often, and
//! whenever a job has to wait. It never has more than the job that it runs, so nothing stands behind one that takes its time.

use std::task;

use super::core::Core;
use super::source::{Source, Tag};
use super::state::HandIn;
use crate::sync::Arc;

/// The most jobs of a streak: the lock is then a small part of what they cost.
const MOST: usize = 32;

/// What has ended in one poll of a place and was not handed in.
pub(crate) struct Streak<S: Source> {
    /// With its ticket.
    last: Option<HandIn<S>>,
    /// Those before it, whose ticket went on to the next.
    earlier: Vec<(S::Tag, S::Value)>,
}

impl<S: Source> Streak<S> {
    pub(crate) fn new() -> Streak<S> {
        Streak {
            last: None,
            earlier: Vec::new(),
        }
    }

    pub(crate) fn end(&mut self, hand_in: HandIn<S>) {
        self.last = Some(hand_in);
    }

    /// The next job on the same ticket.
    pub(crate) fn another(
        &mut self,
        core: &Arc<Core<S>>,
        cx: &mut task::Context<'_>,
    ) -> Option<(S::Tag, S::Job)> {
        if !S::STREAKS || self.earlier.len() + 1 >= MOST {
            return None;
        }
        // A failure is handed in at once.
        self.last.as_ref()?.value.as_ref()?;
        let next = S::another(core, cx)?;
        if let Some(HandIn { tag, value, .. }) = self.last.take() {
            if self.earlier.capacity() == 0 {
                self.earlier.reserve_exact(MOST);
            }
            self.earlier.extend(value.map(|value| (tag, value)));
        }
        Some(next)
    }

    /// A job that has ended and whose end somebody awaits.
    pub(crate) fn take_observed(&mut self) -> Option<HandIn<S>> {
        self.last.take_if(|hand_in| hand_in.tag.is_observed())
    }

    pub(crate) fn take_last(&mut self) -> Option<HandIn<S>> {
        self.last.take()
    }

    /// What has ended before the last, in order.
    pub(crate) fn take_earlier(&mut self) -> impl Iterator<Item = (S::Tag, S::Value)> + use<'_, S> {
        self.earlier.drain(..)
    }

    pub(crate) fn has_earlier(&self) -> bool {
        !self.earlier.is_empty()
    }
}
