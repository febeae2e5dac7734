//! Items that a worker runs one after another on one permit.
//!
//! To complete an item under the lock costs some 100 ns where two workers contend for it. If the
//! result is needed only at the end, a worker whose item succeeds keeps its permit, pulls the next
//! item at once, and completes several items in one critical section: after every `MOST` items,
//! and whenever an item has to wait. A worker has only the item that it runs, so no item waits
//! behind a slow one.

use super::pulls::Pulls;
use crate::scheduler::Scheduler;
use crate::scheduler::effects::Effects;
use crate::scheduler::source::Source;
use crate::scheduler::state::State;
use crate::sync::Arc;

/// The most items of a batch. The lock is then a small part of what they cost.
const MOST: usize = 32;

/// The items that have succeeded in one poll of a worker and whose permit went on to the next.
pub(crate) struct Batch<S: Source> {
    /// The first one has a place of its own: if each item has to wait, there is one at a time, and
    /// it needs no allocation.
    first: Option<Finished<S>>,
    more: Vec<Finished<S>>,
}

/// The tag of an item and its value.
type Finished<S> = (<S as Source>::Tag, Option<<S as Source>::Value>);

impl<S: Source> Batch<S> {
    pub(crate) fn new() -> Batch<S> {
        Batch {
            first: None,
            more: Vec::new(),
        }
    }

    /// Returns whether one more item fits, beside the one that is completed with its permit.
    pub(crate) fn has_room(&self) -> bool {
        self.more.len() + 2 < MOST
    }

    #[inline]
    pub(crate) fn add(&mut self, tag: S::Tag, value: Option<S::Value>) {
        if self.first.is_none() {
            self.first = Some((tag, value));
            return;
        }
        if self.more.capacity() == 0 {
            self.more.reserve_exact(MOST);
        }
        self.more.push((tag, value));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl<S: Pulls> Scheduler<S> {
    /// Completes the items of a batch whose last item has to wait: they do not wait for it.
    pub(super) fn complete_batch(self: &Arc<Self>, batch: &mut Batch<S>) {
        if !batch.is_empty() {
            self.with_effects(|state, effects| state.complete_batch(batch, effects));
        }
    }
}

impl<S: Pulls> State<S> {
    pub(super) fn complete_batch(&mut self, batch: &mut Batch<S>, effects: &mut Effects) {
        let Some(first) = batch.first.take() else {
            return;
        };
        self.accept_finished(first, effects);
        // Most batches have one item. The loop has a destructor, which costs as much as the item.
        if !batch.more.is_empty() {
            for item in batch.more.drain(..) {
                self.accept_finished(item, effects);
            }
        }
    }

    #[inline]
    fn accept_finished(&mut self, (tag, value): Finished<S>, effects: &mut Effects) {
        let observer = self.source.accept(tag, value, effects);
        debug_assert!(observer.is_none(), "an item has no observer");
    }
}
