//! What a core runs: the seams between it and a group's queue or a fan-out's items.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::task;
use std::time::Duration;

use super::Scheduler;
use super::calls::CallId;
use super::effects::{Effects, Wakers};
use super::end::Reclaimed;
use super::lending::CoreId;
use super::permits::Permits;
use super::state::Rejected;
use crate::context::ContextError;
use crate::panic::Payload;
use crate::scheduler::error::{Label, TaskErrorKind};
use crate::sync::Arc;
use crate::tracing::Span;

/// Where a core gets its jobs from, and where their values go.
///
/// Methods that take `&mut self` run under the lock and call no user code.
pub(crate) trait Source: Send + Sized + 'static {
    type Error: From<ContextError> + Display + Send + 'static;
    /// What a job that succeeds gives.
    type Value: Send + 'static;
    /// What identifies a job while it runs.
    type Tag: Tag;
    type Job: Future + Send + 'static;
    /// What the counter hands to a worker: a job, or what makes one outside the lock.
    type Supply: Send;
    /// What a job is before it is one: user code, to be dropped outside the lock if it never becomes one.
    type Work: Send;
    /// What a worker holds while it waits for its next job to come out of what was supplied.
    type Wait: Into<Self::Supply> + Send;
    /// A task of the `JoinSet` that runs its jobs.
    type Worker: Future<Output = ()> + Send + 'static;
    /// What all its jobs have in common, and what never changes: read without the lock.
    type Shared: Send + Sync;

    /// Whether a worker may run several jobs on one permit: see [`batch`](super::batch).
    const BATCHES: bool = false;
    /// Whether stopping everything drops none of the user's code on the spot, so that it may be done in the thread of
    /// whoever ends the context.
    const STOPS_ANYWHERE: bool;
    /// Whether its jobs may wait for permits, or for the ends of other jobs, of their own core.
    const LENDS: bool;
    /// How many jobs are counted in when something is supplied: none, if they were when they came.
    const COUNTS_IN: usize;

    /// A worker that looks for a job.
    fn worker(core: Arc<Scheduler<Self>>) -> Self::Worker;
    /// Starts what may start: gives permits to what is queued.
    fn start(&mut self, permits: &mut Permits, effects: &mut Effects);
    /// Hands out what a worker is to run next, with its permit; nothing that would start now if the context `ended`.
    fn supply(&mut self, permits: &mut Permits, ended: bool) -> Option<Self::Supply>;
    /// Whether `supply` would hand something out now.
    fn has_supply(&self, permits: &Permits) -> bool;
    /// How many jobs wait for a worker, now or as soon as another one has ended, if they are started
    /// one by one.
    fn ready(&self) -> usize {
        usize::MAX
    }
    /// Whether a worker that gets nothing should stay, because more will come.
    fn is_busy(&self) -> bool;
    /// Whether something is left that has not started.
    fn has_unstarted(&self) -> bool;
    /// Keeps what a job gave. Hands back who is to be told that it has ended, before it counts as ended.
    fn accept(
        &mut self,
        tag: Self::Tag,
        value: Option<Self::Value>,
        effects: &mut Effects,
    ) -> Option<Arc<dyn Observer>>;
    /// A job has failed by itself; what it gives is then nothing.
    fn failed(&mut self) {}
    /// Whether there is something for whoever waits before all is over.
    fn has_outcome(&self) -> bool {
        false
    }
    /// Removes what has not started and, the context having ended, never will.
    fn cut(&mut self, permits: &mut Permits, effects: &mut Effects)
    -> Vec<(Self::Tag, Self::Work)>;
    /// Removes what has started and is in no worker.
    fn reclaim(&mut self) -> Reclaimed<Self>;
    /// Drops what never runs, and counts it as ended; outside the lock.
    fn dispose(core: &Arc<Scheduler<Self>>, rejected: Rejected<Self>) {
        core.dispose(rejected);
    }

    /// What a job's output is to the core.
    fn output(output: <Self::Job as Future>::Output) -> JobOutput<Self>;
    /// What a job is called, and how long it has been running; asked when it failed.
    fn describe(shared: &Self::Shared, tag: &Self::Tag) -> (Label, Duration);
    /// Makes a job of what was supplied, in its slot; outside the lock.
    fn open(
        core: &Arc<Scheduler<Self>>,
        supply: Self::Supply,
        slot: Pin<&mut Option<Self::Job>>,
        cx: &mut task::Context<'_>,
    ) -> Opened<Self>;
    /// Makes the next job of a batch, if there is one at once; outside the lock.
    fn another(
        _core: &Arc<Scheduler<Self>>,
        _slot: Pin<&mut Option<Self::Job>>,
        _cx: &mut task::Context<'_>,
    ) -> Option<Self::Tag> {
        None
    }
    /// How many jobs have been pulled so far, where two workers would be in each other's way at that; read without the lock.
    fn pulled(_: &Scheduler<Self>) -> usize {
        0
    }
    /// A worker has found in use what it needs, and gone away: nothing is supplied until it is free.
    fn block(&mut self) {}
    /// That worker is to be called: it may have become free just before; outside the lock.
    fn look_again(_: &Arc<Scheduler<Self>>) {}
    /// Takes back what a worker waited with when it was dropped.
    fn abandon(core: &Arc<Scheduler<Self>>, wait: Self::Wait);
    /// Whether a report of the progress is due, and nothing else is reporting.
    fn has_report(&self) -> bool {
        false
    }
    /// Whether something has not been reported yet.
    fn is_reporting(&self) -> bool {
        false
    }
    /// Makes one report of the progress, if one is due; outside the lock.
    fn report(_core: &Arc<Scheduler<Self>>) {}
}

/// What has become of what was supplied.
pub(crate) enum Opened<S: Source> {
    /// A job, which is in the slot now.
    Job(S::Tag),
    /// There is no job in it (any more).
    Nothing,
    /// None yet; the worker is woken when it should look again.
    Wait(S::Wait),
    /// None for this worker now: it is called. If what it needs is `in_use`, it still has a permit.
    Later { in_use: bool },
}

/// What a job ends with.
pub(crate) type JobOutput<S> = Result<<S as Source>::Value, TaskErrorKind<<S as Source>::Error>>;

/// What identifies a job while it runs.
pub(crate) trait Tag: Send {
    /// The job starts.
    fn started(&mut self);
    /// That in which it runs.
    fn span(&self) -> Option<&Span>;
    /// Closes it, where no lock is held.
    fn close_span(&mut self);
    /// The job has failed. Returns the call that takes an error of it, so that it is none of the
    /// group's.
    fn failed_call(&self) -> Option<CallId> {
        None
    }
    /// Whether somebody is told of the end.
    fn is_observed(&self) -> bool {
        false
    }
}

/// Somebody who is told when a job has ended and its permit is free.
pub(crate) trait Observer: Send + Sync {
    fn ended(&self, core: &dyn Lending, succeeded: bool);
    /// The job has failed. Returns the call that takes an error of it, so that it is none of the
    /// group's.
    fn failed_call(&self) -> Option<CallId> {
        None
    }
}

/// A core, as seen by what waits for it: see [`lending`](super::lending).
pub(crate) trait Lending: Send + Sync {
    fn id(&self) -> CoreId;
    /// Whether everything was stopped, as far as this thread knows. Takes no lock.
    fn is_stopped(&self) -> bool;
    /// Runs `section` under the lock. Nothing may follow from what it does.
    fn read(&self, section: &mut dyn FnMut(&mut Permits));
    /// Runs `section` under the lock. It adds wakers that are not needed any more, and says whether
    /// a permit has become free, which then goes to the next.
    fn update(self: Arc<Self>, section: &mut dyn FnMut(&mut Permits, &mut Wakers) -> bool);
}

/// How a job ended.
pub(crate) enum Outcome<S: Source> {
    Returned(JobOutput<S>),
    Panicked(Payload),
    /// Dropped before its end, or before its start.
    Aborted,
}

impl<S: Source> Outcome<S> {
    /// That of a job that was dropped.
    pub(crate) fn of_drop(dropped: Result<(), Payload>) -> Outcome<S> {
        match dropped {
            Ok(()) => Outcome::Aborted,
            Err(payload) => Outcome::Panicked(payload),
        }
    }
}
