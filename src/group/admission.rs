//! The admission core: how many tasks may run, who is next, and who has lent its turn.
//!
//! It is bookkeeping only: no futures, no user code, no lock of its own. It stands in the state that
//! [`Core`](super::core::Core) guards with one lock, and everything that is bounded in this crate (a group's limit, an
//! awaited `go`, a fan-out) goes through it.
//!
//! ```text
//!                    limit = 3
//!     tickets      ┌───┬───┬───┐        a ticket is the right to run
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
//! 1. `running` is the number of tickets out: one for each task that has started, has not ended and has not lent it.
//! 2. `running <= limit` at every moment a ticket is handed out. It may be above after the limit was lowered (nobody is
//!    stopped), and after a lending task gave up what it awaited (it goes on at once).
//! 3. No ticket is handed out while a claim waits: lenders come before whatever has not started.
//! 4. A lender's ticket is `Held`, `Lent` or `Claimed`; it is counted in `running` exactly when
//!    `Held`, and is in `claims`, under the number that it keeps, exactly when `Claimed`.
//! 5. What a lender awaits is `pending` until it has been decided, then `decided` until the task has seen it. A lender for
//!    which something is decided claims at that moment, not at its next poll, or a queued task would slip in between.
//!    What it has been polled with and left lying does not keep it from lending again (`fresh`). What the items of a
//!    fan-out await that the task awaits, it awaits (see [`current`](super::current)).
//! 6. A *scout* is a place that was spawned or woken and is not yet at the counter. Whenever
//!    something could start, there is a scout or a place in its turn that will look again. At most
//!    one scout at a time can be taken by any thread, and the others wait in LIFO slots (see
//!    [`Scout`]); so one task that blocks its thread cannot keep the next from starting on another.
//!    A scout may come and go (see [`glance`](super::glance)), but not once a place has left
//!    because of it.

use std::collections::BTreeMap;
use std::task::Waker;
use std::thread::ThreadId;
use std::time::Duration;

use crate::sync::PollClock;

/// Names a task that has lent its ticket at least once; never used twice, so that a stale one finds nothing.
pub(crate) type LenderId = u64;

/// Numbers a claim; the oldest has the lowest number.
type Claim = u64;

pub(crate) struct Tickets {
    limit: usize,
    running: usize,
    /// A map, so that any of many claims can be withdrawn without a search.
    claims: BTreeMap<Claim, LenderId>,
    next_claim: Claim,
    lenders: BTreeMap<LenderId, Lender>,
    next_lender: LenderId,
    scout: Scout,
    pushes: Pushes,
}

/// Where the scout is, if there is one.
///
/// A scout that a thread spawns last waits in that thread's LIFO slot, where no other thread finds
/// it. A place that may run user code next pushes it out at once (`flush_lifo_slot`), which costs
/// another spawn. A `go` leaves it there, as `tokio::spawn` leaves a task there, and the next `go`
/// sends a second one: on the same thread, that pushes the first one out. So the first tasks of a
/// group have a scout each, and the last of them may wait until its starter yields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scout {
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
    /// It has come, and gone again, and so on until it is needed: a place is at work that comes again.
    HangsBack,
    /// A place has left because it is on its way.
    TakesOver,
}

/// How many tasks that are started together have a scout each.
const FIRST: usize = 3;

/// How often a `go` has pushed a scout out of the LIFO slot of its thread, to wake another thread.
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
    /// How long a scout may then stay in the slot of a thread that goes on starting tasks.
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

/// As what a place comes again that has yielded.
pub(crate) enum Yields {
    AsScout,
    AsPlace,
    /// Not at all.
    ToScout,
}

struct Lender {
    ticket: Ticket,
    /// It is being polled itself, and not just acted for.
    polled: bool,
    pending: usize,
    decided: usize,
    /// Something was decided, and the task has not been polled with its ticket since.
    fresh: bool,
    /// To be woken when the ticket is back.
    wakers: Vec<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ticket {
    Held,
    Lent,
    Claimed(Claim),
}

/// Somebody who awaits a decision; with the task that lends meanwhile, if it does so from inside one of the same group.
pub(crate) struct Waiter {
    pub(crate) waker: Waker,
    pub(crate) lender: Option<LenderId>,
}

impl Tickets {
    pub(crate) fn new(limit: usize) -> Tickets {
        Tickets {
            limit,
            running: 0,
            claims: BTreeMap::new(),
            next_claim: 0,
            lenders: BTreeMap::new(),
            next_lender: 0,
            scout: Scout::None,
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
        self.running < self.limit && self.claims.is_empty()
    }

    pub(crate) fn take(&mut self) -> bool {
        let free = self.is_free();
        self.running += usize::from(free);
        free
    }

    /// Takes back the ticket of a task that has ended.
    pub(crate) fn put_back(&mut self, lender: Option<LenderId>, unneeded: &mut Vec<Waker>) {
        let Some(mut lender) = lender.and_then(|id| self.lenders.remove(&id)) else {
            self.running -= 1;
            return;
        };
        unneeded.append(&mut lender.wakers);
        match lender.ticket {
            Ticket::Held => self.running -= 1,
            Ticket::Lent => {}
            Ticket::Claimed(claim) => self.withdraw(claim),
        }
    }

    /// Gives free tickets to those who claim theirs back, oldest claim first.
    pub(crate) fn grant(&mut self, wake: &mut Vec<Waker>) {
        // A pause keeps what has not started from starting, and lets what has go on, one at a time.
        while self.running < self.limit.max(1) {
            let Some((_, id)) = self.claims.pop_first() else {
                return;
            };
            if let Some(lender) = self.lenders.get_mut(&id) {
                lender.ticket = Ticket::Held;
                wake.append(&mut lender.wakers);
                self.running += 1;
            }
        }
    }
}

/// Scouts.
impl Tickets {
    /// Whether the caller must send one that any thread can take, where `ready` jobs wait for a worker.
    pub(crate) fn send_scout(&mut self, ready: usize) -> bool {
        let sends = match self.scout {
            Scout::None => true,
            // A single job may wait until the thread that started it yields.
            Scout::InSlot(_) => ready > 1,
            Scout::OnTheWayAndInSlot { .. }
            | Scout::OnTheWay
            | Scout::HangsBack
            | Scout::TakesOver => false,
        };
        if sends {
            self.scout = Scout::OnTheWay;
        }
        sends
    }

    /// Whether `send_scout_in_slot` may be of use, for a caller that does not know its thread yet.
    pub(crate) fn may_need_scout(&self, ready: usize) -> bool {
        match self.scout {
            Scout::None | Scout::InSlot(_) => true,
            Scout::OnTheWayAndInSlot { count, .. } => count + 1 < ready.min(FIRST),
            Scout::OnTheWay | Scout::HangsBack | Scout::TakesOver => false,
        }
    }

    /// Whether the caller, a thread with a LIFO slot, must send one, which may stay in the slot.
    pub(crate) fn send_scout_in_slot(&mut self, thread: ThreadId, ready: usize) -> bool {
        let (scout, sends) = match self.scout {
            // This one pushes that one out.
            Scout::InSlot(other) if other == thread => {
                let pushes = ready > 1 && self.pushes.may_push(ready);
                let pushed = Scout::OnTheWayAndInSlot { count: 1, thread };
                (if pushes { pushed } else { self.scout }, pushes)
            }
            Scout::None | Scout::InSlot(_) => (Scout::InSlot(thread), true),
            Scout::OnTheWayAndInSlot {
                count,
                thread: slot,
            } if slot == thread && count + 1 < ready.min(FIRST) => {
                let count = count + 1;
                (Scout::OnTheWayAndInSlot { count, thread }, true)
            }
            scout => (scout, false),
        };
        self.scout = scout;
        sends
    }

    /// Who looks again when a place yields that holds nothing.
    pub(crate) fn yields(&mut self) -> Yields {
        match self.scout {
            Scout::None => {
                self.scout = Scout::OnTheWay;
                Yields::AsScout
            }
            Scout::HangsBack | Scout::InSlot(_) => Yields::AsPlace,
            Scout::OnTheWay | Scout::OnTheWayAndInSlot { .. } | Scout::TakesOver => {
                self.scout = Scout::TakesOver;
                Yields::ToScout
            }
        }
    }

    /// Whether the scout may go again and leave the work to those who are there: nobody has left it to the scout.
    pub(crate) fn hold_scout_back(&mut self) -> bool {
        let may = self.scout != Scout::TakesOver;
        if may {
            self.scout = Scout::HangsBack;
        }
        may
    }

    /// Whether the scout takes over from a place that has yielded; once.
    pub(crate) fn takes_over(&mut self) -> bool {
        let takes_over = self.scout == Scout::TakesOver;
        if takes_over {
            self.scout = Scout::OnTheWay;
        }
        takes_over
    }

    pub(crate) fn scout_arrived(&mut self) {
        self.scout = match self.scout {
            Scout::OnTheWayAndInSlot { count: 1, thread } => Scout::InSlot(thread),
            Scout::OnTheWayAndInSlot { count, thread } => {
                let count = count - 1;
                Scout::OnTheWayAndInSlot { count, thread }
            }
            _ => Scout::None,
        };
    }
}

/// Lending.
impl Tickets {
    /// Names the task that is being polled as a lender.
    pub(crate) fn name(&mut self) -> LenderId {
        self.next_lender += 1;
        let lender = Lender {
            ticket: Ticket::Held,
            polled: true,
            pending: 0,
            decided: 0,
            fresh: false,
            wakers: Vec::new(),
        };
        self.lenders.insert(self.next_lender, lender);
        self.next_lender
    }

    /// Notes that a task begins to await something; a first time names it as a lender.
    pub(crate) fn begin_wait(&mut self, id: Option<LenderId>) -> LenderId {
        let id = id.unwrap_or_else(|| self.name());
        if let Some(lender) = self.lenders.get_mut(&id) {
            lender.pending += 1;
        }
        id
    }

    /// The task is about to be polled, itself or what acts for it: with its ticket, it sees what has been decided, if it
    /// wants to.
    pub(crate) fn begin_poll(&mut self, id: LenderId, itself: bool) {
        if let Some(lender) = self.lenders.get_mut(&id) {
            lender.polled |= itself;
            lender.fresh &= lender.ticket != Ticket::Held;
        }
    }

    /// Lends the ticket of a task that was polled, itself or what acts for it, and is pending: unless it is being polled
    /// now, and lends when that poll ends. Says whether it became free.
    pub(crate) fn lend(&mut self, id: LenderId, itself: bool) -> bool {
        let Some(lender) = self.lenders.get_mut(&id) else {
            return false;
        };
        lender.polled &= !itself;
        let waits = lender.pending > 0 && !lender.polled && !lender.fresh;
        let lends = lender.ticket == Ticket::Held && waits;
        if lends {
            lender.ticket = Ticket::Lent;
            self.running -= 1;
        }
        lends
    }

    /// Tells a waiter that what it awaits has been decided: wakes it, or claims its ticket back first.
    pub(crate) fn decide(&mut self, waiter: Waiter, wake: &mut Vec<Waker>) {
        let lender = waiter
            .lender
            .and_then(|id| Some((id, self.lenders.get_mut(&id)?)));
        let Some((id, lender)) = lender else {
            wake.push(waiter.waker);
            return;
        };
        lender.pending -= 1;
        lender.decided += 1;
        lender.fresh = true;
        match lender.ticket {
            Ticket::Held => wake.push(waiter.waker),
            Ticket::Claimed(_) => lender.wakers.push(waiter.waker),
            Ticket::Lent => {
                lender.wakers.push(waiter.waker);
                lender.ticket = Ticket::Claimed(self.next_claim);
                self.claim(id);
            }
        }
    }

    /// Whether a task may go on with what was decided: it has its ticket. If not, `waker` is woken when it has.
    pub(crate) fn resume(&mut self, id: LenderId, waker: &mut Option<Waker>) -> bool {
        let Some(lender) = self.lenders.get_mut(&id) else {
            return true;
        };
        if lender.ticket == Ticket::Held {
            lender.decided -= 1;
            return true;
        }
        let known = |waker: &Waker| lender.wakers.iter().any(|known| known.will_wake(waker));
        if !waker.as_ref().is_some_and(known) {
            lender.wakers.extend(waker.take());
        }
        // Decided before it lent for something else: it is only now that it wants to go on with this.
        if lender.ticket == Ticket::Lent {
            lender.ticket = Ticket::Claimed(self.next_claim);
            lender.fresh = true;
            self.claim(id);
        }
        false
    }

    /// The task has its ticket, and its budget is used up before it could see what was decided: it
    /// does not wait for that, and is polled again at once. So it does not lend for something else
    /// that it awaits.
    pub(crate) fn stay(&mut self, id: LenderId) {
        if let Some(lender) = self.lenders.get_mut(&id) {
            lender.fresh |= lender.decided > 0 && lender.ticket == Ticket::Held;
        }
    }

    /// Notes that a task gave up what it awaited. One that then awaits nothing more goes on at once, and counts again, over
    /// the limit if need be.
    pub(crate) fn give_up(&mut self, id: LenderId, was_decided: bool) {
        let Some(lender) = self.lenders.get_mut(&id) else {
            return;
        };
        match was_decided {
            true => lender.decided -= 1,
            false => lender.pending -= 1,
        }
        lender.fresh &= lender.decided > 0;
        let claim = match lender.ticket {
            Ticket::Held => return,
            Ticket::Claimed(_) if lender.fresh => return,
            Ticket::Claimed(claim) => Some(claim),
            Ticket::Lent => None,
        };
        if lender.pending == 0 {
            lender.ticket = Ticket::Held;
            self.running += 1;
        } else {
            lender.ticket = Ticket::Lent;
        }
        if let Some(claim) = claim {
            self.withdraw(claim);
        }
    }

    /// Enters the claim whose number `id` has been given.
    fn claim(&mut self, id: LenderId) {
        self.claims.insert(self.next_claim, id);
        self.next_claim += 1;
    }

    fn withdraw(&mut self, claim: Claim) {
        self.claims.remove(&claim);
    }
}
