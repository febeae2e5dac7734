//! Starts tasks that take no permit: background tasks and clean-up tasks.
//!
//! Such a task is in no queue. It starts at once, on a worker of its own, which carries its job
//! (see [`one_job`](super::one_job)). So the workers that share the permits need not know of it.
//!
//! # Invariants
//!
//! 1. A background task is accepted when any task is. A clean-up task is accepted until a wait has
//!    returned or an abort has reached clean-up tasks. Both are decided under the lock, in the
//!    section that counts the task. So a wait that has seen no open task is not followed by one.
//! 2. `State::background` counts the background tasks among the open ones. A task is counted there
//!    when it is counted in `open`, and leaves both when it has ended.
//! 3. While a background task is polled, and while its closure runs, it is on the thread
//!    ([`background`](super::background)), so what it reserves is known as its own.

use tokio::task::AbortHandle;

use super::blocking;
use super::handle::Admission;
use super::permit_wait::PermitWait;
use super::policy::Policy;
use super::queue::{Local, Queue, Queued};
use super::task::{BlockingJob, Entry, LocalId, Task, Work};
use crate::group::error::TryGoError;
use crate::registry::{First, TaskKind};
use crate::scheduler::Scheduler;
use crate::scheduler::effects::Effects;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::Job;
use crate::scheduler::source::HadPermit;
use crate::scheduler::state::State;
use crate::sync::Arc;

impl<E> State<Queue<E>>
where
    E: GroupError,
{
    /// Counts a new task.
    pub(super) fn count_in_task(&mut self, policy: Policy) {
        self.count_in(1);
        self.background += usize::from(policy.is_background());
    }
}

impl<E> Scheduler<Queue<E>>
where
    E: GroupError,
{
    /// Starts a job.
    pub(super) fn submit_without_permit(
        self: &Arc<Self>,
        mut task: Task,
        job: Job<E>,
    ) -> Admission {
        task.open_span(&self.shared.span);
        if !self.begin_without_permit(task.policy) {
            let work = Work::Future(job);
            self.refuse(Queued::Entry(Entry { task, work }));
            return Admission::never_started();
        }
        self.spawn_begun(task, job);
        Admission::started()
    }

    /// Starts the future, or returns it.
    pub(super) fn try_submit_without_permit<F>(
        self: &Arc<Self>,
        mut task: Task,
        future: F,
        into_job: impl FnOnce(F) -> Job<E>,
    ) -> Result<(), TryGoError<F>> {
        if !self.begin_without_permit(task.policy) {
            return Err(TryGoError::Ended(future));
        }
        task.open_span(&self.shared.span);
        self.spawn_begun(task, into_job(future));
        Ok(())
    }

    /// Gives a closure to the blocking pool.
    pub(super) fn submit_blocking_without_permit(
        self: &Arc<Self>,
        mut task: Task,
        job: BlockingJob<E>,
    ) -> Admission {
        task.open_span_of(&self.shared.span, TaskKind::Blocking, First::Starts);
        if !self.begin_without_permit(task.policy) {
            let work = Work::Blocking(job);
            self.refuse(Queued::Entry(Entry { task, work }));
            return Admission::never_started();
        }
        blocking::hand_over(self, task, job, HadPermit::No);
        Admission::started()
    }

    /// Starts a local task, which has been spawned and waits.
    pub(super) fn submit_local_without_permit(
        self: &Arc<Self>,
        policy: Policy,
        wait: Arc<PermitWait>,
        id: LocalId,
        abort: AbortHandle,
    ) -> Admission {
        let ended = self.ctx().is_done();
        let is_accepted = self.with_effects(|state, effects| {
            let is_accepted = self.begin(policy, ended, state, effects);
            if is_accepted {
                let is_cleanup = policy.is_cleanup();
                state.source.locals.insert(id, Local { abort, is_cleanup });
                wait.admit(effects);
            }
            is_accepted
        });
        if is_accepted {
            return Admission::started();
        }
        self.refuse_local(wait, policy);
        Admission::never_started()
    }

    /// Spawns a task that was begun.
    fn spawn_begun(self: &Arc<Self>, task: Task, job: Job<E>) {
        self.spawn_with_job(task, job);
        // With a grace period, another thread may have to abort the task while this one computes,
        // and cannot if the task's worker is in the LIFO slot of this one.
        if self.read(State::has_grace) {
            self.flush_lifo_slot();
        }
    }

    /// Counts a task that takes no permit, and returns whether it is accepted.
    fn begin_without_permit(self: &Arc<Self>, policy: Policy) -> bool {
        let ended = self.ctx().is_done();
        self.with_effects(|state, effects| self.begin(policy, ended, state, effects))
    }

    fn begin(
        &self,
        policy: Policy,
        ended: bool,
        state: &mut State<Queue<E>>,
        effects: &mut Effects,
    ) -> bool {
        let is_accepted = if policy.is_cleanup() {
            !state.is_concluded() && !self.is_cleanup_aborted()
        } else {
            !ended && state.takes_new()
        };
        if is_accepted {
            state.count_in_task(policy);
            state.watch_grace(effects);
        }
        is_accepted
    }
}
