//! Tasks on the blocking pool, under the group's limit.
//!
//! A closure that runs cannot be aborted. So the worker that takes such a task gives it to the
//! pool, together with its permit, and continues with the next task. The thread that runs the
//! closure counts it as ended. A `wait` waits for it through that count.
//!
//! A closure may also block in its destructor. A client with a runtime of its own does so, and
//! panics on a thread that polls tasks. So a closure that never begins is dropped on the pool as
//! well. It takes the same way as one that begins, and is dropped where it would have begun.
//!
//! # Invariants
//!
//! 1. Until a thread takes it, a closure that was given to the pool is in `OnPool`, with its task.
//!    Whichever removes it from there, the thread or an abort, counts it as ended.
//! 2. A closure begins only if its thread has removed it, the group is open, its context is not
//!    done, and its handle has not stopped it. The first two are true of a clean-up task for longer
//!    than of others (see [`no_permit`](super::no_permit)), and the third does not concern it.
//! 3. A closure that begins is entered in the register of `OnPool` in the same section, and stays
//!    there until its failure is recorded or, without one, its task is completed.
//! 4. An abort does not wait for a thread of the pool: what it removes counts as ended at once. The
//!    closure is dropped later, when the pool has a thread for it.

use super::background;
use super::queue::Queue;
use super::task::{BlockingJob, Place, Task};
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::calls::PoolId;
use crate::scheduler::current::{self, CurrentJob};
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::parcel;
use crate::scheduler::permits::lending::Lending;
use crate::scheduler::source::{HadPermit, Outcome, Tag};
use crate::span;
use crate::sync::Arc;

/// Gives a job to the pool. It runs there, or is dropped there if it may not run any more.
pub(crate) fn hand_over<E>(
    scheduler: &Arc<Scheduler<Queue<E>>>,
    task: Task,
    job: BlockingJob<E>,
    permit: HadPermit,
) where
    E: GroupError,
{
    pass(scheduler, task, job, permit, false);
}

/// Gives a job to the pool that the group has refused. It is dropped there.
pub(crate) fn refuse<E>(scheduler: &Arc<Scheduler<Queue<E>>>, task: Task, job: BlockingJob<E>)
where
    E: GroupError,
{
    pass(scheduler, task, job, HadPermit::No, true);
}

fn pass<E>(
    scheduler: &Arc<Scheduler<Queue<E>>>,
    task: Task,
    job: BlockingJob<E>,
    permit: HadPermit,
    is_refused: bool,
) where
    E: GroupError,
{
    let is_cleanup = task.policy.is_cleanup();
    let id = scheduler.with_effects(|state, _| {
        // A clean-up task is open here, so no wait has returned.
        let may_begin = if is_cleanup {
            !scheduler.is_cleanup_aborted()
        } else {
            state.is_open()
        };
        if may_begin {
            Ok(state.source.on_pool.insert(task, permit))
        } else {
            Err(task)
        }
    });
    let waiting = WaitingJob {
        scheduler: scheduler.clone(),
        id: id.as_ref().ok().copied(),
        job: Some(job),
        is_refused,
        is_cleanup,
    };
    if let Err(task) = id {
        scheduler.complete_without_worker(task, permit, Outcome::Aborted);
    }
    let Some(runtime) = scheduler.runtime() else {
        return;
    };
    let (passed, refused) = parcel::hand_over(runtime, waiting, WaitingJob::run);
    let Some(mut waiting) = refused else {
        return;
    };
    match (passed, waiting.take_task()) {
        (Err(payload), Some((task, permit))) => {
            scheduler.complete_without_worker(task, permit, Outcome::Panicked(payload));
        }
        (_, task) => waiting.drop_unrun(task),
    }
}

/// A job that has not begun. If it is dropped without being run, its task counts as aborted.
struct WaitingJob<E>
where
    E: GroupError,
{
    scheduler: Arc<Scheduler<Queue<E>>>,
    /// `None` if the task counts as ended already.
    id: Option<PoolId>,
    job: Option<BlockingJob<E>>,
    /// Whether the group has refused the job, so that it never runs.
    is_refused: bool,
    /// Whether the job may begin after the end of the context.
    is_cleanup: bool,
}

impl<E> WaitingJob<E>
where
    E: GroupError,
{
    fn run(mut self) {
        let has_ended = !self.is_cleanup && self.scheduler.ctx().is_done();
        if self.is_refused || has_ended {
            return;
        }
        let Some((mut task, permit)) = self.begin() else {
            return;
        };
        if task.is_stopped() {
            self.drop_unrun(Some((task, permit)));
            return;
        }
        let Some(job) = self.job.take() else { return };
        task.started();
        let ctx = self.scheduler.ctx().clone();
        let entered = span::enter(task.span());
        // A task that takes no permit has none to lend.
        let lends = task.policy.takes_permit();
        let mut current = lends.then(|| CurrentJob::new(self.scheduler.clone()));
        let on_thread = current::enter_blocking(&mut current);
        let in_background = background::enter(task.policy, Lending::id(&*self.scheduler));
        let ended = panic::catch(|| job(ctx));
        drop(in_background);
        drop(on_thread);
        drop(entered);
        let lender = current.as_mut().and_then(CurrentJob::renew);
        let outcome = match ended {
            Ok(result) => Outcome::Returned(result.map_err(TaskErrorKind::Failed)),
            Err(payload) => Outcome::Panicked(payload),
        };
        match permit {
            HadPermit::Yes => self.scheduler.complete_elsewhere(task, outcome, lender),
            HadPermit::No => self
                .scheduler
                .complete_without_worker(task, permit, outcome),
        }
    }

    /// Drops the job, and counts its task as ended unless that was done already.
    fn drop_unrun(&mut self, task: Option<(Task, HadPermit)>) {
        let Some(job) = self.job.take() else { return };
        match task {
            Some((task, permit)) => {
                let dropped = panic::catch(|| drop(job));
                let outcome = if self.is_refused {
                    Outcome::of_refusal(dropped)
                } else {
                    Outcome::of_drop(dropped)
                };
                self.scheduler
                    .complete_without_worker(task, permit, outcome);
            }
            None => panic::discard(job),
        }
    }

    /// Takes the task out of `OnPool`, and enters there that its closure runs. Returns `None` if an
    /// abort has taken it.
    fn begin(&mut self) -> Option<(Task, HadPermit)> {
        let id = self.id.take()?;
        let begun = self
            .scheduler
            .with_state(|state| state.source.on_pool.begin(id));
        begun.map(|(mut task, permit)| {
            task.place = Place::Pool(id);
            (task, permit)
        })
    }

    /// Takes the task out of `OnPool`. Returns `None` if an abort has taken it.
    fn take_task(&mut self) -> Option<(Task, HadPermit)> {
        let id = self.id.take()?;
        self.scheduler
            .with_effects(|state, _| state.source.on_pool.remove(id))
    }
}

impl<E> Drop for WaitingJob<E>
where
    E: GroupError,
{
    fn drop(&mut self) {
        if self.job.is_some() {
            let task = self.take_task();
            self.drop_unrun(task);
        }
    }
}
