//! The queue of a group: what `go` was given, first in, first out.
//!
//! ```text
//!     go ─► ready: have a permit, wait for a worker ─► workers
//!       │     ▲
//!       │     │ a permit is free
//!       └─► waiting:  7   8   9   10   next: 11
//!                     ▲
//!                    head
//! ```
//!
//! Tasks that wait for a permit are numbered, and start in the order of their numbers. So an
//! admission is a number: its task has started when `head` has passed the number, which costs
//! nothing per task. When the context is done, `head` stops for good and what waits is removed. The
//! tasks with those numbers never start.
//!
//! A local task may be dropped while it is queued, together with its `LocalSet`. So its admission
//! is decided by its [`LocalWait`], and its number says only where it is in the queue. When such a
//! task is dropped, its position becomes a gap, since the numbers behind it must not change. A gap
//! is removed when it is the first or the last position. The number of a last one is then used
//! again.

use std::collections::{BTreeMap, VecDeque};

use tokio::task::AbortHandle;

use super::burst::Burst;
use super::handle::Number;
use super::local_wait::LocalWait;
use super::on_pool::OnPool;
use super::task::{Entry, LocalId};
use crate::scheduler::effects::Effects;
use crate::scheduler::permits::Permits;
use crate::scheduler::permits::lending::Waiter;
use crate::scheduler::worker_wakers::WorkerWakers;
use crate::sync::Arc;

pub(crate) struct Queue<E> {
    /// Tasks that have a permit and wait for a worker.
    pub(crate) ready: VecDeque<Entry<E>>,
    /// Tasks that wait for a permit.
    pub(crate) waiting: VecDeque<Position<E>>,
    /// The number of the first position in `waiting`. If that is empty, the next number to be used.
    pub(crate) head: Number,
    /// Whether the context is done, so that `head` has stopped.
    pub(crate) closed: bool,
    /// The local tasks, which are in no `JoinSet`. An abort needs their handles.
    pub(crate) locals: BTreeMap<LocalId, AbortHandle>,
    /// The blocking closures that wait for a thread of the pool.
    pub(crate) on_pool: OnPool,
    /// How many positions in `waiting` are gaps.
    pub(super) gaps: usize,
    pub(crate) burst: Burst,
    /// Whether an admission was awaited since a worker last looked twice in vain while no task
    /// waited for a permit. The task that awaited it may start as many tasks as there are permits,
    /// once it continues. So a worker that finds no job looks again, behind the tasks that are
    /// ready now. Otherwise such a loop would need a new worker for almost every task.
    pub(crate) expects_more: bool,
    /// Of the workers that were spawned with their job.
    pub(super) worker_wakers: WorkerWakers,
}

/// A position in the queue holds one of these.
pub(crate) enum Queued<E> {
    /// A job that a worker will run.
    Entry(Entry<E>),
    /// A local task, which runs by itself once it has a permit.
    Local(Arc<LocalWait>),
    /// A gap: a local task that was dropped.
    Gap,
}

/// A position in the queue, which has a number.
pub(crate) struct Position<E> {
    pub(crate) queued: Queued<E>,
    /// The task that awaits the admission, if one does.
    pub(crate) waiter: Option<Waiter>,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Queue<E> {
        Queue {
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            head: 0,
            closed: false,
            locals: BTreeMap::new(),
            on_pool: OnPool::new(),
            gaps: 0,
            burst: Burst::new(),
            expects_more: false,
            worker_wakers: WorkerWakers::new(),
        }
    }

    /// Returns how many tasks wait for a permit. Gaps do not count.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len() - self.gaps
    }

    /// Removes a local task that was dropped while it was queued. Its `LocalWait` knows its number,
    /// so that no search is needed.
    pub(crate) fn forget(
        &mut self,
        wait: &Arc<LocalWait>,
        permits: &mut Permits,
        effects: &mut Effects,
    ) {
        let is_it = |position: &&mut Position<E>| match &position.queued {
            Queued::Local(it) => Arc::ptr_eq(it, wait),
            Queued::Entry(_) | Queued::Gap => false,
        };
        let position = wait.number().and_then(|number| self.position_at(number));
        // It may have been started while it was being dropped, and its number used again.
        let Some(position) = position.filter(is_it) else {
            return;
        };
        position.queued = Queued::Gap;
        let waiter = position.waiter.take();
        wait.forget();
        self.gaps += 1;
        self.trim();
        if let Some(waiter) = waiter {
            permits.decide(waiter, &mut effects.wake);
            permits.grant(&mut effects.wake);
        }
    }

    /// Removes the gaps at both ends.
    pub(super) fn trim(&mut self) {
        let is_gap = |end: Option<&Position<E>>| {
            end.is_some_and(|position| matches!(position.queued, Queued::Gap))
        };
        while is_gap(self.waiting.back()) {
            self.waiting.pop_back();
            self.gaps -= 1;
        }
        while is_gap(self.waiting.front()) {
            self.waiting.pop_front();
            self.head += 1;
            self.gaps -= 1;
        }
        shrink_if_empty(&mut self.waiting);
    }

    /// Returns whether the task with this number starts, if that is decided. The number must not be
    /// that of a local task.
    pub(crate) fn decision(&self, number: Number) -> Option<bool> {
        if number < self.head {
            return Some(true);
        }
        self.closed.then_some(false)
    }

    /// Returns the waiter at an undecided number.
    pub(crate) fn waiter_of(&mut self, number: Number) -> Option<&mut Option<Waiter>> {
        self.position_at(number)
            .map(|position| &mut position.waiter)
    }

    fn position_at(&mut self, number: Number) -> Option<&mut Position<E>> {
        let at = usize::try_from(number.checked_sub(self.head)?).ok()?;
        self.waiting.get_mut(at)
    }

    /// The next job that has a permit.
    pub(crate) fn pop_ready(&mut self) -> Option<Entry<E>> {
        let entry = self.ready.pop_front();
        shrink_if_empty(&mut self.ready);
        entry
    }

    /// Starts an entry for which there is a permit. Returns whether it takes the permit: a local
    /// task may have been dropped meanwhile.
    pub(crate) fn begin(&mut self, queued: Queued<E>, effects: &mut Effects) -> bool {
        match queued {
            Queued::Entry(entry) => {
                self.ready.push_back(entry);
                true
            }
            Queued::Local(wait) => wait.admit(effects),
            Queued::Gap => {
                self.gaps -= 1;
                false
            }
        }
    }
}

/// Frees the memory of an empty queue that a burst has made large.
fn shrink_if_empty<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > 1024 {
        *queue = VecDeque::new();
    }
}
