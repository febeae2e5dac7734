//! How the workers of a small fan-out are spawned: each with a permit, and the last one so that it
//! starts although its starter computes (invariant 6).

use super::{OneItemWorker, Stage};
use crate::fan_out::item_slot::{self, Boxed, Inline, ItemSlot};
use crate::fan_out::pulls::Pulls;
use crate::fan_out::starts::Place;
use crate::scheduler::Scheduler;
use crate::sync::{Arc, Handle};

impl<S: Pulls> Scheduler<S> {
    /// Spawns a worker for each item, if the iterator says that there are at most `most`, and as
    /// far as there are permits. Returns whether it has spawned one.
    pub(in crate::fan_out) fn spawn_one_item_workers(self: &Arc<Self>, most: usize) -> bool {
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
            waits: None,
        }));
    }

    /// Notes that a worker starts. Returns false if it has no permit (invariant 6).
    pub(super) fn note_start(self: &Arc<Self>, place: Place) -> bool {
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
