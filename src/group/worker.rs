//! A group's worker: a task of the `JoinSet` that runs one job after another.
//!
//! ```text
//!                 ┌────────────── completed ◄───┐
//!                 ▼                             │
//!     spawned ─► next job ─── run ───► poll ── ready
//!                 │  ▲                  ▲│
//!              leave └─ dispose         │▼
//!                                     pending
//! ```
//!
//! Completing a job and taking the next one is one critical section. The first tasks of a burst do
//! not come here: they get a worker each (see [`one_job`](super::one_job)).

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use super::blocking;
use super::queue::Queue;
use super::task::{BlockingJob, Entry, Task, Work};
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::current::{self, CurrentJob};
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{Job, poll_job};
use crate::scheduler::permits::Yielded;
use crate::scheduler::poll_budget::PollBudget;
use crate::scheduler::source::{Completion, HadPermit, Outcome, Rejected, Source, Tag};
use crate::sync::Arc;

pub(crate) struct Worker<E>
where
    E: GroupError,
{
    jobs: Jobs<E>,
    /// On the thread while this is polled.
    current: Option<CurrentJob>,
}

/// The jobs of a worker, one after another.
struct Jobs<E>
where
    E: GroupError,
{
    scheduler: Arc<Scheduler<Queue<E>>>,
    state: State,
    /// The job that runs. Both are `Some`, or none is.
    task: Option<Task>,
    job: Option<Job<E>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Spawned, and has not looked in the queue yet.
    Searching,
    /// Found nothing, and looks once more behind the tasks that are ready now.
    Lingering,
    /// It has a job, or it is scheduled again. If it is dropped without a job, another worker looks
    /// in the queue.
    Working,
    Left,
}

/// What a worker does next.
enum Next<E>
where
    E: GroupError,
{
    Run(Task, Job<E>),
    /// A closure, which goes to the blocking pool with its permit.
    HandOver(Task, BlockingJob<E>),
    /// Drops work that never runs. One piece at a time, since a destructor may take its time.
    Dispose(Rejected<Queue<E>>),
    Linger,
    Leave,
}

/// How a worker looks for a job.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Look {
    /// It has just had another job, or none.
    #[default]
    First,
    /// It is a searching worker.
    Searching,
    /// It has found nothing a moment ago.
    Again,
}

impl<E> Worker<E>
where
    E: GroupError,
{
    /// A worker that looks in the queue.
    pub(crate) fn searching(scheduler: Arc<Scheduler<Queue<E>>>) -> Worker<E> {
        Worker {
            current: Some(CurrentJob::new(scheduler.clone())),
            jobs: Jobs {
                scheduler,
                state: State::Searching,
                task: None,
                job: None,
            },
        }
    }
}

impl<E> Future for Worker<E>
where
    E: GroupError,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let Worker { jobs, current } = &mut *self;
        let mut look = Look::First;
        match jobs.state {
            State::Searching if jobs.scheduler.waits_behind_driver(cx) => return Poll::Pending,
            State::Searching => {
                look = Look::Searching;
                jobs.state = State::Working;
            }
            State::Lingering => {
                look = Look::Again;
                jobs.state = State::Working;
            }
            State::Working => {}
            State::Left => return Poll::Ready(()),
        }
        let _on_thread = current::enter(current, cx.waker());
        jobs.poll(look, cx)
    }
}

impl<E> Jobs<E>
where
    E: GroupError,
{
    /// Runs jobs until one is pending, nothing is left to do, or the poll has taken its time.
    fn poll(&mut self, mut look: Look, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut completed = None;
        let mut budget = match self.task {
            Some(_) => PollBudget::start_with_job(),
            None => PollBudget::start(),
        };
        // Ends: each round adds a step to the budget, and a job that is pending ends it at once.
        loop {
            if self.task.is_none() {
                if budget.is_used_up() {
                    return self.yield_now(completed, cx);
                }
                let next = self
                    .scheduler
                    .next_job(std::mem::take(&mut look), completed.take());
                // What the destructor of a job may have awaited is no wait of the next job.
                current::forget();
                match next {
                    Next::Run(task, job) => self.start(task, job),
                    Next::HandOver(task, job) => {
                        blocking::hand_over(&self.scheduler, task, job, HadPermit::Yes);
                    }
                    Next::Dispose(rejected) => Queue::dispose(&self.scheduler, rejected),
                    Next::Linger => {
                        self.state = State::Lingering;
                        self.scheduler.wake_behind_others(cx);
                        return Poll::Pending;
                    }
                    Next::Leave => {
                        self.scheduler.reap();
                        self.state = State::Left;
                        return Poll::Ready(());
                    }
                }
            }
            budget.add_step();
            if self.task.is_some() {
                match self.poll_job(cx) {
                    Poll::Ready(completion) => completed = completion,
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
    }

    fn start(&mut self, mut task: Task, job: Job<E>) {
        task.started();
        self.task = Some(task);
        self.job = Some(job);
    }

    /// Polls the job. When it has ended, records how, and returns its completion.
    fn poll_job(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Completion<Queue<E>>>> {
        let span = self.task.as_ref().and_then(Tag::span);
        let ended = ready!(poll_job(&mut Pin::new(&mut self.job), span, cx));
        let outcome = Outcome::of_poll(ended);
        Poll::Ready(self.task.take().map(|mut tag| {
            let value = self.scheduler.record(&mut tag, outcome);
            let lender = current::renew();
            Completion { lender, tag, value }
        }))
    }

    /// The poll has taken its time: other tasks of the runtime are polled before the next job.
    fn yield_now(
        &mut self,
        completed: Option<Completion<Queue<E>>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        self.state = match self.scheduler.yield_worker(completed) {
            Yielded::AsSearcher => State::Searching,
            Yielded::AsWorker => State::Working,
            Yielded::Leaves => {
                self.state = State::Left;
                return Poll::Ready(());
            }
        };
        self.scheduler.wake_behind_others(cx);
        Poll::Pending
    }
}

/// The accounting of a worker that is dropped before it has left: it was aborted, or its runtime
/// has shut down.
impl<E> Drop for Worker<E>
where
    E: GroupError,
{
    fn drop(&mut self) {
        let Worker { jobs, current } = self;
        match (jobs.state, jobs.task.take(), jobs.job.take()) {
            (_, Some(task), job) => {
                let outcome = Outcome::of_drop(panic::catch(|| drop(job)));
                // What the destructor has polled is no wait of the job any more.
                let lender = current.as_mut().and_then(CurrentJob::renew);
                jobs.scheduler.complete_elsewhere(task, outcome, lender);
            }
            (State::Searching, ..) => jobs.scheduler.searcher_lost(),
            _ => {}
        }
    }
}

impl<E> Scheduler<Queue<E>>
where
    E: GroupError,
{
    /// Completes what a worker has run, and decides what it does next.
    fn next_job(
        self: &Arc<Self>,
        look: Look,
        mut completed: Option<Completion<Queue<E>>>,
    ) -> Next<E> {
        let ended = self.ctx().is_done();
        self.complete_observed(&mut completed);
        self.with_effects(|state, effects| {
            if look == Look::Searching {
                state.permits.search_done();
            }
            if let Some(completed) = completed {
                state.complete(completed, effects);
            }
            if let Some(rejected) = state.next_rejected_for_worker(ended, effects) {
                return Next::Dispose(rejected);
            }
            if !state.is_open() {
                return Next::Leave;
            }
            state.start(ended, effects);
            let entry = state.source.pop_ready();
            state.call_searcher_for_rest(effects);
            match entry {
                Some(Entry {
                    task,
                    work: Work::Future(job),
                }) => Next::Run(task, job),
                Some(Entry {
                    task,
                    work: Work::Blocking(job),
                }) => Next::HandOver(task, job),
                None if look == Look::Again => {
                    // While a task waits for its permit, its admission may be awaited.
                    state.source.expects_more &= state.source.waiting() > 0;
                    Next::Leave
                }
                None if state.source.expects_more => Next::Linger,
                None => Next::Leave,
            }
        })
    }
}
