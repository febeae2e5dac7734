//! The queue as the source of the jobs of a scheduler.

use std::time::Duration;

use super::blocking;
use super::name::{GROUP_CLOSED, Name};
use super::queue::{Position, Queue, Queued};
use super::task::{Entry, Place, Task, Work};
use super::worker::Worker;
use crate::context::Cause;
use crate::scheduler::Scheduler;
use crate::scheduler::calls::PoolId;
use crate::scheduler::effects::{Effects, Observer};
use crate::scheduler::error::Label;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::ledger::Straggler;
use crate::scheduler::permits::Permits;
use crate::scheduler::source::{Reach, Reclaimed, Rejected, Source};
use crate::span::Span;
use crate::sync::Arc;
use crate::sync::atomic::AtomicBool;

/// The data of a group that is read without its lock.
pub(crate) struct Shared {
    /// The span in which the group was made.
    pub(super) span: Span,
    /// Whether the burst was full when a task was last counted in it. Written under the lock, and
    /// read without it as a guess.
    pub(super) is_burst_full: AtomicBool,
    pub(super) name: Name,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared {
            span: Span::current(),
            is_burst_full: AtomicBool::new(false),
            name: Name::new(),
        }
    }
}

impl<E> Source for Queue<E>
where
    E: GroupError,
{
    type Error = E;
    type Value = ();
    type Tag = Task;
    type Work = Work<E>;
    type Shared = Shared;
    type Worker = Worker<E>;

    /// No: what is queued is dropped when the group is stopped, and that is user code.
    const ABORTS_ANYWHERE: bool = false;
    const LENDS: bool = true;
    #[cfg(feature = "inspect")]
    const IS_A_CALL: bool = false;

    #[cfg(feature = "inspect")]
    fn queued(&self) -> usize {
        self.waiting()
    }

    #[cfg(feature = "inspect")]
    fn name(shared: &Shared) -> Option<String> {
        shared.name.get().map(String::from)
    }

    fn worker(scheduler: Arc<Scheduler<Self>>) -> Worker<E> {
        Worker::searching(scheduler)
    }

    fn start(&mut self, permits: &mut Permits, effects: &mut Effects) {
        while !self.waiting.is_empty() && permits.is_free() {
            let Some(position) = self.waiting.pop_front() else {
                return;
            };
            let Position {
                number,
                queued,
                waiter,
                job,
            } = position;
            self.head = number + 1;
            let reserved = queued.reserved();
            if self.begin(queued, effects) {
                permits.take();
            }
            if let Some(waiter) = waiter {
                match reserved {
                    Some(id) => {
                        permits.decide_reserved(id, job.map(|job| *job), waiter, &mut effects.wake)
                    }
                    None => permits.decide(waiter, &mut effects.wake),
                }
                // Its claim comes before the tasks that still wait.
                permits.grant(&mut effects.wake);
            }
        }
        self.trim();
    }

    fn has_job(&self, _: &Permits) -> bool {
        !self.ready.is_empty()
    }

    fn ready(&self) -> usize {
        // A task that waits starts as soon as one that is ready has ended.
        self.ready.len() + self.waiting()
    }

    fn has_unstarted(&self) -> bool {
        self.waiting() > 0
    }

    /// No: each task is counted when it is queued, and a join does not wait for reservations.
    fn has_uncounted(&self) -> bool {
        false
    }

    fn has_reservations(&self, permits: &Permits) -> bool {
        Queue::has_reservations(self, permits)
    }

    fn accept(&mut self, task: Task, _: Option<()>, _: &mut Effects) -> Option<Arc<dyn Observer>> {
        match task.place {
            Place::Worker => {}
            Place::LocalSet(id) => drop(self.locals.remove(&id)),
            Place::Pool(id) => self.on_pool.left(id),
        }
        task.observer
    }

    fn why_shut(shared: &Shared) -> Cause {
        shared.name.cause(&GROUP_CLOSED)
    }

    fn stragglers(&self) -> impl Iterator<Item = Straggler> {
        self.on_pool.stragglers()
    }

    fn stragglers_count(&self) -> usize {
        self.on_pool.running()
    }

    fn left_pool(&mut self, id: PoolId) {
        self.on_pool.left(id);
    }

    fn take_unstarted(
        &mut self,
        permits: &mut Permits,
        effects: &mut Effects,
    ) -> Vec<(Task, Work<E>)> {
        self.closed = true;
        let mut unstarted = Vec::with_capacity(self.waiting.len());
        for Position { queued, waiter, .. } in self.waiting.drain(..) {
            if let Some(waiter) = waiter {
                permits.decide(waiter, &mut effects.wake);
            }
            match queued {
                Queued::Entry(Entry { task, work }) => unstarted.push((task, work)),
                Queued::Local(wait) | Queued::Reserved(wait) => wait.refuse(effects),
                Queued::Gap => {}
            }
        }
        self.gaps = 0;
        unstarted
    }

    fn reclaim(&mut self, reach: Reach, effects: &mut Effects) -> Reclaimed<Self> {
        effects.wake.extend(self.worker_wakers.take_all());
        if reach == Reach::All {
            effects.wake.extend(self.cleanup_wakers.take_all());
        }
        let ready = self.ready.drain(..);
        let locals = self.locals.values();
        Reclaimed {
            works: ready.map(|Entry { task, work }| (task, work)).collect(),
            lost: self.on_pool.take_all(reach),
            tasks: locals
                .filter(|local| reach == Reach::All || !local.is_cleanup)
                .map(|local| local.abort.clone())
                .collect(),
        }
    }

    fn dispose(scheduler: &Arc<Scheduler<Self>>, rejected: Rejected<Self>) {
        match rejected {
            Rejected {
                tag,
                work: Work::Blocking(job),
                permit,
            } => blocking::hand_over(scheduler, tag, job, permit),
            rejected => scheduler.dispose(rejected),
        }
    }

    fn describe(_: &Shared, task: &Task) -> (Label, Duration) {
        let elapsed = task.started.map_or(Duration::ZERO, |at| at.elapsed());
        (task.label.clone(), elapsed)
    }
}
