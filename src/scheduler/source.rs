//! The traits between a scheduler and its jobs, and a job on its way through a scheduler.

use std::future::Future;
use std::task::Waker;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::Scheduler;
use super::calls::{CallId, PoolId};
use super::effects::{Effects, Observer};
use super::failures::OnFailure;
use super::group_error::GroupError;
use super::ledger::Straggler;
use super::permits::Permits;
use super::permits::lending::LenderId;
use crate::context::{Cause, ContextError, StaticCause};
use crate::panic::Payload;
use crate::scheduler::error::{Label, TaskErrorKind};
use crate::span::TaskSpan;
use crate::sync::Arc;

static SHUT: StaticCause = StaticCause("the group is closed");

/// The jobs of a scheduler: a group's queue, or the items of a fan-out.
///
/// Methods that take `&mut self` run under the lock and call no user code.
pub(crate) trait Source: Send + Sized + 'static {
    type Error: GroupError;
    /// The value of a job that succeeds, as the source keeps it.
    type Value: Send + 'static;
    /// Identifies a job while it runs.
    type Tag: Tag;
    /// Work that has a permit, or waits for one, and has not started.
    type Work: Send;
    /// A task of the `JoinSet` that runs jobs.
    type Worker: Future<Output = ()> + Send + 'static;
    /// The data that all jobs share and that never changes. It is read without the lock.
    type Shared: Send + Sync;

    /// Whether an abort drops no user code, so that the thread that cancels the context may perform
    /// it.
    const ABORTS_ANYWHERE: bool;
    /// Whether jobs may wait for permits or for jobs of their own scheduler.
    const LENDS: bool;
    /// Whether the jobs are those of a call, which waits for them.
    #[cfg(feature = "inspect")]
    const IS_A_CALL: bool;

    /// Returns a worker that looks for a job.
    fn worker(scheduler: Arc<Scheduler<Self>>) -> Self::Worker;
    /// Gives free permits to the jobs that wait for one.
    fn start(&mut self, permits: &mut Permits, effects: &mut Effects);
    /// Returns whether one more worker would find a job.
    fn has_job(&self, permits: &Permits) -> bool;
    /// Returns how many jobs wait for a worker, now or as soon as another job has finished. Only a
    /// source whose jobs are started one by one has to know it.
    fn ready(&self) -> usize {
        usize::MAX
    }
    /// Returns how many jobs wait for a permit.
    #[cfg(feature = "inspect")]
    fn queued(&self) -> usize {
        0
    }
    /// Returns the name that the caller gave.
    #[cfg(feature = "inspect")]
    fn name(shared: &Self::Shared) -> Option<String>;
    /// Takes the waker of a worker that is parked.
    fn unpark_one(&mut self) -> Option<Waker> {
        None
    }
    /// Returns whether something is left that has not started.
    fn has_unstarted(&self) -> bool;
    /// Returns whether a join has to wait for something that is left and is not counted as open.
    fn has_uncounted(&self) -> bool {
        self.has_unstarted()
    }
    /// Returns whether a permit is out that no background task has reserved, when only background
    /// tasks are open.
    fn has_reservations(&self, _: &Permits) -> bool {
        false
    }
    /// Keeps the value of a job. Returns the observer that is notified before the job is counted as
    /// completed.
    fn accept(
        &mut self,
        tag: Self::Tag,
        value: Option<Self::Value>,
        effects: &mut Effects,
    ) -> Option<Arc<dyn Observer>>;
    /// Counts a job that has failed by itself. The job is accepted without a value.
    fn failed(&mut self) {}
    /// Returns the cause of a job that was refused because the scheduler is shut.
    fn why_shut(_: &Self::Shared) -> Cause {
        Cause::from_static(&SHUT)
    }
    /// Returns the closures that run on the blocking pool, which nothing can abort.
    fn stragglers(&self) -> impl Iterator<Item = Straggler> {
        std::iter::empty()
    }
    /// Returns how many closures run on the blocking pool.
    fn stragglers_count(&self) -> usize {
        0
    }
    /// Removes a closure that runs on the blocking pool: it has ended.
    fn left_pool(&mut self, _: PoolId) {}
    /// Returns whether a consumer can take an outcome before everything has finished.
    fn has_outcome(&self) -> bool {
        false
    }
    /// Removes and returns the work that has not started. The context is done, so it never will.
    fn take_unstarted(
        &mut self,
        permits: &mut Permits,
        effects: &mut Effects,
    ) -> Vec<(Self::Tag, Self::Work)>;
    /// Removes the work that has started and is in no worker. Has the workers woken that are not
    /// in the `JoinSet`.
    fn reclaim(&mut self, reach: Reach, effects: &mut Effects) -> Reclaimed<Self>;
    /// Drops work that never runs, outside the lock, and counts it as completed.
    fn dispose(scheduler: &Arc<Scheduler<Self>>, rejected: Rejected<Self>) {
        scheduler.dispose(rejected);
    }
    /// Returns the label of a job and how long it has been running. Called when a job has failed.
    fn describe(shared: &Self::Shared, tag: &Self::Tag) -> (Label, Duration);
    /// Returns whether a report of the progress is due and no worker is making one.
    fn has_report(&self) -> bool {
        false
    }
    /// Returns whether a change has not been reported yet.
    fn is_reporting(&self) -> bool {
        false
    }
    /// Makes one report of the progress, if one is due, outside the lock.
    fn report(_core: &Arc<Scheduler<Self>>) {}
}

/// The result of a job.
pub(crate) type JobOutput<S> = Result<<S as Source>::Value, TaskErrorKind<<S as Source>::Error>>;

/// Identifies a job while it runs.
pub(crate) trait Tag: Send {
    /// Notes that the job starts.
    fn started(&mut self);
    /// Returns the span in which the job runs.
    fn span(&self) -> Option<&TaskSpan>;
    /// Closes the span. Called where no lock is held.
    fn close_span(&mut self);
    /// Notes that the job has failed. Returns the call that receives its error, if one does; the
    /// error is then not a failure of the group.
    fn failed_call(&self) -> Option<CallId> {
        None
    }
    /// Returns whether the job has been polled, or its closure called.
    fn has_started(&self) -> bool {
        true
    }
    /// Returns which closure on the blocking pool the job is, if it is one that runs.
    fn on_pool(&self) -> Option<PoolId> {
        None
    }
    /// Returns whether the job has an observer.
    fn is_observed(&self) -> bool {
        false
    }
    /// Returns whether the job takes a permit.
    fn takes_permit(&self) -> bool {
        true
    }
    /// Returns whether a wait does not wait for the job to end by itself.
    fn is_background(&self) -> bool {
        false
    }
    /// Returns the effect of the job's failure on the other jobs. `group` is that of other tasks.
    fn on_failure(&self, group: OnFailure) -> OnFailure {
        group
    }
    /// Returns the cause with which the end of the job cancels the context even if the job
    /// succeeded, or was stopped by its handle.
    fn cause_of_end(&self) -> Option<Cause> {
        None
    }
    /// Returns whether the handle of the job has stopped it.
    fn is_stopped(&self) -> bool {
        false
    }
    /// Hands the failure of the job to its observer.
    fn hand_failure(&self, _failure: ContextError, _is_panic: bool) {}
}

/// Work that never runs: the context was done before it started, or the scheduler was aborted.
pub(crate) struct Rejected<S: Source> {
    pub(crate) tag: S::Tag,
    pub(crate) work: S::Work,
    pub(crate) permit: HadPermit,
}

/// Whether work that never runs was given a permit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HadPermit {
    Yes,
    No,
}

/// A job that has finished: its value, and the permit that it releases.
pub(crate) struct Completion<S: Source> {
    pub(crate) lender: Option<LenderId>,
    pub(crate) tag: S::Tag,
    pub(crate) value: Option<S::Value>,
}

/// What an abort reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All jobs but clean-up tasks: a grace period has passed.
    AllButCleanup,
    All,
}

/// The work that has started and is in no worker.
pub(crate) struct Reclaimed<S: Source> {
    /// Work that no worker has taken yet.
    pub(crate) works: Vec<(S::Tag, S::Work)>,
    /// Jobs that can no longer begin and are counted as completed at once, wherever their work is
    /// dropped.
    pub(crate) lost: Vec<(S::Tag, HadPermit)>,
    /// Jobs that are tokio tasks of their own.
    pub(crate) tasks: Vec<AbortHandle>,
}

/// The outcome of a job.
pub(crate) enum Outcome<S: Source> {
    Returned(JobOutput<S>),
    Panicked(Payload),
    /// Dropped before it had finished, or before it had started.
    Aborted,
    /// Dropped because the scheduler was shut when it was submitted.
    Refused,
}

impl<S: Source> Outcome<S> {
    /// Returns the outcome of a job that has finished in a poll.
    pub(crate) fn of_poll(ended: Result<JobOutput<S>, Payload>) -> Outcome<S> {
        match ended {
            Ok(output) => Outcome::Returned(output),
            Err(payload) => Outcome::Panicked(payload),
        }
    }

    /// Returns the outcome of a job that was dropped.
    pub(crate) fn of_drop(dropped: Result<(), Payload>) -> Outcome<S> {
        match dropped {
            Ok(()) => Outcome::Aborted,
            Err(payload) => Outcome::Panicked(payload),
        }
    }

    /// Returns the outcome of a job that was refused, and then dropped.
    pub(crate) fn of_refusal(dropped: Result<(), Payload>) -> Outcome<S> {
        match dropped {
            Ok(()) => Outcome::Refused,
            Err(payload) => Outcome::Panicked(payload),
        }
    }
}
