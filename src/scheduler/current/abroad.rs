//! What a job waits for in other schedulers, and the tasks on whose behalf it waits.

use super::{CurrentJob, Polled, how_polled};
use crate::scheduler::permits::lending::{
    ActsFor, Claimant, Edge, Lasts, LenderId, Lending, Target, all_asked, all_awaiters,
};
use crate::sync::Arc;

/// What a job waits for in other schedulers, and what it starts when its poll has ended.
#[derive(Default)]
pub(super) struct Abroad {
    /// The edges that were pending in this poll.
    pub(super) pending: Vec<Edge>,
    /// The edges of the last poll, as the schedulers know them.
    pub(super) edges: Vec<Edge>,
    /// The tasks on whose behalf the job waited. It is polled only with their permits.
    pub(super) acts_for: Vec<ActsFor>,
    /// Starts of jobs with permits under which this poll runs.
    pub(super) deferred: Vec<Deferred>,
}

/// The start of a job that waits until a poll has ended. It must not unwind.
pub(crate) type Deferred = Box<dyn FnOnce() + Send>;

impl Abroad {
    /// Finds the tasks on whose behalf the job waited: the nearest ones of each scheduler. Gives up
    /// the permits of tasks that were found before and are not found any more.
    pub(super) fn find_tasks(&mut self, scheduler: &dyn Lending, claimant: Claimant) {
        let before = std::mem::take(&mut self.acts_for);
        if !self.edges.is_empty() {
            let awaits = |id| self.edges.iter().any(|edge| edge.target.scheduler == id);
            for task in all_awaiters(scheduler, awaits) {
                let id = task.scheduler.id();
                // One permit of each scheduler is enough, even if several of its tasks wait for
                // this job.
                let is_known = self.acts_for.iter().any(|it| it.scheduler.id() == id);
                if awaits(id) && !is_known {
                    self.acts_for.push(task);
                }
            }
        }
        for task in before {
            let is_it =
                |it: &ActsFor| it.lender == task.lender && it.scheduler.id() == task.scheduler.id();
            if !self.acts_for.iter().any(is_it) {
                task.abandon(claimant);
            }
        }
    }

    /// Informs the schedulers of the edges that have changed since the last poll.
    pub(super) fn publish(&mut self, scheduler: &Arc<dyn Lending>, lender: LenderId) {
        let mut edges = std::mem::take(&mut self.pending);
        let before = std::mem::take(&mut self.edges);
        let had: Vec<Target> = before.iter().map(|edge| edge.target).collect();
        let mut ended = Vec::new();
        for edge in before {
            let lasts = edge.lasts == Lasts::TheJob && edge.scheduler.strong_count() > 0;
            match edges.iter_mut().find(|it| it.target == edge.target) {
                Some(again) if lasts => again.lasts = Lasts::TheJob,
                Some(_) => {}
                None if lasts => edges.push(edge),
                None => ended.push(edge),
            }
        }
        self.edges = edges;
        let begun = self.edges.iter().filter(|edge| !had.contains(&edge.target));
        let begun: Vec<&Edge> = begun.collect();
        if ended.is_empty() && begun.is_empty() {
            return;
        }
        scheduler.read(&mut |permits| {
            for edge in &ended {
                permits.end_abroad(lender, edge.target);
            }
            for edge in &begun {
                permits.begin_abroad(lender, edge);
            }
        });
        let me = |edge: &Edge| (scheduler.id(), lender, edge.target.part);
        for edge in &ended {
            if let Some(other) = edge.scheduler.upgrade() {
                other.read(&mut |permits| permits.remove_awaiter(me(edge)));
            }
        }
        for edge in begun {
            if let Some(other) = edge.scheduler.upgrade() {
                other.read(&mut |permits| permits.add_awaiter(me(edge), Arc::downgrade(scheduler)));
            }
        }
    }

    /// Lends the permits of tasks that wait for their own scheduler because of what this job waits
    /// for. These may be its own task, and tasks that wait for its scheduler.
    pub(super) fn lend(&self, scheduler: &Arc<dyn Lending>, lender: LenderId) {
        let edges = self.edges.iter();
        let asked = all_asked(
            edges
                .map(|it| (it.target.part, it.scheduler.clone()))
                .collect(),
        );
        let own = ActsFor {
            scheduler: scheduler.clone(),
            lender,
        };
        let awaiters = all_awaiters(&**scheduler, |_| false);
        for task in awaiters.into_iter().chain([own]) {
            if asked.contains(&task.scheduler.id()) {
                task.lend();
            }
        }
    }
}

impl CurrentJob {
    /// Notes that the job waits for another scheduler. A blocking closure has no end of a poll, so
    /// the schedulers are informed at once.
    pub(super) fn wait_for(&mut self, edge: Edge) {
        let abroad = self.abroad.get_or_insert_default();
        let known = abroad
            .pending
            .iter_mut()
            .find(|it| it.target == edge.target);
        match known {
            Some(known) if edge.lasts == Lasts::ThisPoll || known.lasts == edge.lasts => return,
            Some(known) => *known = edge,
            None => abroad.pending.push(edge),
        }
        if how_polled() == Polled::Blocking {
            let lender = self.register_lender();
            if let Some(abroad) = &mut self.abroad {
                abroad.publish(&self.scheduler, lender);
                abroad.lend(&self.scheduler, lender);
            }
        }
    }

    /// Takes the starts that wait for the end of the poll. Returns `None` if there are none.
    pub(super) fn take_deferred(&mut self) -> Option<Vec<Deferred>> {
        let deferred = std::mem::take(&mut self.abroad.as_mut()?.deferred);
        (!deferred.is_empty()).then_some(deferred)
    }

    /// Removes the edges to other schedulers. Returns the tasks on whose behalf the job waited.
    pub(super) fn leave_abroad(&mut self) -> Vec<ActsFor> {
        let Some(mut abroad) = self.abroad.take() else {
            return Vec::new();
        };
        if let Some(lender) = self.lender {
            for edge in abroad.edges.drain(..) {
                let me = (self.scheduler.id(), lender, edge.target.part);
                if let Some(other) = edge.scheduler.upgrade() {
                    other.read(&mut |permits| permits.remove_awaiter(me));
                }
            }
        }
        abroad.acts_for
    }
}
