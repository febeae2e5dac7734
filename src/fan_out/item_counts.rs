//! What has become of the items: the accounts that every end and both ways to run have in common.
//!
//! # Invariants
//!
//! 1. Items are numbered from 0 in the order in which they are pulled. All of a number below `started` have been; `ended`
//!    of them have ended, each of which was accepted by the end exactly once. An item that has started and not ended may be
//!    missing from `started` while nobody looks: see [`batch`](crate::scheduler::batch).
//! 2. `stage` only moves away from `Pulling`. Nothing is pulled in any other.
//! 3. Once `decided`, the end's decision does not change: the context ends for it, and what still comes is not needed.

use super::collect::Collector;
use super::items::SizeHint;
use super::progress::Progress;
use crate::context::Note;

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
    /// The last item has come.
    Exhausted,
    /// A failure, a decision or the end of the context came first.
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

    /// Whether nothing that was pulled starts any more.
    pub(crate) fn is_cut(&self) -> bool {
        self.stage == Stage::Cut
    }

    pub(crate) fn is_decided(&self) -> bool {
        self.decided
    }

    pub(crate) fn started(&self) -> usize {
        self.started
    }

    /// At most how many items have not been pulled.
    pub(crate) fn left(&self) -> Option<usize> {
        self.left.1
    }

    pub(crate) fn cut(&mut self) {
        if self.is_pulling() {
            self.stage = Stage::Cut;
        }
    }

    /// An item was pulled, and so many are still to come after it. Two workers may come to say so in either order.
    pub(crate) fn start(&mut self, number: usize, left: SizeHint) {
        if number >= self.started {
            self.started = number + 1;
            self.left = left;
        }
    }

    /// What makes the items has panicked: that is an item that has started and ended.
    pub(crate) fn break_at(&mut self, number: usize) {
        self.started = self.started.max(number + 1);
        self.ended += 1;
        self.cut();
    }

    /// A failure was recorded; what failed is accepted as nothing.
    pub(crate) fn fail(&mut self) {
        self.failed += 1;
    }

    /// There are no more items than these. The worker that pulled the last one may not have come to say so yet.
    pub(crate) fn exhaust(&mut self, count: usize) {
        self.started = self.started.max(count);
        if self.is_pulling() {
            self.stage = Stage::Exhausted;
            self.left = (0, Some(0));
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
    /// An item has ended, and so had started. Hands back what the end does not need.
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

    /// Asks the end for its decision; gives it once.
    pub(crate) fn check_decided<T, E>(&mut self) -> Option<&'static Note>
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
