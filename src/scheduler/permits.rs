//! The permits: how many tasks may run, which is next, and which have lent their permit.
//!
//! This is bookkeeping only: no futures, no user code, no lock of its own. It is part of the state
//! that [`Scheduler`](super::Scheduler) guards with one lock. The limit of a group, an awaited `go`
//! and a fan-out on workers go through it. A fan-out on the caller's task
//! ([`local`](crate::FanOut::local)) does not: it runs on one task, which counts its own items
//! (`fan_out/local.rs`).
//!
//! ```text
//!                    limit = 3
//!     permits      ┌───┬───┬───┐        a permit is the right to run
//!     out: 3       │ A │ B │ C │
//!                  └─▲─┴───┴─┬─┘
//!     claims    L ───┘       │ lends: its task awaits an admission
//!     (lenders that want     ▼
//!      theirs back)          waits with its permit lent, and claims it
//!                            when the awaitable has been decided
//!     queue     q1, q2, …    started first in, first out, behind the claims
//! ```
//!
//! # Invariants
//!
//! 1. `running` is the number of permits in use: one for each task that has started, has not been
//!    completed and has not lent its permit.
//! 2. `running <= limit` at every moment at which a permit is given. It may be higher after the
//!    limit was lowered, which stops no task, and after a blocking closure dropped what it awaited,
//!    because nothing can make the closure wait. At limit 0, one permit at a time is still granted
//!    to a claim.
//! 3. No permit is given to a job that has not started while a claim waits: the claims of lenders
//!    come first.
//!    A section that releases a permit grants it to a claim, if there is one, before it ends. A
//!    worker that releases a permit may look for no other job, as after an abort, and a blocking
//!    closure continues even then.
//! 4. Which tasks have lent their permit, and how they claim it back: see
//!    [`lending`](lending).
//! 5. A *searching worker*, or *searcher*, is a worker that was spawned or woken and has not looked
//!    for a job yet. Whenever a job could start, there is a searcher, or a worker that will look
//!    again before it leaves. At most one searcher at a time can be taken by any thread; the others
//!    wait in LIFO slots (see [`Searcher`]). So a task that blocks its thread cannot keep the next
//!    task from starting on another thread. A searcher may back off (`fan_out/backoff.rs`), but not
//!    after a worker has left because that searcher was on its way.

pub(crate) mod lending;

use std::thread::ThreadId;
use std::time::Duration;

use crate::sync::PollClock;
use lending::LazyLenders;

/// The permits of a scheduler.
pub(crate) struct Permits {
    pub(crate) limit: usize,
    pub(crate) running: usize,
    pub(crate) lenders: LazyLenders,
    /// Whether tasks may wait for permits or tasks of their own scheduler. Items of a fan-out may
    /// not.
    pub(crate) lends: bool,
    searcher: Searcher,
    pushes: Pushes,
}

/// Where the searcher is, if there is one.
///
/// The searcher that a thread has spawned last waits in that thread's LIFO slot, where no other
/// thread finds it. A worker that may run user code next pushes it out at once (`flush_lifo_slot`),
/// which costs another spawn. A `go` leaves it there, as `tokio::spawn` leaves a task there. The
/// next `go` on the same thread sends a second searcher, which pushes the first one out. So the
/// first tasks that take the queue have a searcher each, and the last of them may wait until the
/// task that started it yields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Searcher {
    None,
    /// In the LIFO slot of that thread, as far as is known.
    InSlot(ThreadId),
    /// `count` searchers that any thread can take, and one in the slot of that thread.
    OnTheWayAndInSlot {
        count: usize,
        thread: ThreadId,
    },
    /// Any thread can take it.
    OnTheWay,
    /// It has looked and backs off until it is needed. A worker that is at work will look again.
    BacksOff,
    /// On its way, and a worker has left because of that.
    TakesOver,
}

/// The largest number of tasks, started together, that have a searcher each.
const FIRST: usize = 3;

/// Limits how often a `go` pushes a searcher out of the LIFO slot of its thread, which wakes
/// another thread.
///
/// The first tasks that take the queue together each get an idle thread. A loop that starts tasks
/// one right after the other would mostly pay for waking a thread that finds one task. So its
/// pushes are held back for a while, or until several jobs are ready.
struct Pushes {
    count: usize,
    last: Option<PollClock>,
}

impl Pushes {
    /// How many pushes may follow each other.
    const MOST: usize = 3;
    /// With this many jobs ready, the next push is allowed in any case.
    const MANY: usize = 8;
    /// How long a searcher may then stay in the slot of a thread that goes on starting tasks.
    const PAUSE: Duration = Duration::from_micros(200);

    const fn new() -> Pushes {
        Pushes {
            count: 0,
            last: None,
        }
    }

    fn may_push(&mut self, ready: usize) -> bool {
        if self.count == Pushes::MOST && ready < Pushes::MANY {
            let last = self.last.as_ref();
            if last.is_some_and(|last| last.elapsed() < Pushes::PAUSE) {
                return false;
            }
            self.count = 0;
        }
        self.count = (self.count + 1).min(Pushes::MOST);
        self.last = Some(PollClock::start());
        true
    }
}

/// How a worker that has yielded is scheduled again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Yielded {
    AsSearcher,
    AsWorker,
    /// Not at all: a searcher takes over, or nothing is left to do.
    Leaves,
}

impl Permits {
    pub(crate) fn new(limit: usize, lends: bool) -> Permits {
        Permits {
            limit,
            running: 0,
            lenders: LazyLenders::new(),
            lends,
            searcher: Searcher::None,
            pushes: Pushes::new(),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// Sets the limit. The caller then gives away the permits that have become free.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Returns whether `take` would take a permit.
    pub(crate) fn is_free(&self) -> bool {
        self.running < self.limit && !self.lenders.has_claims()
    }

    /// Takes a permit if one is free. Returns whether it did.
    pub(crate) fn take(&mut self) -> bool {
        let free = self.is_free();
        self.running += usize::from(free);
        free
    }
}

/// Searching workers.
impl Permits {
    /// Returns whether the caller must send a searcher that any thread can take. `ready` jobs wait
    /// for a worker.
    pub(crate) fn send_searcher(&mut self, ready: usize) -> bool {
        let sends = match self.searcher {
            Searcher::None => true,
            // A single job may wait until the thread that started it yields.
            Searcher::InSlot(_) => ready > 1,
            Searcher::OnTheWayAndInSlot { .. }
            | Searcher::OnTheWay
            | Searcher::BacksOff
            | Searcher::TakesOver => false,
        };
        if sends {
            self.searcher = Searcher::OnTheWay;
        }
        sends
    }

    /// Returns whether `send_searcher_in_slot` may send one. A caller asks this before it looks up
    /// its thread.
    pub(crate) fn may_need_searcher(&self, ready: usize) -> bool {
        match self.searcher {
            Searcher::None | Searcher::InSlot(_) => true,
            Searcher::OnTheWayAndInSlot { count, .. } => count + 1 < ready.min(FIRST),
            Searcher::OnTheWay | Searcher::BacksOff | Searcher::TakesOver => false,
        }
    }

    /// Returns whether the caller, a thread with a LIFO slot, must send a searcher. It may stay in
    /// the slot.
    pub(crate) fn send_searcher_in_slot(&mut self, thread: ThreadId, ready: usize) -> bool {
        let (searcher, sends) = match self.searcher {
            // The new searcher pushes the one in the slot out.
            Searcher::InSlot(other) if other == thread => {
                let pushes = ready > 1 && self.pushes.may_push(ready);
                let pushed = Searcher::OnTheWayAndInSlot { count: 1, thread };
                (if pushes { pushed } else { self.searcher }, pushes)
            }
            Searcher::None | Searcher::InSlot(_) => (Searcher::InSlot(thread), true),
            Searcher::OnTheWayAndInSlot {
                count,
                thread: slot,
            } if slot == thread && count + 1 < ready.min(FIRST) => {
                let count = count + 1;
                (Searcher::OnTheWayAndInSlot { count, thread }, true)
            }
            searcher => (searcher, false),
        };
        self.searcher = searcher;
        sends
    }

    /// Decides how a worker that yields, and has no job, is scheduled again.
    pub(crate) fn yields(&mut self) -> Yielded {
        match self.searcher {
            Searcher::None => {
                self.searcher = Searcher::OnTheWay;
                Yielded::AsSearcher
            }
            Searcher::BacksOff | Searcher::InSlot(_) => Yielded::AsWorker,
            Searcher::OnTheWay | Searcher::OnTheWayAndInSlot { .. } | Searcher::TakesOver => {
                self.searcher = Searcher::TakesOver;
                Yielded::Leaves
            }
        }
    }

    /// Returns whether the searcher may back off and leave the jobs to the other workers. It may
    /// not if a worker has left because the searcher was on its way.
    pub(crate) fn hold_searcher_back(&mut self) -> bool {
        let may = self.searcher != Searcher::TakesOver;
        if may {
            self.searcher = Searcher::BacksOff;
        }
        may
    }

    /// Returns whether the searcher takes over from a worker that has yielded. Returns true only
    /// once.
    pub(crate) fn takes_over(&mut self) -> bool {
        let takes_over = self.searcher == Searcher::TakesOver;
        if takes_over {
            self.searcher = Searcher::OnTheWay;
        }
        takes_over
    }

    /// Notes that a searcher has looked for a job, or was dropped.
    pub(crate) fn search_done(&mut self) {
        self.searcher = match self.searcher {
            Searcher::OnTheWayAndInSlot { count: 1, thread } => Searcher::InSlot(thread),
            Searcher::OnTheWayAndInSlot { count, thread } => {
                let count = count - 1;
                Searcher::OnTheWayAndInSlot { count, thread }
            }
            _ => Searcher::None,
        };
    }
}
