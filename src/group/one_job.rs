//! A worker that is spawned with its job, and leaves after it.
//!
//! The first tasks of a burst get such a worker each (see [`Burst`](super::burst::Burst)). It takes
//! nothing from the queue: on one thread several such workers are in a row in the run queue, and if
//! each went on with the group's queue, other tasks would wait for all of them.
//!
//! It is a tokio task that nothing joins. A wait needs no more than that its job has been
//! completed, and an abort reaches it through the scheduler.
//!
//! # Invariants
//!
//! 1. A worker whose job is pending has its waker in
//!    [`WorkerWakers`](crate::scheduler::worker_wakers), or it has seen that the scheduler was
//!    aborted. The waker is entered under the lock under which an abort takes the wakers, and none
//!    is entered after that. So an abort wakes every worker whose job is pending, and that worker
//!    drops its job in its next poll.
//! 2. A worker that is dropped by its runtime before its first poll has no runtime any more: an
//!    abort drops none. No lock is held then, since the worker is spawned without one.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker};

use pin_project_lite::pin_project;

use super::background;
use super::queue::Queue;
use super::task::Task;
use crate::scheduler::Scheduler;
use crate::scheduler::current::{self, CurrentJob};
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{ErasedJob, JobResult, poll_job};
use crate::scheduler::permits::lending::Lending;
use crate::scheduler::source::{Completion, Outcome, Source, Tag};
use crate::scheduler::worker_wakers::WakerKey;
use crate::sync::Arc;

pin_project! {
    /// The worker as tokio knows it. The job is its only part whose type differs between calls, and
    /// all that is done with that type is to poll the job and to drop it.
    struct OneJobWorker<E, J>
    where
        E: GroupError,
        J: Future<Output = JobResult<E>>,
    {
        frame: Frame<E>,
        #[pin]
        job: Option<J>,
    }

    impl<E, J> PinnedDrop for OneJobWorker<E, J>
    where
        E: GroupError,
        J: Future<Output = JobResult<E>>,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            this.frame.end_with_runtime(&mut this.job);
        }
    }
}

impl<E, J> Future for OneJobWorker<E, J>
where
    E: GroupError,
    J: Future<Output = JobResult<E>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut this = self.project();
        this.frame.poll(&mut this.job, cx)
    }
}

/// A worker without its job.
struct Frame<E>
where
    E: GroupError,
{
    scheduler: Arc<Scheduler<Queue<E>>>,
    stage: Stage,
    /// `Some` until the job has ended.
    task: Option<Task>,
    /// On the thread while the job is polled.
    current: Option<CurrentJob>,
}

/// How far a worker has come.
#[derive(Clone, Copy)]
enum Stage {
    Unstarted,
    Started,
    /// Its waker is where an abort finds it.
    Pending(WakerKey),
}

impl<E> Frame<E>
where
    E: GroupError,
{
    fn poll(
        &mut self,
        job: &mut dyn ErasedJob<JobResult<E>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        let is_cleanup = is_cleanup(self.task.as_ref());
        let is_pending = !is_aborted(&self.scheduler, is_cleanup) && {
            if let Stage::Unstarted = self.stage {
                self.task.iter_mut().for_each(Tag::started);
                self.stage = Stage::Started;
            }
            // A background task takes no permit, so it is no current job.
            let takes_none = self.task.as_ref().filter(|_| self.current.is_none());
            let _in_background = takes_none
                .and_then(|task| background::enter(task.policy, Lending::id(&*self.scheduler)));
            let _on_thread = current::enter(&mut self.current, cx.waker());
            let span = self.task.as_ref().and_then(Tag::span);
            match poll_job(job, span, cx) {
                Poll::Ready(ended) => {
                    if let Some(task) = self.task.take() {
                        complete(&self.scheduler, self.stage, task, Outcome::of_poll(ended));
                    }
                    return Poll::Ready(());
                }
                Poll::Pending => true,
            }
        };
        if is_pending && enter_waker(&self.scheduler, &mut self.stage, is_cleanup, cx.waker()) {
            return Poll::Pending;
        }
        self.drop_job(job);
        Poll::Ready(())
    }

    /// Ends a worker that is dropped: its runtime has shut down, unless its job has ended.
    fn end_with_runtime(&mut self, job: &mut dyn ErasedJob<JobResult<E>>) {
        if self.task.is_none() {
            return;
        }
        if let Stage::Unstarted = self.stage {
            self.scheduler.runtime_lost();
        }
        self.drop_job(job);
    }

    /// Drops a job that has not ended, and completes it.
    #[cold]
    fn drop_job(&mut self, job: &mut dyn ErasedJob<JobResult<E>>) {
        let outcome = Outcome::of_drop(job.drop_now());
        // What the destructor has polled is no wait of the job any more.
        let lender = self.current.as_mut().and_then(CurrentJob::renew);
        let is_cleanup = is_cleanup(self.task.as_ref());
        let stage = self.stage;
        let waker = self
            .scheduler
            .with_state(|state| stage.take_waker(is_cleanup, &mut state.source));
        drop(waker);
        if let Some(task) = self.task.take() {
            self.scheduler.complete_elsewhere(task, outcome, lender);
        }
    }
}

/// Returns whether the task is one that a grace period does not abort.
fn is_cleanup(task: Option<&Task>) -> bool {
    task.is_some_and(|task| task.policy.is_cleanup())
}

/// Returns whether an abort has reached the task, as far as this thread knows.
fn is_aborted<E: GroupError>(scheduler: &Scheduler<Queue<E>>, is_cleanup: bool) -> bool {
    if is_cleanup {
        scheduler.is_cleanup_aborted()
    } else {
        scheduler.is_aborted()
    }
}

/// Completes a job that has ended in a poll. Other workers start what can start now. If there is
/// work that never runs, this worker drops one piece of it and others drop the rest.
fn complete<E: GroupError>(
    scheduler: &Arc<Scheduler<Queue<E>>>,
    stage: Stage,
    mut tag: Task,
    outcome: Outcome<Queue<E>>,
) {
    let value = scheduler.record(&mut tag, outcome);
    // Before the tag is passed on: the key of the waker belongs to one of two lists.
    let is_cleanup = tag.policy.is_cleanup();
    let lender = current::renew();
    let mut completed = Some(Completion { lender, tag, value });
    let ended = scheduler.ctx().is_done();
    scheduler.complete_observed(&mut completed);
    let (waker, never_runs) = scheduler.with_effects(|state, effects| {
        let waker = stage.take_waker(is_cleanup, &mut state.source);
        if let Some(completed) = completed {
            state.complete(completed, effects);
        }
        state.reject_if_ended(ended, effects);
        state.start_ready(ended, effects);
        (waker, state.has_rejected())
    });
    drop(waker);
    if never_runs {
        dispose_one(scheduler, ended);
    }
}

/// Drops one piece of work that never runs, if another worker has not done that.
#[cold]
fn dispose_one<E: GroupError>(scheduler: &Arc<Scheduler<Queue<E>>>, ended: bool) {
    let next =
        scheduler.with_effects(|state, effects| state.next_rejected_for_worker(ended, effects));
    if let Some(rejected) = next {
        Queue::dispose(scheduler, rejected);
        // What the destructor may have awaited is no wait of a job.
        current::forget();
    }
}

/// Puts the waker of a worker whose job is pending where an abort finds it (invariant 1). Returns
/// whether the worker waits: not if the scheduler was aborted.
fn enter_waker<E: GroupError>(
    scheduler: &Arc<Scheduler<Queue<E>>>,
    stage: &mut Stage,
    is_cleanup: bool,
    waker: &Waker,
) -> bool {
    if let Stage::Pending(_) = stage {
        // tokio polls a task with the same waker each time.
        return !is_aborted(scheduler, is_cleanup);
    }
    let mut waker = Some(waker.clone());
    let entered = scheduler.with_state(|state| {
        // Under the lock, this is exact.
        let may_wait = !is_aborted(scheduler, is_cleanup);
        let waker = waker.take_if(|_| may_wait)?;
        Some(state.source.wakers(is_cleanup).insert(waker))
    });
    if let Some(key) = entered {
        *stage = Stage::Pending(key);
    }
    entered.is_some()
}

impl Stage {
    fn take_waker<E>(self, is_cleanup: bool, queue: &mut Queue<E>) -> Option<Waker> {
        match self {
            Stage::Pending(key) => queue.wakers(is_cleanup).remove(key),
            Stage::Unstarted | Stage::Started => None,
        }
    }
}

impl<E> Scheduler<Queue<E>>
where
    E: GroupError,
{
    /// Spawns a worker with a job that has its permit, or takes none.
    pub(crate) fn spawn_with_job<J>(self: &Arc<Self>, task: Task, job: J)
    where
        J: Future<Output = JobResult<E>> + Send + 'static,
    {
        let frame = self.frame(task);
        let job = Some(job);
        // A runtime that has shut down drops the worker here, and so does this function if there is
        // none.
        if let Some(runtime) = self.runtime() {
            drop(runtime.spawn(OneJobWorker { frame, job }));
        }
    }

    fn frame(self: &Arc<Self>, task: Task) -> Frame<E> {
        // A task that takes no permit has none to lend.
        let lends = task.policy.takes_permit();
        Frame {
            current: lends.then(|| CurrentJob::new(self.clone())),
            scheduler: self.clone(),
            stage: Stage::Unstarted,
            task: Some(task),
        }
    }
}
