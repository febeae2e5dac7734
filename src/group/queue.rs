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
//! A local task may be dropped while it is queued, together with its `LocalSet`, and a reservation
//! at any time. So these are decided by their [`PermitWait`], and their number says only where they
//! are in the queue. When one is dropped, or a task is stopped by its handle, its position becomes
//! a gap: to remove it at once would move all positions behind it.
//!
//! # Invariants
//!
//! 1. The numbers in `waiting` grow from one position to the next. `head` is not above the first of
//!    them, and every number below `head` is decided. A new position gets the number after the last
//!    one, or `head` if there is none.
//! 2. When a gap is removed, its number is left out, so a position is found by a binary search. The
//!    number of a gap that was removed from the end is used again.
//! 3. After each section that makes a gap or starts a task, the first and the last position are no
//!    gaps, and at most half of the positions are gaps, or [`FEW`]. So the memory is bounded by the
//!    tasks that wait. All gaps are removed when they are more. That looks at fewer than two
//!    positions for each gap, so a gap costs the same however long the queue is.

use std::collections::{BTreeMap, VecDeque};

use tokio::task::AbortHandle;

use super::burst::Burst;
use super::handle::Number;
use super::on_pool::OnPool;
use super::permit_wait::PermitWait;
use super::task::{Entry, LocalId};
use crate::scheduler::effects::Effects;
use crate::scheduler::permits::Permits;
use crate::scheduler::permits::lending::{Claimant, ReservedId, Waiter};
use crate::scheduler::worker_wakers::WorkerWakers;
use crate::sync::Arc;

/// How many gaps are not worth removing.
const FEW: usize = 32;

pub(crate) struct Queue<E> {
    /// Tasks that have a permit and wait for a worker.
    pub(crate) ready: VecDeque<Entry<E>>,
    /// Tasks that wait for a permit.
    pub(crate) waiting: VecDeque<Position<E>>,
    /// One more than the number of the last position that was removed at the front, so every lower
    /// number is decided. If `waiting` is empty, it is the next number to be used.
    pub(crate) head: Number,
    /// Whether the context is done, so that `head` has stopped.
    pub(crate) closed: bool,
    /// The local tasks, which are in no `JoinSet`. An abort needs their handles.
    pub(crate) locals: BTreeMap<LocalId, Local>,
    /// The blocking closures that wait for a thread of the pool.
    pub(crate) on_pool: OnPool,
    /// How many positions in `waiting` are gaps.
    pub(super) gaps: usize,
    /// How many permits that background tasks have reserved are neither used nor given back.
    by_background: usize,
    pub(crate) burst: Burst,
    /// Whether an admission was awaited since a worker last looked twice in vain while no task
    /// waited for a permit. The task that awaited it may start as many tasks as there are permits,
    /// once it continues. So a worker that finds no job looks again, behind the tasks that are
    /// ready now. Otherwise such a loop would need a new worker for almost every task.
    pub(crate) expects_more: bool,
    /// Of the workers that were spawned with their job.
    pub(super) worker_wakers: WorkerWakers,
    /// Of the workers of clean-up tasks, which a grace period does not abort.
    pub(super) cleanup_wakers: WorkerWakers,
}

/// A local task, as an abort needs it.
pub(crate) struct Local {
    pub(super) abort: AbortHandle,
    pub(super) is_cleanup: bool,
}

/// A position in the queue holds one of these.
pub(crate) enum Queued<E> {
    /// A job that a worker will run.
    Entry(Entry<E>),
    /// A local task, which runs by itself once it has a permit.
    Local(Arc<PermitWait>),
    /// A reservation, whose owner takes the permit.
    Reserved(Arc<PermitWait>),
    /// A gap: a local task or a reservation that was dropped.
    Gap,
}

impl<E> Queued<E> {
    /// Returns the id of the permit that a reservation gets.
    pub(crate) fn reserved(&self) -> Option<ReservedId> {
        match self {
            Queued::Reserved(wait) => Some(wait.reserved_id()),
            Queued::Entry(_) | Queued::Local(_) | Queued::Gap => None,
        }
    }
}

/// A position in the queue, which has a number.
pub(crate) struct Position<E> {
    pub(super) number: Number,
    pub(crate) queued: Queued<E>,
    /// The task that awaits the admission or the reservation, if one does.
    pub(crate) waiter: Option<Waiter>,
    /// The job of another scheduler that awaits the reservation, if one does. It is boxed, since
    /// few positions have one.
    pub(crate) job: Option<Box<Claimant>>,
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
            by_background: 0,
            burst: Burst::new(),
            expects_more: false,
            worker_wakers: WorkerWakers::new(),
            cleanup_wakers: WorkerWakers::new(),
        }
    }

    /// Grants a local task or a reservation its permit. Returns whether it takes the permit: it may
    /// have been dropped meanwhile.
    pub(super) fn admit(&mut self, wait: &PermitWait, effects: &mut Effects) -> bool {
        let is_admitted = wait.admit(effects);
        if is_admitted {
            self.by_background += usize::from(wait.is_by_background());
        }
        is_admitted
    }

    /// Notes that the permit of a reservation is used or given back.
    pub(super) fn end_reservation(&mut self, wait: &PermitWait) {
        self.by_background -= usize::from(wait.is_by_background());
    }

    /// Returns whether a permit is out that no background task has reserved. Only background tasks
    /// are open, and these take no permits. A reservation that waits when there is no such permit
    /// waits for those of the background tasks.
    pub(super) fn has_reservations(&self, permits: &Permits) -> bool {
        permits.running() > self.by_background
    }

    /// The wakers of the workers that run clean-up tasks, or of the others.
    pub(super) fn wakers(&mut self, of_cleanup: bool) -> &mut WorkerWakers {
        if of_cleanup {
            &mut self.cleanup_wakers
        } else {
            &mut self.worker_wakers
        }
    }

    /// Returns how many tasks wait for a permit. Gaps do not count.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len() - self.gaps
    }

    /// Puts this at the end of the queue, and returns its number.
    pub(super) fn push(&mut self, queued: Queued<E>) -> Number {
        let last = self.waiting.back();
        let number = last.map_or(self.head, |position| position.number + 1);
        self.waiting.push_back(Position {
            number,
            queued,
            waiter: None,
            job: None,
        });
        number
    }

    /// Removes a local task or a reservation that was dropped while it was queued. Its `PermitWait`
    /// knows its number.
    pub(crate) fn forget(
        &mut self,
        wait: &Arc<PermitWait>,
        permits: &mut Permits,
        effects: &mut Effects,
    ) {
        let is_it = |position: &&mut Position<E>| match &position.queued {
            Queued::Local(it) | Queued::Reserved(it) => Arc::ptr_eq(it, wait),
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

    /// Takes out a task that its handle has stopped, if it still waits at this position. `observer`
    /// is the address of its observer: the number may be in use for another task.
    pub(super) fn take_out(&mut self, number: Number, observer: usize) -> Option<Entry<E>> {
        let position = self.position_at(number)?;
        let is_it = match &position.queued {
            Queued::Entry(entry) => entry.task.observer_id() == Some(observer),
            Queued::Local(_) | Queued::Reserved(_) | Queued::Gap => false,
        };
        if !is_it {
            return None;
        }
        let queued = std::mem::replace(&mut position.queued, Queued::Gap);
        self.gaps += 1;
        self.trim();
        match queued {
            Queued::Entry(entry) => Some(entry),
            Queued::Local(_) | Queued::Reserved(_) | Queued::Gap => None,
        }
    }

    /// Removes the gaps at both ends, and all gaps if they are too many (invariant 3).
    pub(super) fn trim(&mut self) {
        let is_gap = |end: Option<&Position<E>>| {
            end.is_some_and(|position| matches!(position.queued, Queued::Gap))
        };
        while is_gap(self.waiting.back()) {
            self.waiting.pop_back();
            self.gaps -= 1;
        }
        while is_gap(self.waiting.front()) {
            let gap = self.waiting.pop_front();
            self.head = gap.map_or(self.head, |gap| gap.number + 1);
            self.gaps -= 1;
        }
        if self.gaps > FEW && self.gaps > self.waiting.len() / 2 {
            self.waiting
                .retain(|position| !matches!(position.queued, Queued::Gap));
            self.gaps = 0;
        }
        shrink(&mut self.waiting);
    }

    /// Returns whether the task with this number starts, if that is decided. The number must not be
    /// that of a local task or of a reservation.
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

    pub(super) fn position_at(&mut self, number: Number) -> Option<&mut Position<E>> {
        let is_it = |position: &Position<E>| position.number == number;
        let first = self.waiting.front()?.number;
        let mut at = usize::try_from(number.checked_sub(first)?).ok()?;
        // Mostly no gap was removed in front of it.
        if !self.waiting.get(at).is_some_and(is_it) {
            let found = self
                .waiting
                .binary_search_by_key(&number, |position| position.number);
            at = found.ok()?;
        }
        self.waiting.get_mut(at)
    }

    /// The next job that has a permit.
    pub(crate) fn pop_ready(&mut self) -> Option<Entry<E>> {
        let entry = self.ready.pop_front();
        shrink(&mut self.ready);
        entry
    }

    /// Starts an entry for which there is a permit. Returns whether it takes the permit: a local
    /// task or a reservation may have been dropped meanwhile.
    pub(crate) fn begin(&mut self, queued: Queued<E>, effects: &mut Effects) -> bool {
        match queued {
            Queued::Entry(entry) => {
                self.ready.push_back(entry);
                true
            }
            Queued::Local(wait) | Queued::Reserved(wait) => self.admit(&wait, effects),
            Queued::Gap => {
                self.gaps -= 1;
                false
            }
        }
    }
}

/// Frees memory of a queue that a burst has made large, when three quarters of it are unused. What
/// is left is moved, which is less than what was taken out since the queue was that full.
fn shrink<T>(queue: &mut VecDeque<T>) {
    let capacity = queue.capacity();
    if capacity > 1024 && queue.len() <= capacity / 4 {
        queue.shrink_to(2 * queue.len());
    }
}
