//! The admission scheduler: how many tasks may run, who is next, and who has lent its turn.
//!
//! It is bookkeeping only: no futures, no user code, no lock of its own. It stands in the state that
//! [`Scheduler`](super::Scheduler) guards with one lock, and everything that is bounded in this crate (a group's limit, an
//! awaited `go`, a fan-out) goes through it.
//!
//! ```text
//!                    limit = 3
//!     permits      ┌───┬───┬───┐        a permit is the right to run
//!     out: 3       │ A │ B │ C │
//!                  └─▲─┴───┴─┬─┘
//!     claims    L ───┘       │ lends: its task awaits an admission
//!     (lenders that want     ▼
//!      theirs back)          waits with its turn lent, and claims it
//!                            when what it awaited has been decided
//!     queue     q1, q2, …    started first in, first out, behind the claims
//! ```
//!
//! # Invariants
//!
//! 1. `running` is the number of permits out: one for each task that has started, has not ended and has not lent it.
//! 2. `running <= limit` at every moment a permit is handed out. It may be above after the limit was
//!    lowered (which stops no task), and after a blocking closure gave up what it awaited (nothing can
//!    hold it back).
//! 3. No permit is handed out while a claim waits: lenders come before whatever has not started.
//! 4. Which tasks have lent their permit, and how they claim it back: see
//!    [`lending`](super::lending).
//! 5. A *searcher* is a worker that was spawned or woken and is not yet at the counter. Whenever
//!    something could start, there is a searcher or a worker in its turn that will look again. At most
//!    one searcher at a time can be taken by any thread, and the others wait in LIFO slots (see
//!    [`Searcher`]); so one task that blocks its thread cannot keep the next from starting on another.
//!    A searcher may come and go (see [`backoff`](super::backoff)), but not once a worker has left
//!    because of it.

use std::thread::ThreadId;
use std::time::Duration;

use super::lending::Lenders;
use crate::sync::PollClock;

pub(crate) struct Permits {
    pub(crate) limit: usize,
    pub(crate) running: usize,
    pub(crate) lenders: Lenders,
    /// Whether tasks may wait for permits or tasks of their own scheduler. Items of a fan-out do not.
    pub(crate) lends: bool,
    searcher: Searcher,
    pushes: Pushes,
}

/// Where the searcher is, if there is one.
///
/// A searcher that a thread spawns last waits in that thread's LIFO slot, where no other thread finds
/// it. A worker that may run user code next pushes it out at once (`flush_lifo_slot`), which costs
/// another spawn. A `go` leaves it there, as `tokio::spawn` leaves a task there, and the next `go`
/// sends a second one: on the same thread, that pushes the first one out. So the first tasks of a
/// group have a searcher each, and the last of them may wait until its starter yields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Searcher {
    None,
    /// In the LIFO slot of that thread, as far as is known.
    InSlot(ThreadId),
    /// As many that any thread can take, and one in the slot of that thread.
    OnTheWayAndInSlot {
        count: usize,
        thread: ThreadId,
    },
    /// Any thread can take it.
    OnTheWay,
    /// It has come, and gone again, and so on until it is needed: a worker is at work that comes again.
    BacksOff,
    /// A worker has left because it is on its way.
    TakesOver,
}

/// How many tasks that are started together have a searcher each.
const FIRST: usize = 3;

/// How often a `go` has pushed a searcher out of the LIFO slot of its thread, to wake another thread.
///
/// The first tasks that are started together each get a thread that is idle. A loop that starts
/// tasks one right behind the other would mostly pay for waking a thread that finds one task, so it
/// is held back for a while, or until there are several.
struct Pushes {
    count: usize,
    last: Option<PollClock>,
}

impl Pushes {
    /// How many come one behind the other.
    const MOST: usize = 3;
    /// With as many jobs ready, another one comes in any case.
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
            lenders: Lenders::new(),
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

    /// The caller hands out what has become free.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether `take` would give one.
    pub(crate) fn is_free(&self) -> bool {
        self.running < self.limit && !self.lenders.has_claims()
    }

    pub(crate) fn take(&mut self) -> bool {
        let free = self.is_free();
        self.running += usize::from(free);
        free
    }
}

/// Searchers.
impl Permits {
    /// Whether the caller must send one that any thread can take, where `ready` jobs wait for a worker.
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

    /// Whether `send_searcher_in_slot` may be of use, for a caller that does not know its thread yet.
    pub(crate) fn may_need_searcher(&self, ready: usize) -> bool {
        match self.searcher {
            Searcher::None | Searcher::InSlot(_) => true,
            Searcher::OnTheWayAndInSlot { count, .. } => count + 1 < ready.min(FIRST),
            Searcher::OnTheWay | Searcher::BacksOff | Searcher::TakesOver => false,
        }
    }

    /// Whether the caller, a thread with a LIFO slot, must send one, which may stay in the slot.
    pub(crate) fn send_searcher_in_slot(&mut self, thread: ThreadId, ready: usize) -> bool {
        let (searcher, sends) = match self.searcher {
            // This one pushes that one out.
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

    /// Decides that for a worker that holds nothing.
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

    /// Whether the searcher may go again and leave the work to those who are there: nobody has left it to the searcher.
    pub(crate) fn hold_searcher_back(&mut self) -> bool {
        let may = self.searcher != Searcher::TakesOver;
        if may {
            self.searcher = Searcher::BacksOff;
        }
        may
    }

    /// Whether the searcher takes over from a worker that has yielded; once.
    pub(crate) fn takes_over(&mut self) -> bool {
        let takes_over = self.searcher == Searcher::TakesOver;
        if takes_over {
            self.searcher = Searcher::OnTheWay;
        }
        takes_over
    }

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
