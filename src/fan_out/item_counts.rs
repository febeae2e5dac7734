//! Counts of the items: how many have started, finished and failed, and whether more are pulled.
//!
//! Every collector and both kinds of run use the same counts.
//!
//! # Invariants
//!
//! 1. Items are numbered from 0 in the order in which they are pulled. All items with a number
//!    below `started` have been pulled. `ended` of them have finished or were dropped, and the
//!    collector has received each of these exactly once. While a worker has unreported completions,
//!    `started` may be too low by the items that it runs: see [`batch`](crate::fan_out::batch).
//! 2. `stage` changes only from `Pulling` to another value. Items are pulled only while it is
//!    `Pulling`.
//! 3. Once `decided` is true, the decision of the collector does not change: it cancels the
//!    context, and values that still arrive are not needed.

use super::collect::Collector;
use super::items::SizeHint;
use super::progress::Progress;
use crate::context::StaticCause;

/// The counts of a fan-out's items, and the collector that receives their values.
pub(crate) struct ItemCounts<C> {
    pub(crate) collector: C,
    stage: Stage,
    decided: bool,
    started: usize,
    ended: usize,
    done: usize,
    failed: usize,
    left: SizeHint,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pulling,
    /// The last item was pulled.
    Exhausted,
    /// A failure, the collector's decision, or the end of the context came before the last item.
    Cut,
}

impl<C> ItemCounts<C> {
    pub(crate) fn new(collector: C, left: SizeHint) -> ItemCounts<C> {
        ItemCounts {
            collector,
            stage: Stage::Pulling,
            decided: false,
            started: 0,
            ended: 0,
            done: 0,
            failed: 0,
            left,
        }
    }

    pub(crate) fn is_pulling(&self) -> bool {
        self.stage == Stage::Pulling
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.stage == Stage::Exhausted
    }

    /// Returns whether an item that was pulled must not start any more.
    pub(crate) fn is_cut(&self) -> bool {
        self.stage == Stage::Cut
    }

    pub(crate) fn is_decided(&self) -> bool {
        self.decided
    }

    pub(crate) fn started(&self) -> usize {
        self.started
    }

    /// Returns an upper bound of the items that have not been pulled, if one is known.
    pub(crate) fn left(&self) -> Option<usize> {
        self.left.1
    }

    /// Stops the pulling, if the last item was not pulled yet.
    pub(crate) fn cut(&mut self) {
        if self.is_pulling() {
            self.stage = Stage::Cut;
        }
    }

    /// Counts an item as started. `left` items are still to be pulled after it. Two workers may
    /// report their items in either order.
    pub(crate) fn start(&mut self, number: usize, left: SizeHint) {
        if number >= self.started {
            self.started = number + 1;
            self.left = left;
        }
    }

    /// Counts a panic of the iterator or the function: it is an item that has started and finished.
    pub(crate) fn break_at(&mut self, number: usize) {
        self.started = self.started.max(number + 1);
        self.ended += 1;
        self.cut();
    }

    /// Counts a failure that was recorded. The collector receives `None` for its item.
    pub(crate) fn fail(&mut self) {
        self.failed += 1;
    }

    /// Notes that there are `count` items in all. The worker that pulled the last one may not have
    /// reported it yet.
    pub(crate) fn exhaust(&mut self, count: usize) {
        self.started = self.started.max(count);
        if self.is_pulling() {
            self.stage = Stage::Exhausted;
            self.left = (0, Some(0));
        }
    }

    /// Notes how many items are left, after the iterator had said that there were none.
    pub(crate) fn correct_left(&mut self, left: SizeHint) {
        if self.is_pulling() {
            self.left = left;
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            started: self.started,
            done: self.done,
            failed: self.failed,
            size_hint: (
                self.started.saturating_add(self.left.0),
                self.left.1.and_then(|left| self.started.checked_add(left)),
            ),
        }
    }
}

impl<C> ItemCounts<C> {
    /// Counts an item as finished, and hands its value to the collector. Returns the value if the
    /// collector does not need it.
    pub(crate) fn collect<T, E>(
        &mut self,
        number: usize,
        collected: Option<C::Collected>,
    ) -> Option<C::Collected>
    where
        C: Collector<T, E>,
    {
        self.started = self.started.max(number + 1);
        self.ended += 1;
        match &collected {
            Some(collected) if C::succeeded(collected) => self.done += 1,
            Some(_) => self.failed += 1,
            None => {}
        }
        self.collector.collect(number, collected)
    }

    /// Asks the collector for its decision. Returns a decision only once.
    pub(crate) fn check_decided<T, E>(&mut self) -> Option<&'static StaticCause>
    where
        C: Collector<T, E>,
    {
        if self.decided {
            return None;
        }
        let running = self.started - self.ended;
        let more = self
            .left
            .1
            .map_or(usize::MAX, |left| left.saturating_add(running));
        let decision = self.collector.decision(more)?;
        self.decided = true;
        self.cut();
        Some(decision)
    }
}
