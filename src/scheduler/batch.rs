//! Jobs that a worker runs one after another on one permit.
//!
//! A turn at the counter costs a lock, which two workers contend for. Where nobody looks at an outcome before the last, a
//! worker whose job succeeds keeps the permit, takes the next job without a turn, and hands in what it has every so often, and
//! whenever a job has to wait. It never has more than the job that it runs, so nothing stands behind one that takes its time.

use super::source::Source;
use super::state::Completion;

/// The most jobs of a batch: the lock is then a small part of what they cost.
const MOST: usize = 32;

/// What has ended in one poll of a worker and was not handed in.
pub(crate) struct Batch<S: Source> {
    /// With its permit.
    last: Option<Completion<S>>,
    /// Those before it, whose permit went on to the next.
    first: Option<Ended<S>>,
    more: Vec<Ended<S>>,
}

/// What it was, and what it gave.
type Ended<S> = (<S as Source>::Tag, Option<<S as Source>::Value>);

impl<S: Source> Batch<S> {
    pub(crate) fn new() -> Batch<S> {
        Batch {
            last: None,
            first: None,
            more: Vec::new(),
        }
    }

    /// Whether the permit of a job that has succeeded may go on to another.
    pub(crate) fn goes_on(&self) -> bool {
        S::BATCHES && self.more.len() + 2 < MOST
    }

    /// A job has succeeded, and its permit has gone on.
    #[inline]
    pub(crate) fn add(&mut self, tag: S::Tag, value: Option<S::Value>) {
        if self.first.is_none() {
            // Of jobs that all have to wait there is one each time.
            self.first = Some((tag, value));
            return;
        }
        if self.more.capacity() == 0 {
            self.more.reserve_exact(MOST);
        }
        self.more.push((tag, value));
    }

    /// A job has ended, and its permit is to be handed in.
    pub(crate) fn end(&mut self, hand_in: Completion<S>) {
        self.last = Some(hand_in);
    }

    pub(crate) fn take_last(&mut self) -> Option<Completion<S>> {
        self.last.take()
    }

    /// What has ended before the last, in order.
    pub(crate) fn take_earlier(&mut self) -> impl Iterator<Item = Ended<S>> + use<'_, S> {
        self.first.take().into_iter().chain(self.more.drain(..))
    }

    pub(crate) fn has_earlier(&self) -> bool {
        self.first.is_some()
    }
}
