//! How many handlers are running, and what became of those that have not returned.
//!
//! # Invariants
//!
//! 1. A handler is counted in `running` from its beginning until it has been dropped, or has
//!    returned. It is counted once, also if it is moved to the group in between.
//! 2. After `CLOSED` is set, `running` only falls: a handler that finds it set does not begin.
//! 3. A handler that ended in another way than by returning is in the tally before it leaves
//!    `running`, both under the lock of the tally. `close` takes that lock, too. So the handlers
//!    that were running at `close` are those that the tally has counted since, those that have
//!    returned, and those that still run.
//! 4. A task that waits for the last handler registers its waker before it reads `running`, and the
//!    last handler takes the wakers after it has left. So one of them sees the other.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};

use super::tally::{Ended, Tally};
use crate::group::drain::DrainedPhase;
use crate::panic;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Set in `running` when no handler may begin any more.
const CLOSED: usize = 1;
/// Each handler counts this much in `running`.
const ONE: usize = 2;

pub(super) struct Counts {
    running: AtomicUsize,
    lingering: AtomicUsize,
    tally: Mutex<Tally>,
    waiting: Mutex<Vec<Waker>>,
}

impl Counts {
    pub(super) fn new() -> Counts {
        Counts {
            running: AtomicUsize::new(0),
            lingering: AtomicUsize::new(0),
            tally: Mutex::new(Tally::default()),
            waiting: Mutex::new(Vec::new()),
        }
    }

    /// `Acquire` pairs with the `Release` in `leave`: a thread that sees no handler running sees
    /// what the handlers have done.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire) / ONE
    }

    pub(super) fn lingering(&self) -> usize {
        self.lingering.load(Ordering::Relaxed)
    }

    /// Counts a handler that begins. Returns `false` if none may begin any more (invariant 2).
    pub(super) fn enter(&self) -> bool {
        let add = |running| (running & CLOSED == 0).then_some(running + ONE);
        // `Relaxed`: every change of `running` is a read-modify-write, and they have one order.
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.running.fetch_update(set, fetch, add).is_ok()
    }

    /// Counts a handler that lingers. Returns `false`, and does not count it, if `most` do already.
    pub(super) fn enter_lingering(&self, most: usize) -> bool {
        let add = |lingering| (lingering < most).then_some(lingering + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.lingering.fetch_update(set, fetch, add).is_ok()
    }

    pub(super) fn leave_lingering(&self) {
        self.lingering.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a handler that has ended, and was dropped.
    pub(super) fn leave(&self, ended: Ended) {
        if let Ended::Returned = ended {
            self.subtract();
            return;
        }
        let mut tally = self.tally.lock();
        let evicted = tally.record(ended);
        let is_last = self.leaves_last();
        drop(tally);
        drop(evicted);
        if is_last {
            self.wake();
        }
    }

    fn subtract(&self) {
        if self.leaves_last() {
            self.wake();
        }
    }

    /// Returns `true` if a task may wait for this handler.
    fn leaves_last(&self) -> bool {
        self.running.fetch_sub(ONE, Ordering::AcqRel) == ONE | CLOSED
    }

    #[cold]
    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(panic::wake);
    }

    /// Lets no handler begin any more. What ends from now on is part of the report.
    pub(super) fn close(&self) {
        let mut tally = self.tally.lock();
        let before = self.running.fetch_or(CLOSED, Ordering::AcqRel);
        if before & CLOSED == 0 {
            tally.close(before / ONE);
        }
    }

    /// Completes when no handler is running. The counts must be closed.
    pub(super) fn idle(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            let new = cx.waker().clone();
            let mut waiting = self.waiting.lock();
            let is_known = waiting.iter().any(|known| known.will_wake(&new));
            let unneeded = if is_known {
                Some(new)
            } else {
                waiting.push(new);
                None
            };
            drop(waiting);
            drop(unneeded);
            if self.running() == 0 {
                return Poll::Ready(());
            }
            Poll::Pending
        })
    }

    /// Notes that the contexts of all handlers are about to be cancelled.
    pub(super) fn cancel(&self) {
        let mut tally = self.tally.lock();
        tally.cancel(self.running());
    }

    /// Returns the report. Handlers that have not ended are counted in it.
    pub(super) fn report(&self, name: impl Into<Cow<'static, str>>) -> DrainedPhase {
        let tally = self.tally.lock();
        let entries = tally.entries(self.running());
        drop(tally);
        DrainedPhase::new(name.into(), entries)
    }
}
