//! The permits with which workers pull: the first workers are spawned with theirs, and a permit
//! for which there is no item is returned.

use super::{Worker, WorkerState};
use crate::fan_out::pulls::Pulls;
use crate::scheduler::effects::Effects;
use crate::scheduler::state::State;
use crate::scheduler::{Scheduler, Spawned};
use crate::sync::Arc;

impl<S: Pulls> Scheduler<S> {
    /// Spawns the first workers, each with a permit: one per item, if the iterator says that there
    /// are at most `most`. Returns whether it has spawned one.
    ///
    /// Otherwise each worker would be woken only after the pull of the one before.
    pub(crate) fn spawn_first(self: &Arc<Self>, most: usize) -> bool {
        let count = self.take_first_permits(most);
        let mut unspawned = count;
        if count > 0 {
            self.spawn_guarded(|workers, runtime| {
                // An abort that has hit the workers would not see the new ones.
                let mut is_finished = false;
                while unspawned > 0 && !self.are_workers_aborted() {
                    unspawned -= 1;
                    let worker = Worker::new(self.clone(), WorkerState::HasPermit);
                    is_finished |= workers.spawn_on(worker, runtime).is_finished();
                }
                Spawned::of_worker(is_finished)
            });
            self.flush_lifo_slot();
        }
        for _ in 0..unspawned {
            self.return_permit();
        }
        count > 0
    }

    /// Takes a permit for each item, if the iterator says that there are at most `most`, and as far
    /// as there are permits. Returns how many it has taken.
    pub(in crate::fan_out) fn take_first_permits(self: &Arc<Self>, most: usize) -> usize {
        let ended = self.ctx().is_done();
        self.with_state(|state| {
            let few = state.source.most_left().filter(|left| *left <= most);
            let mut count = 0;
            while !ended && state.is_open() && few.is_some_and(|few| count < few) {
                if !state.take_permit() {
                    break;
                }
                count += 1;
            }
            count
        })
    }

    /// Returns a permit for which there is no item.
    pub(crate) fn return_permit(self: &Arc<Self>) {
        self.with_effects(|state, effects| state.return_unused_permit(effects));
    }
}

impl<S: Pulls> State<S> {
    /// Takes a permit to pull, if an item may be pulled now, and counts the item.
    pub(super) fn take_permit(&mut self) -> bool {
        let takes = self.source.take_permit(&mut self.permits);
        if takes {
            self.count_in(1);
        }
        takes
    }

    pub(in crate::fan_out) fn return_unused_permit(&mut self, effects: &mut Effects) {
        self.source.permit_returned();
        self.return_permit(effects);
    }
}
