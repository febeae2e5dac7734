//! Starts the tasks of a group, or puts them into its queue.

use tokio::task::AbortHandle;

use super::decide_admission::LocalDecider;
use super::handle::{Admission, Number};
use super::permit_wait::PermitWait;
use super::queue::{Local, Queue, Queued};
use super::task::LocalId;
use super::task::{BlockingJob, Entry, Task, Work};
use crate::group::error::TryGoError;
use crate::registry::{First, TaskKind};
use crate::scheduler::Scheduler;
use crate::scheduler::current;
use crate::scheduler::effects::Effects;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{Job, JobResult};
use crate::scheduler::permits::lending::Lending;
use crate::scheduler::source::HadPermit;
use crate::scheduler::state::State;
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// The largest job that is a part of its worker. tokio copies what it spawns a few times, which for
/// a larger job costs more than a box.
const MOST_IN_WORKER: usize = 512;

/// The decision about a new task, made under the lock and carried out after it.
enum Decision<E> {
    Started,
    /// The task has its permit, and gets a worker of its own.
    GetsWorker(Task, Job<E>),
    Queued(Number),
    QueuedLocal(Arc<PermitWait>),
    Refused(Queued<E>),
}

/// Whether `try_submit` has got a permit.
enum TryStart {
    HasPermit,
    Full,
    Ended,
}

impl<E> State<Queue<E>>
where
    E: GroupError,
{
    /// Returns whether a new task is still accepted, as far as the state under the lock tells. The
    /// caller checks the context before it takes the lock.
    pub(super) fn takes_new(&self) -> bool {
        self.is_open() && !self.source.closed && !self.is_shut
    }

    /// Returns the same for a task that has reserved its permit, which a closed group takes, too.
    pub(super) fn takes_reserved(&self) -> bool {
        self.is_open() && !self.source.closed && !self.ended_by_failure
    }
}

impl<E> Scheduler<Queue<E>>
where
    E: GroupError,
{
    /// Starts a job, or queues it if it needs a permit and none is free.
    pub(crate) fn submit_with<J>(self: &Arc<Self>, task: Task, job: J) -> Admission
    where
        J: Future<Output = JobResult<E>> + Send + 'static,
    {
        if task.policy.takes_permit() {
            self.submit_job(task, job)
        } else {
            self.submit_without_permit(task, Box::pin(job))
        }
    }

    /// Starts a job that takes a permit, or queues it.
    ///
    /// A small job that gets a worker of its own is a part of that worker, and needs no box.
    pub(crate) fn submit_job<J>(self: &Arc<Self>, mut task: Task, job: J) -> Admission
    where
        J: Future<Output = JobResult<E>> + Send + 'static,
    {
        if const { size_of::<J>() > MOST_IN_WORKER } {
            return self.submit(task, Work::Future(Box::pin(job)));
        }
        if self.may_get_worker() {
            task.open_span(&self.shared.span);
            if self.begin_with_worker() {
                self.spawn_with_job(task, job);
                return Admission::started();
            }
            task.queued();
        } else {
            task.open_span_of(&self.shared.span, TaskKind::Task, First::Waits);
        }
        let work = Work::Future(Box::pin(job));
        self.enqueue(Queued::Entry(Entry { task, work }), None)
    }

    /// Counts a task that takes a permit and gets a worker of its own, if it gets both now. It is
    /// called if `may_get_worker`.
    fn begin_with_worker(&self) -> bool {
        let ended = self.ctx().is_done();
        self.with_state(|state| {
            let gets_worker = !ended
                && state.takes_new()
                && state.source.waiting() == 0
                && state.permits.is_free()
                && self.gets_worker(state, state.permits.running());
            if gets_worker {
                state.count_in(1);
                state.permits.take();
            }
            gets_worker
        })
    }

    /// Gives a closure to the blocking pool, or queues it.
    pub(super) fn submit_blocking(self: &Arc<Self>, task: Task, job: BlockingJob<E>) -> Admission {
        if task.policy.takes_permit() {
            self.submit(task, Work::Blocking(job))
        } else {
            self.submit_blocking_without_permit(task, job)
        }
    }

    /// Starts work, or queues it.
    pub(crate) fn submit(self: &Arc<Self>, mut task: Task, work: Work<E>) -> Admission {
        task.open_span_of(&self.shared.span, work.kind(), First::Waits);
        self.enqueue(Queued::Entry(Entry { task, work }), None)
    }

    /// Starts a local task that waits, or queues it.
    pub(crate) fn submit_local(
        self: &Arc<Self>,
        wait: Arc<PermitWait>,
        id: LocalId,
        abort: AbortHandle,
    ) -> Admission {
        self.enqueue(Queued::Local(wait), Some((id, abort)))
    }

    /// Starts a task or queues it, or rejects it because the context is done.
    fn enqueue(
        self: &Arc<Self>,
        queued: Queued<E>,
        local: Option<(LocalId, AbortHandle)>,
    ) -> Admission {
        let ended = self.ctx().is_done();
        let decision = self.with_effects(|state, effects| {
            if ended || !state.takes_new() {
                return Decision::Refused(queued);
            }
            state.count_in(1);
            state.source.locals.extend(local.map(|(id, abort)| {
                let is_cleanup = false;
                (id, Local { abort, is_cleanup })
            }));
            if state.source.waiting() == 0 && state.permits.is_free() {
                state.watch_grace(effects);
                return self.start_now(queued, state, effects);
            }
            let local = match &queued {
                Queued::Local(wait) => Some(wait.clone()),
                Queued::Entry(_) | Queued::Reserved(_) | Queued::Gap => None,
            };
            let number = self.queue_up(queued, state, effects);
            match local {
                Some(wait) => {
                    wait.set_number(number);
                    Decision::QueuedLocal(wait)
                }
                None => Decision::Queued(number),
            }
        });
        match decision {
            Decision::Started => Admission::started(),
            Decision::GetsWorker(task, job) => {
                self.spawn_with_job(task, job);
                Admission::started()
            }
            Decision::Queued(number) => Admission::queued(self.clone(), number),
            Decision::QueuedLocal(wait) => {
                let scheduler = self.clone();
                Admission::queued(Arc::new(LocalDecider { scheduler, wait }), 0)
            }
            Decision::Refused(queued) => {
                self.refuse(queued);
                Admission::never_started()
            }
        }
    }

    /// Puts this at the end of the queue, and returns its number.
    pub(super) fn queue_up(
        &self,
        queued: Queued<E>,
        state: &mut State<Queue<E>>,
        effects: &mut Effects,
    ) -> Number {
        let number = state.source.push(queued);
        state.call_searcher_for_start(|| self.slot(), effects);
        // The permit that it waits for may be with a worker in this thread's LIFO slot.
        effects.flush |= state.source.burst.take_may_be_in_slot();
        state.watch(effects);
        number
    }

    /// Starts a task for which a permit is free.
    fn start_now(
        &self,
        queued: Queued<E>,
        state: &mut State<Queue<E>>,
        effects: &mut Effects,
    ) -> Decision<E> {
        let entry = match queued {
            Queued::Entry(entry) => entry,
            other => {
                if state.source.begin(other, effects) {
                    state.permits.take();
                }
                return Decision::Started;
            }
        };
        state.permits.take();
        self.start_entry(entry, state, effects)
    }

    /// Returns whether a task that starts now may get a worker of its own. It is a guess, made
    /// without the lock, so that the box of a job which is queued is made without the lock.
    fn may_get_worker(&self) -> bool {
        // `Relaxed`: a guess.
        !self.shared.is_burst_full.load(Ordering::Relaxed) && !current::is_job_of(Lending::id(self))
    }

    /// Decides whether a task that starts now gets a worker of its own, and counts it in the burst.
    /// `others` tasks of the group run already.
    fn gets_worker(&self, state: &mut State<Queue<E>>, others: usize) -> bool {
        // With a grace period, another thread may have to abort the task while this one computes,
        // and cannot if its worker is in the LIFO slot of this one. A task that is started by a
        // task of the group goes through the queue, so that a chain of tasks is subject to the
        // budget of a worker's poll.
        let may = !state.has_grace()
            && state.source.ready.is_empty()
            && !current::is_job_of(Lending::id(self));
        if !may {
            return false;
        }
        let gets_worker = state.source.burst.takes_next(others == 0);
        let is_full = state.source.burst.is_full();
        self.shared.is_burst_full.store(is_full, Ordering::Relaxed);
        gets_worker
    }

    /// Starts a task that has its permit: with a worker of its own, or through the queue.
    fn start_entry(
        &self,
        Entry { task, work }: Entry<E>,
        state: &mut State<Queue<E>>,
        effects: &mut Effects,
    ) -> Decision<E> {
        // Its own permit is counted.
        let others = state.permits.running() - 1;
        match work {
            Work::Future(job) if self.gets_worker(state, others) => Decision::GetsWorker(task, job),
            Work::Future(_) => {
                state.source.ready.push_back(Entry { task, work });
                state.call_searcher_for_start(|| self.slot(), effects);
                Decision::Started
            }
            // A closure starts at once, as one that is given to `spawn_blocking` does. So the
            // searcher that is sent for it must not stay in the LIFO slot of the caller's thread.
            Work::Blocking(_) => {
                state.source.ready.push_back(Entry { task, work });
                state.call_searcher(effects);
                Decision::Started
            }
        }
    }

    /// Starts the future if a permit is free now, or returns it.
    pub(crate) fn try_submit<F>(
        self: &Arc<Self>,
        mut task: Task,
        future: F,
        into_work: impl FnOnce(F) -> Work<E>,
    ) -> Result<(), TryGoError<F>> {
        let ended = self.ctx().is_done();
        // The permit is taken first: once the future is in a job, it cannot be returned.
        let tried = self.with_effects(|state, _| {
            if ended || !state.takes_new() {
                return TryStart::Ended;
            }
            if state.source.waiting() > 0 || !state.permits.take() {
                return TryStart::Full;
            }
            state.count_in(1);
            TryStart::HasPermit
        });
        match tried {
            TryStart::Ended => return Err(TryGoError::Ended(future)),
            TryStart::Full => return Err(TryGoError::Full(future)),
            TryStart::HasPermit => {}
        }
        task.open_span(&self.shared.span);
        let entry = Entry {
            task,
            work: into_work(future),
        };
        let decision = self.with_effects(|state, effects| {
            if !state.is_open() {
                return Decision::Refused(Queued::Entry(entry));
            }
            state.watch_grace(effects);
            self.start_entry(entry, state, effects)
        });
        match decision {
            Decision::GetsWorker(task, job) => self.spawn_with_job(task, job),
            // The group was aborted between the two sections.
            Decision::Refused(Queued::Entry(entry)) => self.reject(entry, HadPermit::Yes),
            _ => {}
        }
        Ok(())
    }

    /// Starts a task with a permit that was reserved. If the context is done, gives the permit back
    /// and refuses the task.
    pub(super) fn submit_reserved(self: &Arc<Self>, wait: &PermitWait, entry: Entry<E>) {
        let ended = self.ctx().is_done();
        let decision = self.with_effects(|state, effects| {
            if ended || !state.takes_reserved() {
                return Decision::Refused(Queued::Entry(entry));
            }
            state.permits.use_reserved(wait.reserved_id());
            state.source.end_reservation(wait);
            state.count_in(1);
            state.watch_grace(effects);
            self.start_entry(entry, state, effects)
        });
        match decision {
            Decision::GetsWorker(task, job) => self.spawn_with_job(task, job),
            Decision::Refused(queued) => {
                self.give_back(wait);
                self.refuse(queued);
            }
            _ => {}
        }
    }

    /// Takes back a permit that was reserved and not used.
    pub(super) fn give_back(self: &Arc<Self>, wait: &PermitWait) {
        let ended = self.ctx().is_done();
        self.with_effects(|state, effects| {
            state.source.end_reservation(wait);
            if state.permits.give_back(wait.reserved_id()) {
                state.start_ready(ended, effects);
            }
            // A call of `idle` may wait for this permit alone.
            state.wake_waiter(effects);
        });
    }
}
