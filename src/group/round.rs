//! What a place takes from the counter at once, and brings back.
//!
//! A turn at the counter costs a lock, which two workers contend for. Jobs that end as soon as they are polled would spend
//! more time there than in their own code; so a place whose jobs do takes two next time, then four, and so on. It takes one
//! again as soon as they take their time, and gives back what it has not begun when one has to wait: what a round holds up,
//! it holds up for microseconds, unless a job blocks its thread.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::core::Core;
use super::source::{Source, Tag};
use super::state::HandIn;
use crate::sync::Arc;

/// The most jobs of a round.
const MOST: usize = 32;

/// A round that takes longer is one of jobs that take their time.
const QUICK: Duration = Duration::from_micros(20);

/// One poll's dealings with the counter.
pub(crate) struct Round<S: Source> {
    /// What was taken and has not begun.
    pub(crate) jobs: VecDeque<(S::Tag, S::Job)>,
    /// What has ended and was not handed in: mostly one, and then without an allocation.
    last: Option<HandIn<S>>,
    earlier: Vec<HandIn<S>>,
    /// How many to take.
    most: usize,
    began: Option<Instant>,
}

impl<S: Source> Round<S> {
    pub(crate) fn new() -> Round<S> {
        Round {
            jobs: VecDeque::new(),
            last: None,
            earlier: Vec::new(),
            most: 1,
            began: None,
        }
    }

    /// How many jobs to take from the counter.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// What the place runs next, unless everything has been stopped.
    pub(crate) fn next(&mut self, core: &Arc<Core<S>>) -> Option<(S::Tag, S::Job)> {
        if !self.jobs.is_empty() && core.is_stopped() {
            core.break_off(std::mem::replace(self, Round::new()), true);
        }
        self.jobs.pop_front()
    }

    pub(crate) fn end(&mut self, hand_in: HandIn<S>) {
        self.earlier.extend(self.last.replace(hand_in));
    }

    /// Before a turn: takes more if the last round was quick.
    pub(crate) fn pace(&mut self) {
        if S::IN_ROUNDS {
            let now = Instant::now();
            let last = self.began.replace(now);
            self.most = match last {
                Some(began) if now - began < QUICK => (2 * self.most).min(MOST),
                _ => 1,
            };
        }
    }

    /// Whether there is nothing to bring back.
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.last.is_none()
    }

    /// A job that has ended and whose end somebody awaits.
    pub(crate) fn take_observed(&mut self) -> Option<HandIn<S>> {
        self.last.take_if(|hand_in| hand_in.tag.is_observed())
    }

    /// What has ended, in order.
    pub(crate) fn take_ended(&mut self) -> impl Iterator<Item = HandIn<S>> + use<'_, S> {
        self.earlier.drain(..).chain(self.last.take())
    }
}
