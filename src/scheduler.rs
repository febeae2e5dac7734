//! Permits, lending, workers, effects, failures and completion: what a group and a fan-out share.
//!
//! ```text
//!     go, an iterator           Scheduler                   tokio
//!          │              ┌──────────────────┐
//!          ▼              │ state (one lock) │        ┌─ JoinSet ─────────┐
//!       Source ── job ───►│  permits         │─ job ─►│ worker: job, job… │
//!  (queue, item source)   │  source          │◄───────│ worker: job, job… │
//!                         │  failures        │        └───────────────────┘
//!                         └──────────────────┘
//! ```
//!
//! A *worker* is a task of the `JoinSet` that runs one job after another. Under one lock, it
//! releases the permit of the job that has finished and takes the next job. So a task of a bounded
//! group costs a push and a pop, not a spawn and a semaphore. A worker that finds no job leaves:
//! its task finishes. The first tasks of a burst in a group get a worker each, which runs that one
//! job and leaves; so do the items of a small fan-out. These are in no `JoinSet`.
//!
//! # Invariants
//!
//! These are true at any time. The invariants of the bookkeeping are in [`permits`].
//!
//! 1. `open` counts the jobs that were accepted and have not been completed. It is decremented only
//!    after the job's destructor has run, its outcome is recorded, and its permit is free. So a
//!    thread that reads zero sees the effects of every job.
//! 2. `phase` only moves from `Open` to `Closed` (a join has seen that everything is complete) or
//!    to `Aborted`. A job is accepted only in `Open`.
//! 3. No user code runs, and none is dropped, under a lock. The actions that follow from a critical
//!    section (wakes, spawns, drops) are collected in [`Effects`] and performed when the lock is
//!    released.
//! 4. Lock order: `workers` before `state`, because spawning on a runtime that has shut down drops
//!    the worker inside `spawn_on`. While `state` is locked, no other lock is taken.
//! 5. A worker of the `JoinSet` that is dropped before its first poll drops no user code, because
//!    the lock on `workers` may be held. The permit that it was spawned with is moved to
//!    `rejected`. Such a drop means that the runtime has shut down or that the workers were
//!    aborted: the work that is left never runs, and a thread that holds no lock drops it.
//! 6. If a job could start, a searching worker is on its way or a worker is about to look for a job
//!    (permits, 5).
//! 7. A failure is recorded first, then it cancels the context, then its permit is released, then
//!    its job is counted as completed. The cause is that of the first failure, whichever failing
//!    task cancels the context.
//! 8. The scheduler notices that its context is done even if no worker takes the lock: see
//!    [`shutdown`].

pub(crate) mod abort;
pub(crate) mod calls;
mod complete;
pub(crate) mod current;
mod deadline;
mod drain;
pub(crate) mod effects;
pub(crate) mod error;
mod extras;
pub(crate) mod failures;
pub(crate) mod group_error;
pub(crate) mod idle;
mod idlers;
#[cfg(feature = "inspect")]
mod inspected;
pub(crate) mod job;
mod join;
pub(crate) mod lease;
pub(crate) mod ledger;
mod lost;
pub(crate) mod parcel;
pub(crate) mod permits;
pub(crate) mod poll_budget;
mod shutdown;
pub(crate) mod source;
pub(crate) mod state;
pub(crate) mod wakers;
mod watcher;
pub(crate) mod worker_wakers;
mod yields;

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::thread::ThreadId;

use crate::context::{CancelHandle, Context, ListenerKey};
use crate::panic;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{self, Arc, Handle, JoinSet, Mutex, OnceLock};
use deadline::DeadlineTimer;
use effects::Effects;
use failures::OnFailure;
use permits::Permits;
use permits::lending::{Lending, SchedulerId};
use source::Source;
use state::State;
use wakers::Taken;

/// How many workers may have left before one of them joins those.
const LEFT_UNJOINED: usize = 4;

pub(crate) struct Scheduler<S: Source> {
    ctx: Context,
    pub(crate) cancel: CancelHandle,
    pub(crate) on_failure: OnFailure,
    pub(crate) shared: S::Shared,
    /// The runtime that the workers run on: the one in which the first task was started.
    runtime: OnceLock<Runtime>,
    /// `None` until one is spawned.
    workers: Mutex<Option<JoinSet<()>>>,
    state: Mutex<State<S>>,
    /// The number of threads inside `spawn_guarded`. `SeqCst`, like `lost_while_spawning`: if one
    /// thread leaves `spawn_guarded` while another loses a worker, at least one of the two sees the
    /// other.
    spawning: AtomicUsize,
    /// Whether a worker was lost while a thread was inside `spawn_guarded`, which then handles it.
    /// A worker is lost if it is dropped while it is searching, or before it started its own job.
    lost_while_spawning: AtomicBool,
    /// Set with `Phase::Aborted`, for readers that do not take the lock.
    aborted: AtomicBool,
    /// Whether an abort has reached clean-up tasks, too. Written under the lock.
    aborted_cleanup: AtomicBool,
    /// How many workers have left.
    left: AtomicUsize,
    /// The key with which this is registered with its context, to notice a cancellation.
    cancel_key: ListenerKey,
    /// The timer of the context's deadline, once it has been started.
    deadline_timer: OnceLock<DeadlineTimer>,
    /// Whether the workers have been aborted. Written under the lock on `workers`.
    pub(crate) workers_aborted: AtomicBool,
    /// Its entry in the registry.
    #[cfg(feature = "inspect")]
    registered: crate::registry::Registered,
}

// A panic cannot leave a scheduler half-changed: no user code runs under its locks, and the panics
// of jobs, wakers and destructors are caught where these are called. It has to be stated,
// because the compiler cannot see it for the span that all jobs share: a span holds the subscriber.
impl<S: Source> UnwindSafe for Scheduler<S> {}
impl<S: Source> RefUnwindSafe for Scheduler<S> {}

/// The runtime of the tasks.
struct Runtime {
    handle: Handle,
    /// Whether it has several threads, so that workers may run in parallel.
    has_threads: bool,
}

/// The state of a worker right after it was spawned.
pub(crate) enum Spawned {
    Alive,
    /// It has run to its end, or the runtime has shut down and dropped it before its first poll.
    Finished,
    /// It was not spawned, because it is no longer needed.
    Refused,
}

impl Spawned {
    pub(crate) fn of_worker(is_finished: bool) -> Spawned {
        if is_finished {
            Spawned::Finished
        } else {
            Spawned::Alive
        }
    }
}

impl<S: Source> Scheduler<S> {
    pub(crate) fn new(
        source: S,
        shared: S::Shared,
        (ctx, cancel): (Context, CancelHandle),
        limit: usize,
        on_failure: OnFailure,
    ) -> Arc<Scheduler<S>> {
        let has_deadline = ctx.deadline().is_some();
        ctx.record_end_time();
        Arc::new(Scheduler {
            ctx,
            cancel,
            on_failure,
            shared,
            runtime: OnceLock::new(),
            workers: Mutex::new(None),
            state: Mutex::new(State::new(source, limit, has_deadline)),
            spawning: AtomicUsize::new(0),
            lost_while_spawning: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            aborted_cleanup: AtomicBool::new(false),
            left: AtomicUsize::new(0),
            cancel_key: ListenerKey::none(),
            deadline_timer: OnceLock::new(),
            workers_aborted: AtomicBool::new(false),
            #[cfg(feature = "inspect")]
            registered: crate::registry::Registered::new(),
        })
    }

    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.runtime.get().map(|runtime| &runtime.handle)
    }

    pub(crate) fn ctx(&self) -> &Context {
        &self.ctx
    }

    /// Runs `section` under the lock, and performs its effects when the lock is released.
    pub(crate) fn with_effects<T>(
        self: &Arc<Self>,
        section: impl FnOnce(&mut State<S>, &mut Effects) -> T,
    ) -> T {
        let mut effects = Effects::default();
        let output = section(&mut self.state.lock(), &mut effects);
        if effects.is_nothing() {
            // All lists are empty, so there is nothing to drop. Without this line, the destructor
            // checks each list again: in a loop of sections without effects (no lock, optimized,
            // x86-64), a section takes about 18 ns instead of 6 ns.
            std::mem::forget(effects);
        } else {
            self.run_effects(effects);
        }
        output
    }

    /// Reads the state. The caller runs no user code in `look`.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State<S>) -> T) -> T {
        look(&self.state.lock())
    }

    /// Reads the state if the lock is free. `Debug` uses it, because it must never block.
    pub(crate) fn try_read<T>(&self, look: impl FnOnce(&State<S>) -> T) -> Option<T> {
        self.state.try_lock().map(|state| look(&state))
    }

    #[inline(never)]
    fn run_effects(self: &Arc<Self>, effects: Effects) {
        if let Some(why) = effects.enough {
            self.end_context(why);
        }
        effects.wake.for_each(panic::wake);
        effects.stale_wakers.for_each(panic::discard);
        effects.drop_later.into_iter().for_each(panic::discard);
        for (observer, succeeded) in effects.observers {
            observer.ended(&**self, succeeded);
            panic::discard(observer);
            self.with_effects(|state, effects| state.count_out(succeeded, effects));
        }
        if effects.spawn {
            self.spawn_worker();
        }
        if effects.watch {
            self.watch();
        }
        if effects.reject_unstarted {
            self.with_effects(State::reject_unstarted);
        }
        if effects.flush {
            self.flush_lifo_slot();
        }
        if effects.report {
            S::report(self);
        }
    }
}

/// Workers.
impl<S: Source> Scheduler<S> {
    /// Binds the scheduler to the caller's runtime, unless it is bound already.
    ///
    /// # Panics
    ///
    /// Panics outside a runtime if the scheduler is not bound yet.
    #[track_caller]
    pub(crate) fn bind(&self, what: &str) {
        if self.runtime.get().is_some() {
            return;
        }
        match Handle::try_current() {
            Ok(handle) => {
                let has_threads = sync::worker_threads(&handle) > 1;
                let _ = self.runtime.set(Runtime {
                    handle,
                    has_threads,
                });
            }
            Err(_) => panic!(
                "{what} called outside a tokio runtime: call it from a task, \
                 inside `Runtime::block_on`, or with `Handle::enter` held"
            ),
        }
    }

    fn spawn_worker(self: &Arc<Self>) {
        self.spawn_guarded(|workers, runtime| {
            // A join sets the phase and then locks `workers`; nothing is spawned after that. After
            // an abort there may still be work to drop, and a join waits until that is done.
            let wanted = self.with_state(|state| {
                let wanted = state.is_open() || state.has_work();
                if !wanted {
                    state.permits.search_done();
                }
                wanted
            });
            if !wanted {
                return Spawned::Refused;
            }
            let worker = workers.spawn_on(S::worker(self.clone()), runtime);
            Spawned::of_worker(worker.is_finished())
        });
    }

    /// Spawns a worker. If the runtime drops it at once, handles that after the lock is released.
    pub(crate) fn spawn_guarded(
        self: &Arc<Self>,
        spawn: impl FnOnce(&mut JoinSet<()>, &Handle) -> Spawned,
    ) {
        let Some(runtime) = self.runtime() else {
            return;
        };
        self.spawning.fetch_add(1, Ordering::SeqCst);
        let spawned = {
            let mut workers = self.workers.lock();
            let workers = workers.get_or_insert_with(JoinSet::new);
            while workers.try_join_next().is_some() {}
            spawn(workers, runtime)
        };
        self.spawning.fetch_sub(1, Ordering::SeqCst);
        if self.lost_while_spawning.swap(false, Ordering::SeqCst) {
            match spawned {
                // A worker was lost and this one has ended at once: the runtime has shut down. Or
                // it has run to its end while another one was aborted. Then clean-up tasks go on.
                Spawned::Finished if self.read(State::is_open) => self.runtime_lost(),
                Spawned::Finished => self.drop_what_is_left(),
                Spawned::Alive | Spawned::Refused => self.replace_worker(),
            }
        }
    }

    /// Returns whether the workers have been aborted. The caller holds the lock on `workers`.
    pub(crate) fn are_workers_aborted(&self) -> bool {
        self.workers_aborted.load(Ordering::Relaxed)
    }

    /// Makes the task that was just spawned or woken visible to the other threads of the runtime.
    ///
    /// tokio puts a task that a worker thread spawns or wakes into that thread's LIFO slot. No
    /// other thread takes it from there, and the caller may now compute or block for a long time.
    /// So an empty task is spawned, which pushes it out of the slot into the queue that other
    /// threads steal from.
    pub(crate) fn flush_lifo_slot(&self) {
        if let (Some(_), Some(runtime)) = (self.slot(), self.runtime()) {
            drop(runtime.spawn(std::future::ready(())));
        }
    }

    /// Returns the calling thread if it has a LIFO slot and the runtime has other threads.
    pub(crate) fn slot(&self) -> Option<ThreadId> {
        self.has_threads().then(sync::thread_with_slot).flatten()
    }

    /// Spawns an internal task into the `JoinSet`, unless nothing is left that it could serve.
    pub(crate) fn spawn_task<F>(self: &Arc<Self>, future: impl FnOnce(&Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(runtime) = self.runtime() else {
            return;
        };
        let mut workers = self.workers.lock();
        let workers = workers.get_or_insert_with(JoinSet::new);
        while workers.try_join_next().is_some() {}
        // After an abort there may still be work to drop, which counts here as it does in
        // `spawn_worker`.
        if self.read(|state| state.is_open() || state.has_work()) {
            workers.spawn_on(future(self), runtime);
        }
    }

    /// Joins the workers that have left. A worker calls it when it leaves, and one call in
    /// `LEFT_UNJOINED` joins, so an idle group keeps only a few finished workers. If another thread
    /// holds the lock, that thread joins them.
    pub(crate) fn reap(&self) {
        // `Relaxed`: only the count matters.
        if self.left.fetch_add(1, Ordering::Relaxed) % LEFT_UNJOINED != LEFT_UNJOINED - 1 {
            return;
        }
        if let Some(mut workers) = self.workers.try_lock() {
            while workers.as_mut().and_then(JoinSet::try_join_next).is_some() {}
        }
    }

    /// Runs `section` under the lock, with the permits. The section must have no effects.
    pub(crate) fn with_permits<T>(&self, section: impl FnOnce(&mut Permits) -> T) -> T {
        self.with_state(|state| section(&mut state.permits))
    }

    /// Runs `section` under the lock. The section must have no effects.
    pub(crate) fn with_state<T>(&self, section: impl FnOnce(&mut State<S>) -> T) -> T {
        section(&mut self.state.lock())
    }

    /// Starts the jobs that can start, and calls a worker for them. It serves a source that has
    /// jobs from the beginning, and a worker that was dropped in the middle of a job.
    pub(crate) fn start_ready(self: &Arc<Self>) {
        let ended = self.ctx.is_done();
        self.with_effects(|state, effects| state.start_ready(ended, effects));
    }

    /// Returns whether workers may run in parallel.
    pub(crate) fn has_threads(&self) -> bool {
        self.runtime
            .get()
            .is_some_and(|runtime| runtime.has_threads)
    }

    /// Returns whether everything was aborted, as far as this thread knows.
    pub(crate) fn is_aborted(&self) -> bool {
        // `Relaxed`: a hint. A job that was taken before is aborted a little later.
        self.aborted.load(Ordering::Relaxed)
    }

    /// Returns whether an abort has reached clean-up tasks, as far as this thread knows. Under the
    /// lock the answer is exact.
    pub(crate) fn is_cleanup_aborted(&self) -> bool {
        self.aborted_cleanup.load(Ordering::Relaxed)
    }
}

impl<S: Source> Lending for Scheduler<S> {
    fn id(&self) -> SchedulerId {
        std::ptr::from_ref(self).cast::<()>() as usize
    }

    fn is_aborted(&self) -> bool {
        Scheduler::is_aborted(self)
    }

    fn read(&self, section: &mut dyn FnMut(&mut Permits)) {
        section(&mut self.state.lock().permits);
    }

    fn update(self: Arc<Self>, section: &mut dyn FnMut(&mut Permits, &mut Taken<'_>) -> bool) {
        let ended = self.ctx.is_done();
        self.with_effects(|state, effects| {
            if section(&mut state.permits, &mut effects.wakers()) {
                state.start_ready(ended, effects);
            }
        });
    }
}
