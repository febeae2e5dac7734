//! Which tasks have lent their permit, and what they wait for.
//!
//! A task that waits for a permit of its own group, or for a task of its own group, could wait for
//! ever if it kept its permit meanwhile. So it lends the permit, and is not polled again before it
//! has one.
//!
//! ```text
//!            its poll ends, and it              it is woken            a permit is free
//!     Held ──── waits for its ───► Lent ─────── or what it ─► Claimed ─── (claims come ───► Held
//!               own group                       awaits is              before queued
//!                                               decided                tasks)
//! ```
//!
//! # Invariants
//!
//! 1. A job *waits for* a scheduler if an awaitable of that scheduler (an admission, a handle, the end of a
//!    group or of a fan-out) was pending in the job's last poll. If it was polled through another
//!    waker than the job's own, the job waits until the awaitable is decided or dropped: a list of
//!    futures polls a member only when that member was woken.
//! 2. A task lends when it waits for its own scheduler: directly, or because it waits for a scheduler of
//!    which a job does, to any depth. Each scheduler knows what its jobs wait for (`abroad`) and which
//!    jobs wait for it (`awaiters`). A job that begins to wait writes that down first, and looks
//!    for tasks that now wait for their own scheduler afterwards; so of two that begin at the same time
//!    the later one sees both.
//! 3. A job is polled only while its task has its permit, and so is a job of another scheduler that
//!    waited for this one on the task's behalf. It *reserves* the permit first. A permit that is
//!    reserved, or under which a poll is running, is not lent. So a permit that is granted leads to
//!    a poll, and the limit holds however tasks wait.
//! 4. To lend too often does no harm but for the time that it takes: whatever wakes the task claims
//!    the permit back. So a task may be taken for one that waits when it does not any more, but
//!    never the other way round.
//! 5. Something that is decided claims the permit at that moment, or a queued task would get it
//!    before the task is polled.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use super::effects::Wakers;
use super::permits::Permits;
use super::source::Lending;
use crate::sync::{Arc, Weak};

/// Names a job that waits, within its scheduler; never used twice, so that a stale one finds nothing.
pub(crate) type LenderId = u64;
/// Names a scheduler while it lives: its address.
pub(crate) type SchedulerId = usize;

/// Names what reserves or claims the permit of a task: the task itself, or a job of another scheduler.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claimant {
    Task,
    Job(SchedulerId, LenderId),
    /// One of the awaitables of a blocking closure.
    Blocking(u64),
}

/// The permit of a task, and what is known of its waiting.
pub(crate) struct Lender {
    permit: TaskPermit,
    /// The polls that run under the permit: the task's own, and those of jobs that act for it.
    polls: usize,
    /// Those that have the permit for their next poll, which they have been woken for.
    reserved: BTreeSet<Claimant>,
    /// Those that are woken when the permit is back.
    claimants: BTreeMap<Claimant, Waker>,
    /// Whether the task's last poll ended while it waited for its own scheduler.
    waits: bool,
    /// How many undecided awaitables of its own scheduler the task has polled through a list's waker.
    listed: usize,
    /// Something was decided during the task's poll, and has woken it: it does not wait.
    is_woken: bool,
    /// The task's own waker, for what is decided in a list.
    waker: Option<Waker>,
    /// What it waits for in other schedulers.
    abroad: Vec<Target>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskPermit {
    Held,
    Lent,
    /// With its number among the claims.
    Claimed(u64),
}

impl Lender {
    fn new(polls: usize) -> Lender {
        Lender {
            permit: TaskPermit::Held,
            polls,
            reserved: BTreeSet::new(),
            claimants: BTreeMap::new(),
            waits: false,
            listed: 0,
            is_woken: false,
            waker: None,
            abroad: Vec::new(),
        }
    }
}

/// The claims on lent permits, oldest first, and the tasks that they are for.
pub(crate) struct Lenders {
    tasks: BTreeMap<LenderId, Lender>,
    next: LenderId,
    /// A map, so that any of many claims can be withdrawn without a search.
    claims: BTreeMap<u64, LenderId>,
    next_claim: u64,
    /// What jobs of this scheduler wait for, apart from this scheduler; and how many.
    abroad: BTreeMap<Target, (usize, Weak<dyn Lending>)>,
    /// The jobs of other schedulers that wait for this one.
    awaiters: BTreeMap<Awaiter, Weak<dyn Lending>>,
}

impl Lenders {
    pub(crate) const fn new() -> Lenders {
        Lenders {
            tasks: BTreeMap::new(),
            next: 0,
            claims: BTreeMap::new(),
            next_claim: 0,
            abroad: BTreeMap::new(),
            awaiters: BTreeMap::new(),
        }
    }

    pub(crate) fn has_claims(&self) -> bool {
        !self.claims.is_empty()
    }
}

/// How a task awaits something that it lends its permit for.
#[derive(Clone, Copy)]
pub(crate) struct Lent {
    pub(crate) lender: LenderId,
    /// Whether it was polled with the task's own waker, so that waking that leads to a poll.
    pub(crate) through: Through,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through {
    OwnWaker,
    List,
}

/// What is woken by a decision; with the task of the same group that awaits it, if one does.
pub(crate) struct Waiter {
    pub(crate) waker: Waker,
    pub(crate) lent: Option<Lent>,
}

/// One task.
impl Permits {
    /// Names a job that begins to wait: one in the midst of a poll.
    pub(crate) fn register_lender(&mut self) -> LenderId {
        self.insert_lender(Lender::new(1))
    }

    /// Names a blocking closure, which no poll belongs to.
    pub(crate) fn register_blocking_lender(&mut self) -> LenderId {
        self.insert_lender(Lender::new(0))
    }

    fn insert_lender(&mut self, lender: Lender) -> LenderId {
        let lenders = &mut self.lenders;
        lenders.next += 1;
        lenders.tasks.insert(lenders.next, lender);
        lenders.next
    }

    /// A number for a claimant of its own.
    pub(crate) fn claimant(&mut self) -> Claimant {
        self.lenders.next += 1;
        Claimant::Blocking(self.lenders.next)
    }

    /// Reserves the permit of a task for the next poll of `claimant`. If it has been lent, claims
    /// it, and `waker` is woken when it is back.
    pub(crate) fn reserve(
        &mut self,
        id: LenderId,
        claimant: Claimant,
        waker: Waker,
        unneeded: &mut Wakers,
    ) -> bool {
        let may_take = self.running < self.limit.max(1) && !self.lenders.has_claims();
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            unneeded.push(waker);
            return true;
        };
        if lender.permit == TaskPermit::Lent && may_take {
            lender.permit = TaskPermit::Held;
            self.running += 1;
        }
        if lender.permit == TaskPermit::Held {
            lender.reserved.insert(claimant);
            unneeded.push(waker);
            return true;
        }
        unneeded.extend(lender.claimants.insert(claimant, waker));
        self.claim(id);
        false
    }

    /// The poll begins for which the permit was reserved.
    pub(crate) fn begin_poll(&mut self, id: LenderId, claimant: Claimant) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.reserved.remove(&claimant);
            lender.polls += 1;
            if claimant == Claimant::Task {
                lender.is_woken = false;
            }
        }
    }

    /// A poll of the task itself has ended, and it is pending. Says whether the permit became free.
    pub(crate) fn end_own_poll(&mut self, id: LenderId, waits: bool, waker: &Waker) -> bool {
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            return false;
        };
        lender.polls -= 1;
        lender.waits = waits;
        if lender.listed > 0 && !lender.waker.as_ref().is_some_and(|it| it.will_wake(waker)) {
            // A worker's: no user code.
            lender.waker = Some(waker.clone());
        }
        self.lend_if_waiting(id)
    }

    /// A poll of a job that acts for the task has ended. Says whether the permit became free.
    pub(crate) fn end_poll_for(&mut self, id: LenderId) -> bool {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.polls -= 1;
        }
        self.lend_if_waiting(id)
    }

    fn lend_if_waiting(&mut self, id: LenderId) -> bool {
        let lender = self.lenders.tasks.get(&id);
        lender.is_some_and(|lender| lender.waits || lender.listed > 0) && self.lend(id)
    }

    /// Lends the permit of a task that waits for its own scheduler, unless a poll needs it. Says whether
    /// it became free.
    pub(crate) fn lend(&mut self, id: LenderId) -> bool {
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            return false;
        };
        let lends = self.lends
            && lender.permit == TaskPermit::Held
            && lender.polls == 0
            && lender.reserved.is_empty()
            && !lender.is_woken;
        if lends {
            lender.permit = TaskPermit::Lent;
            self.running -= 1;
        }
        lends
    }

    /// A claimant has gone without a poll. Says whether the permit became free.
    pub(crate) fn abandon(
        &mut self,
        id: LenderId,
        claimant: Claimant,
        unneeded: &mut Wakers,
    ) -> bool {
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            return false;
        };
        lender.reserved.remove(&claimant);
        unneeded.extend(lender.claimants.remove(&claimant));
        if lender.claimants.is_empty() {
            if let TaskPermit::Claimed(claim) = lender.permit {
                lender.permit = TaskPermit::Lent;
                self.lenders.claims.remove(&claim);
            }
        }
        self.lend_if_waiting(id)
    }

    /// The task awaits another awaitable through a list's waker.
    pub(crate) fn list(&mut self, id: LenderId) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.listed += 1;
        }
    }

    /// One of those was dropped, or went on to another task.
    pub(crate) fn unlist(&mut self, id: LenderId) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.listed -= 1;
        }
    }

    /// Tells a waiter that what it awaits has been decided: wakes it, or claims its permit first.
    pub(crate) fn decide(&mut self, waiter: Waiter, wake: &mut Wakers) {
        let Waiter { waker, lent } = waiter;
        let lender = lent.and_then(|lent| {
            let lender = self.lenders.tasks.get_mut(&lent.lender)?;
            Some((lent, lender))
        });
        let Some((
            Lent {
                lender: id,
                through,
            },
            lender,
        )) = lender
        else {
            wake.push(waker);
            return;
        };
        let is_held = lender.permit == TaskPermit::Held;
        let own = match through {
            // The list has to know which of its members was woken; and the task is polled when it
            // has its permit, even if the list is not there any more.
            Through::List => {
                lender.listed -= 1;
                wake.push(waker);
                lender.waker.take()
            }
            Through::OwnWaker if is_held => {
                lender.is_woken = true;
                wake.push(waker);
                None
            }
            Through::OwnWaker => Some(waker),
        };
        if let Some(own) = own.filter(|_| !is_held) {
            wake.extend(lender.claimants.insert(Claimant::Task, own));
            self.claim(id);
        }
    }

    /// Enters a claim for a permit that has been lent.
    fn claim(&mut self, id: LenderId) {
        let lenders = &mut self.lenders;
        if let Some(
            lender @ Lender {
                permit: TaskPermit::Lent,
                ..
            },
        ) = lenders.tasks.get_mut(&id)
        {
            lender.permit = TaskPermit::Claimed(lenders.next_claim);
            lenders.claims.insert(lenders.next_claim, id);
            lenders.next_claim += 1;
        }
    }

    /// Gives free permits to those that claim theirs back, oldest claim first.
    pub(crate) fn grant(&mut self, wake: &mut Wakers) {
        // A pause keeps what has not started from starting, and lets what has go on, one at a time.
        while self.running < self.limit.max(1) {
            let Some((_, id)) = self.lenders.claims.pop_first() else {
                return;
            };
            if let Some(lender) = self.lenders.tasks.get_mut(&id) {
                lender.permit = TaskPermit::Held;
                self.running += 1;
                for (claimant, waker) in std::mem::take(&mut lender.claimants) {
                    lender.reserved.insert(claimant);
                    wake.push(waker);
                }
            }
        }
    }

    /// Takes back the permit of a task that has ended.
    pub(crate) fn release(&mut self, lender: Option<LenderId>, unneeded: &mut Wakers) {
        match lender.and_then(|id| self.forget(id, unneeded)) {
            None | Some(TaskPermit::Held) => self.running -= 1,
            Some(TaskPermit::Lent) => {}
            Some(TaskPermit::Claimed(claim)) => _ = self.lenders.claims.remove(&claim),
        }
    }

    /// Forgets a job that has waited, and has its permit.
    pub(crate) fn forget_waits(&mut self, id: LenderId, unneeded: &mut Wakers) {
        self.forget(id, unneeded);
    }

    fn forget(&mut self, id: LenderId, unneeded: &mut Wakers) -> Option<TaskPermit> {
        let lender = self.lenders.tasks.remove(&id)?;
        unneeded.extend(lender.claimants.into_values());
        unneeded.extend(lender.waker);
        for scheduler in lender.abroad {
            self.count_out_abroad(scheduler);
        }
        Some(lender.permit)
    }
}

/// Blocking closures: nothing polls them, so a pending poll inside lends at once.
impl Permits {
    /// The permit was reserved, and the closure goes on.
    pub(crate) fn take_reserved(&mut self, id: LenderId, claimant: Claimant) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.reserved.remove(&claimant);
        }
    }

    /// The closure gave up what it awaited, and goes on at once: it cannot be made to wait. It has
    /// its permit again, over the limit if need be.
    pub(crate) fn retake(&mut self, id: LenderId, claimant: Claimant, unneeded: &mut Wakers) {
        self.abandon(id, claimant, unneeded);
        let Some(lender) = self.lenders.tasks.get_mut(&id) else {
            return;
        };
        if let TaskPermit::Claimed(claim) = lender.permit {
            self.lenders.claims.remove(&claim);
        }
        if lender.permit != TaskPermit::Held {
            lender.permit = TaskPermit::Held;
            self.running += 1;
            // Other awaitables of the closure may claim it.
            unneeded.extend(std::mem::take(&mut lender.claimants).into_values());
        }
    }
}

/// What jobs wait for in other schedulers.
impl Permits {
    /// A job of this scheduler begins to wait for another one.
    pub(crate) fn begin_abroad(&mut self, id: LenderId, edge: &Edge) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.abroad.push(edge.target);
            let entry = self.lenders.abroad.entry(edge.target);
            entry.or_insert_with(|| (0, edge.scheduler.clone())).0 += 1;
        }
    }

    pub(crate) fn end_abroad(&mut self, id: LenderId, target: Target) {
        if let Some(lender) = self.lenders.tasks.get_mut(&id) {
            lender.abroad.retain(|it| *it != target);
            self.count_out_abroad(target);
        }
    }

    fn count_out_abroad(&mut self, target: Target) {
        if let Some((count, _)) = self.lenders.abroad.get_mut(&target) {
            *count -= 1;
            if *count == 0 {
                self.lenders.abroad.remove(&target);
            }
        }
    }

    /// What one job of this scheduler waits for in other schedulers.
    fn awaited_by(&self, id: LenderId) -> Vec<(Part, Weak<dyn Lending>)> {
        let lenders = &self.lenders;
        let targets = lenders.tasks.get(&id).map(|lender| &lender.abroad);
        let awaited = targets.into_iter().flatten().filter_map(|target| {
            let (_, scheduler) = lenders.abroad.get(target)?;
            Some((target.part, scheduler.clone()))
        });
        awaited.collect()
    }

    /// What the jobs of this scheduler wait for in other schedulers.
    fn awaited(&self) -> Vec<(Part, Weak<dyn Lending>)> {
        let awaited = self.lenders.abroad.iter();
        awaited
            .map(|(target, (_, scheduler))| (target.part, scheduler.clone()))
            .collect()
    }

    /// A job of another scheduler begins to wait for this one.
    pub(crate) fn add_awaiter(&mut self, awaiter: Awaiter, scheduler: Weak<dyn Lending>) {
        self.lenders.awaiters.insert(awaiter, scheduler);
    }

    pub(crate) fn remove_awaiter(&mut self, awaiter: Awaiter) {
        self.lenders.awaiters.remove(&awaiter);
    }

    pub(crate) fn has_awaiters(&self) -> bool {
        !self.lenders.awaiters.is_empty()
    }
}

/// A scheduler that a job of another one waits for.
pub(crate) struct Edge {
    pub(crate) target: Target,
    pub(crate) scheduler: Weak<dyn Lending>,
    pub(crate) lasts: Lasts,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) scheduler: SchedulerId,
    pub(crate) part: Part,
}

/// What a job waits for in a scheduler.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The end of one of its jobs, or a permit: it may not come before another job lends.
    One,
    /// The end of all its jobs. None of them lends for that: it would wait for itself.
    All,
}

/// A job that waits for a scheduler: whose it is, its name there, and what it waits for.
pub(crate) type Awaiter = (SchedulerId, LenderId, Part);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// Until the job is polled again.
    ThisPoll,
    /// As long as the job.
    TheJob,
}

/// A task that a job acts for.
pub(crate) struct ActsFor {
    pub(crate) scheduler: Arc<dyn Lending>,
    pub(crate) lender: LenderId,
}

impl ActsFor {
    /// The task waits for its own scheduler, and lends if no poll needs its permit.
    pub(crate) fn lend(&self) {
        let id = self.lender;
        self.scheduler
            .clone()
            .update(&mut |permits, _| permits.lend(id));
    }

    /// Lends the permit of a task that waits for its own scheduler through another one.
    pub(crate) fn lend_if_waiting_abroad(&self) {
        let mut awaited = Vec::new();
        self.scheduler
            .read(&mut |permits| awaited = permits.awaited_by(self.lender));
        if !awaited.is_empty() && all_asked(awaited).contains(&self.scheduler.id()) {
            self.lend();
        }
    }

    /// Ends a poll under its permit, and lends it if the task waits.
    pub(crate) fn end_poll(&self) {
        self.free(&mut |permits, _| permits.end_poll_for(self.lender));
    }

    /// The claimant has gone without a poll.
    pub(crate) fn abandon(&self, claimant: Claimant) {
        self.free(&mut |permits, unneeded| permits.abandon(self.lender, claimant, unneeded));
    }

    fn free(&self, section: &mut dyn FnMut(&mut Permits, &mut Wakers) -> bool) {
        let mut lent = false;
        self.scheduler.clone().update(&mut |permits, unneeded| {
            lent = section(permits, unneeded);
            lent
        });
        if !lent {
            self.lend_if_waiting_abroad();
        }
    }
}

/// Every scheduler of which a job or a permit is waited for, to any depth.
pub(crate) fn all_asked(from: Vec<(Part, Weak<dyn Lending>)>) -> BTreeSet<SchedulerId> {
    let (mut asked, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut next = from;
    // Ends: each scheduler is looked at once.
    while let Some((part, scheduler)) = next.pop() {
        let Some(scheduler) = scheduler.upgrade() else {
            continue;
        };
        if part == Part::One {
            asked.insert(scheduler.id());
        }
        if seen.insert(scheduler.id()) {
            scheduler.read(&mut |permits| next.append(&mut permits.awaited()));
        }
    }
    asked
}

/// Every task that waits for `scheduler`, to any depth. What waits for tasks of a scheduler for which `stops`
/// holds is left out.
pub(crate) fn all_awaiters(
    scheduler: &dyn Lending,
    stops: impl Fn(SchedulerId) -> bool,
) -> Vec<ActsFor> {
    let awaiters_of = |scheduler: &dyn Lending| {
        let mut awaiters = Vec::new();
        scheduler.read(&mut |permits| {
            let all = permits.lenders.awaiters.iter();
            awaiters.extend(all.map(|((_, lender, _), scheduler)| (*lender, scheduler.clone())));
        });
        awaiters.into_iter().filter_map(|(lender, scheduler)| {
            let scheduler = scheduler.upgrade()?;
            Some(ActsFor { scheduler, lender })
        })
    };
    let mut seen = BTreeSet::from([scheduler.id()]);
    let mut found: Vec<_> = awaiters_of(scheduler).collect();
    let mut at = 0;
    // Ends: each scheduler is looked at once.
    while let Some(scheduler) = found.get(at).map(|task| task.scheduler.clone()) {
        if seen.insert(scheduler.id()) && !stops(scheduler.id()) {
            found.extend(awaiters_of(&*scheduler));
        }
        at += 1;
    }
    found
}
