//! Waits for other schedulers, and the search for tasks that wait for their own scheduler through
//! another one (invariant 2 of [`lending`](super)).

use std::collections::BTreeSet;

use super::{Claimant, LenderId, Lending, SchedulerId};
use crate::scheduler::permits::Permits;
use crate::scheduler::wakers::Taken;
use crate::sync::{Arc, Weak};

/// A wait of a job for another scheduler.
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

/// The part of a scheduler that a job waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// One of its jobs, or a permit. That may need another job to lend its permit first.
    One,
    /// All of its jobs. No job of the scheduler lends for that, because it would wait for itself.
    All,
}

/// A job that waits for a scheduler: its own scheduler, its id there, and what it waits for.
pub(crate) type Awaiter = (SchedulerId, LenderId, Part);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// Until the job is polled again.
    ThisPoll,
    /// Until the job has finished.
    TheJob,
}

impl Permits {
    /// Notes that a job of this scheduler begins to wait for another one.
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

    pub(super) fn count_out_abroad(&mut self, target: Target) {
        if let Some((count, _)) = self.lenders.abroad.get_mut(&target) {
            *count -= 1;
            if *count == 0 {
                self.lenders.abroad.remove(&target);
            }
        }
    }

    /// Returns what one job of this scheduler waits for in other schedulers.
    fn awaited_by(&self, id: LenderId) -> Vec<(Part, Weak<dyn Lending>)> {
        let lenders = &self.lenders;
        let targets = lenders.tasks.get(&id).map(|lender| &lender.abroad);
        let awaited = targets.into_iter().flatten().filter_map(|target| {
            let (_, scheduler) = lenders.abroad.get(target)?;
            Some((target.part, scheduler.clone()))
        });
        awaited.collect()
    }

    /// Returns what the jobs of this scheduler wait for in other schedulers.
    fn awaited(&self) -> Vec<(Part, Weak<dyn Lending>)> {
        let awaited = self.lenders.abroad.iter();
        awaited
            .map(|(target, (_, scheduler))| (target.part, scheduler.clone()))
            .collect()
    }

    /// Notes that a job of another scheduler begins to wait for this one.
    pub(crate) fn add_awaiter(&mut self, awaiter: Awaiter, scheduler: Weak<dyn Lending>) {
        self.lenders.awaiters.insert(awaiter, scheduler);
    }

    pub(crate) fn remove_awaiter(&mut self, awaiter: Awaiter) {
        self.lenders.awaiters.remove(&awaiter);
    }

    pub(crate) fn has_awaiters(&self) -> bool {
        !self.lenders.awaiters.is_empty()
    }

    /// Lends the permit of a task that was found by what jobs wait for, unless it does not wait for
    /// another scheduler any more. It may have been polled since.
    fn lend_if_abroad(&mut self, id: LenderId) -> bool {
        let lender = self.lenders.tasks.get(&id);
        lender.is_some_and(|lender| !lender.abroad.is_empty()) && self.lend(id)
    }
}

/// A task on whose behalf a job waits.
pub(crate) struct ActsFor {
    pub(crate) scheduler: Arc<dyn Lending>,
    pub(crate) lender: LenderId,
}

impl ActsFor {
    /// Lends the permit of the task, which was found to wait for its own scheduler through another
    /// one, unless a poll needs it or the task does not wait any more.
    pub(crate) fn lend(&self) {
        let id = self.lender;
        self.scheduler
            .clone()
            .update(&mut |permits, _| permits.lend_if_abroad(id));
    }

    /// Lends the permit of the task if it waits for its own scheduler through another one.
    pub(crate) fn lend_if_waiting_abroad(&self) {
        let mut awaited = Vec::new();
        self.scheduler
            .read(&mut |permits| awaited = permits.awaited_by(self.lender));
        if !awaited.is_empty() && all_asked(awaited).contains(&self.scheduler.id()) {
            self.lend();
        }
    }

    /// Ends a poll under the task's permit, and lends the permit if the task waits.
    pub(crate) fn end_poll(&self) {
        self.free(&mut |permits, _| permits.end_poll_for(self.lender));
    }

    /// Removes a claimant that will not poll.
    pub(crate) fn abandon(&self, claimant: Claimant) {
        self.free(&mut |permits, wakers| permits.abandon(self.lender, claimant, wakers));
    }

    fn free(&self, section: &mut dyn FnMut(&mut Permits, &mut Taken<'_>) -> bool) {
        let mut lent = false;
        self.scheduler.clone().update(&mut |permits, wakers| {
            lent = section(permits, wakers);
            lent
        });
        if !lent {
            self.lend_if_waiting_abroad();
        }
    }
}

/// Returns every scheduler of which one job or a permit is awaited, to any depth.
pub(crate) fn all_asked(from: Vec<(Part, Weak<dyn Lending>)>) -> BTreeSet<SchedulerId> {
    let (mut asked, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut next = from;
    // Ends: each scheduler is visited once.
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

/// Returns every task that waits for `scheduler`, to any depth. Leaves out those that wait for
/// tasks of a scheduler for which `stops` is true.
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
    // Ends: each scheduler is visited once.
    while let Some(scheduler) = found.get(at).map(|task| task.scheduler.clone()) {
        if seen.insert(scheduler.id()) && !stops(scheduler.id()) {
            found.extend(awaiters_of(&*scheduler));
        }
        at += 1;
    }
    found
}
