//! What a group and a fan-out share: permits, lending, workers, effects, failures and completion.
//!
//! ```text
//!     go, an iterator           Scheduler                   tokio
//!          │              ┌──────────────────┐
//!          ▼              │ state (one lock) │        ┌─ JoinSet ─────────┐
//!       Source ── job ────►│  permits         │─ job ─►│ worker: job, job… │
//!  (queue, item source)  │  source          │◄───────│ worker: job, job… │
//!                         │  failures        │        └───────────────────┘
//!                         └──────────────────┘
//! ```
//!
//! A *worker* is a task of the `JoinSet` that runs one job after another: it comes to the counter, hands in the permit of
//! what has ended, and takes what is next. A bounded group so pays for a push and a pop, not for a spawn and a semaphore.
//! When there is nothing to take, the worker leaves.
//!
//! # Invariants
//!
//! These are true at any time; those of the bookkeeping are in [`permits`](permits).
//!
//! 1. `open` counts what was accepted and has not ended. It goes down only after the job's destructor has run, its outcome
//!    is recorded, and its permit is free: so whoever sees zero sees everything.
//! 2. `phase` only moves from `Open` to `Closed` (a wait saw the end) or `Aborted`. Nothing is accepted unless `Open`.
//! 3. No user code runs, and none is dropped, under a lock: what follows from a critical section (wakes, spawns, drains)
//!    is collected in [`Effects`] and done when the lock is released.
//! 4. Locks: `workers` before `state`, because spawning on a dead runtime drops the worker inside `spawn_on`. `state` is
//!    never held while another is taken.
//! 5. A worker that is spawned holds no user code until it is polled. If it is dropped unpolled, the runtime is gone (or
//!    the scheduler aborted): nothing will ever run, and what is left is disposed of, by whoever is not under a lock.
//! 6. If something could start, a searcher is on its way or a worker is in its turn (permits, 5).
//! 7. A failure sets the error, then ends the context, then gives its permit back, then counts as ended. The cause is
//!    that of the first failure, whichever task comes to say so.
//! 8. Nobody need come to the counter for the context's end to be seen: see [`shutdown`].

pub(crate) mod abort;
pub(crate) mod calls;
mod complete;
pub(crate) mod current;
pub(crate) mod effects;
pub(crate) mod error;
pub(crate) mod failures;
pub(crate) mod job;
mod join;
pub(crate) mod lease;
pub(crate) mod lending;
pub(crate) mod permits;
pub(crate) mod poll_budget;
mod shutdown;
pub(crate) mod source;
pub(crate) mod state;

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::task;
use std::thread::ThreadId;

use crate::context::{CancelHandle, Context, StaticCause};
use crate::panic;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{self, Arc, Handle, JoinSet, Mutex, OnceLock};
use effects::{Effects, Wakers};
use failures::OnFailure;
use lending::SchedulerId;
use permits::{Permits, Yielded};
use source::{Lending, Source, Tag};
use state::{Completion, HadPermit, Phase, State};

/// How many workers may have left before they are joined.
const LEFT_UNJOINED: usize = 4;

static RUNTIME_GONE: StaticCause = StaticCause("the runtime of the tasks has shut down");

pub(crate) struct Scheduler<S: Source> {
    ctx: Context,
    pub(crate) cancel: CancelHandle,
    pub(crate) on_failure: OnFailure,
    pub(crate) shared: S::Shared,
    /// The runtime that the workers run on: the one in which the first `go` was called.
    runtime: OnceLock<Runtime>,
    pub(crate) workers: Mutex<JoinSet<()>>,
    state: Mutex<State<S>>,
    /// Threads inside `spawn_worker`. `SeqCst` with `lost_while_spawning`: of a thread that leaves there and a searcher that is dropped, at
    /// least one sees the other.
    spawning: AtomicUsize,
    /// A searcher was dropped while a thread was inside `spawn_worker`, which sees to it.
    lost_while_spawning: AtomicBool,
    /// Set with `Phase::Aborted`, for those who do not take the lock to look.
    aborted: AtomicBool,
    /// How many workers have left.
    left: AtomicUsize,
    /// Whether the workers have been aborted.
    pub(crate) workers_aborted: AtomicBool,
}

// A panic cannot leave a scheduler half-changed: no user code runs under its locks, and the panics
// of jobs, wakers and destructors are caught where these are called. It has to be stated,
// because the compiler cannot see it for the span that all jobs share: a span holds the subscriber.
impl<S: Source> UnwindSafe for Scheduler<S> {}
impl<S: Source> RefUnwindSafe for Scheduler<S> {}

/// The runtime of the tasks.
struct Runtime {
    handle: Handle,
    /// Whether it has more than one thread, so that its workers may run at once.
    has_threads: bool,
}

/// What has become of a worker that was spawned.
pub(crate) enum Spawned {
    Alive,
    /// It has ended, or the runtime has dropped it unpolled.
    Finished,
    /// It was not spawned: there is no work for it any more.
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
            workers: Mutex::new(JoinSet::new()),
            state: Mutex::new(State::new(source, limit, has_deadline)),
            spawning: AtomicUsize::new(0),
            lost_while_spawning: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            left: AtomicUsize::new(0),
            workers_aborted: AtomicBool::new(false),
        })
    }

    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.runtime.get().map(|runtime| &runtime.handle)
    }

    pub(crate) fn ctx(&self) -> &Context {
        &self.ctx
    }

    /// A critical section, and then what follows from it.
    pub(crate) fn with_effects<T>(
        self: &Arc<Self>,
        section: impl FnOnce(&mut State<S>, &mut Effects) -> T,
    ) -> T {
        let mut effects = Effects::default();
        let output = section(&mut self.state.lock(), &mut effects);
        self.run_effects(effects);
        output
    }

    /// Looks at the state without consequences.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State<S>) -> T) -> T {
        look(&self.state.lock())
    }

    /// For `Debug`, which never blocks.
    pub(crate) fn try_read<T>(&self, look: impl FnOnce(&State<S>) -> T) -> Option<T> {
        self.state.try_lock().map(|state| look(&state))
    }

    fn run_effects(self: &Arc<Self>, effects: Effects) {
        if effects.is_nothing() {
            // All lists are empty, so there is nothing to drop. Without this line the compiler checks
            // each list again: a critical section of which nothing follows takes about 18 ns instead
            // of 6 ns, in a loop of such sections without a lock (optimized, x86-64).
            std::mem::forget(effects);
            return;
        }
        if let Some(why) = effects.enough {
            self.end_context(why);
        }
        effects.wake.for_each(panic::wake);
        effects.stale_wakers.for_each(panic::discard);
        effects.drop_later.into_iter().for_each(panic::discard);
        for (observer, succeeded) in effects.observers {
            observer.ended(&**self, succeeded);
            panic::discard(observer);
            self.with_effects(State::count_out);
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
    /// Binds the scheduler to the runtime that the caller is in, the first time.
    ///
    /// # Panics
    ///
    /// Outside a runtime, the first time.
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
                "{what} called outside a tokio runtime: call it from a task, inside `Runtime::block_on`, or with \
                 `Handle::enter` held"
            ),
        }
    }

    fn spawn_worker(self: &Arc<Self>) {
        self.spawn_guarded(|workers, runtime| {
            // Once a wait has locked `workers` after it set the phase, nothing is added any more. An
            // abort leaves work to be dropped, and a wait is not over before that is done.
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

    /// Spawns a worker, and does what is left to do if the runtime has dropped it at once.
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
            while workers.try_join_next().is_some() {}
            spawn(&mut workers, runtime)
        };
        self.spawning.fetch_sub(1, Ordering::SeqCst);
        if self.lost_while_spawning.swap(false, Ordering::SeqCst) {
            match spawned {
                // A runtime that has shut down drops what is spawned on it at once.
                Spawned::Finished => self.runtime_lost(),
                Spawned::Alive | Spawned::Refused => self.replace_worker(),
            }
        }
    }

    /// Whether an abort has hit the workers. Known to a caller that has the lock on `workers`.
    pub(crate) fn are_workers_aborted(&self) -> bool {
        self.workers_aborted.load(Ordering::Relaxed)
    }

    /// Lets the other threads of the runtime see what was just spawned or woken.
    ///
    /// tokio puts what a worker thread spawns or wakes into that thread's LIFO slot. No other
    /// thread takes it from there, and the caller may now compute, or block, for a long time. So an
    /// empty task pushes it out of the slot, into the queue that others steal from.
    pub(crate) fn flush_lifo_slot(self: &Arc<Self>) {
        if self.slot().is_some() {
            self.spawn_task(|_| std::future::ready(()));
        }
    }

    /// The calling thread, if what it spawns may stay in a LIFO slot while another thread is idle.
    pub(crate) fn slot(&self) -> Option<ThreadId> {
        self.has_threads().then(sync::thread_with_slot).flatten()
    }

    /// Spawns a task of our own into the `JoinSet`, unless there is nothing left that it could
    /// serve.
    pub(crate) fn spawn_task<F>(self: &Arc<Self>, future: impl FnOnce(&Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(runtime) = self.runtime() else {
            return;
        };
        let mut workers = self.workers.lock();
        while workers.try_join_next().is_some() {}
        // As in `spawn_worker`: what is left of an abort is work, too.
        if self.read(|state| state.is_open() || state.has_work()) {
            workers.spawn_on(future(self), runtime);
        }
    }

    /// Joins the workers that have left, for one that leaves now. One in a few does so, so an idle
    /// group keeps a few of them at most. If another thread has the lock, it does that itself.
    pub(crate) fn reap(&self) {
        // `Relaxed`: only the count matters.
        if self.left.fetch_add(1, Ordering::Relaxed) % LEFT_UNJOINED != LEFT_UNJOINED - 1 {
            return;
        }
        if let Some(mut workers) = self.workers.try_lock() {
            while workers.try_join_next().is_some() {}
        }
    }

    /// Hands something to the blocking pool; if the runtime is gone, it is dropped on the spot, and so under no lock.
    pub(crate) fn spawn_blocking(&self, run: impl FnOnce() + Send + 'static) {
        if let Some(runtime) = self.runtime() {
            runtime.spawn_blocking(run);
        }
    }

    /// A searcher was dropped before it came to the counter (invariant 5): its runtime has shut down,
    /// or an abort has hit it, and then another one drops what never runs.
    ///
    /// If that happened inside `spawn_worker`, the lock on `workers` is held further up the stack,
    /// and `spawn_worker` does the rest.
    pub(crate) fn searcher_lost(self: &Arc<Self>) {
        let phase = self.with_state(|state| {
            state.permits.search_done();
            state.phase
        });
        self.worker_lost(phase);
    }

    /// A worker was dropped unpolled, with the job that it was spawned with. As with a searcher, its
    /// runtime has shut down or an abort has hit it. The job is user code, so it is dropped where no
    /// lock is held.
    pub(crate) fn worker_lost_with_job(self: &Arc<Self>, tag: S::Tag, work: S::Work) {
        let phase = self.with_state(|state| {
            state.reject(vec![(tag, work)], HadPermit::Yes);
            state.phase
        });
        self.worker_lost(phase);
    }

    fn worker_lost(self: &Arc<Self>, phase: Phase) {
        if phase == Phase::Closed {
            return;
        }
        // A read-modify-write, like the one in `spawn_guarded`: the later of the two sees what the
        // thread of the earlier one did before it.
        self.searcher_lost.swap(true, Ordering::SeqCst);
        if self.spawning.load(Ordering::SeqCst) > 0 {
            return;
        }
        if self.lost_while_spawning.swap(false, Ordering::SeqCst) {
            match phase {
                Phase::Open => self.runtime_lost(),
                Phase::Aborted | Phase::Closed => self.replace_worker(),
            }
        }
    }

    /// The runtime has shut down: nothing will ever run, and what is left is dropped here.
    fn runtime_lost(self: &Arc<Self>) {
        self.with_state(|state| state.runtime_lost = true);
        self.abort(&RUNTIME_GONE);
        self.dispose_all();
        S::report(self);
    }

    /// An abort has hit a worker. What it would have done is for another one to do, or for this
    /// thread if there is no runtime for workers any more.
    fn replace_worker(self: &Arc<Self>) {
        let is_runtime_lost = self.with_effects(|state, effects| {
            state.call_searcher(effects);
            state.runtime_lost
        });
        if is_runtime_lost {
            self.dispose_all();
        }
    }

    /// Drops all that never runs, in this thread, which holds no lock.
    fn dispose_all(self: &Arc<Self>) {
        // Ends: what was aborted gets no more work.
        while let Some(rejected) = self.with_state(State::next_rejected) {
            S::dispose(self, rejected);
        }
    }

    /// The permits alone, where nothing follows from a change of them.
    pub(crate) fn with_permits<T>(&self, section: impl FnOnce(&mut Permits) -> T) -> T {
        self.with_state(|state| section(&mut state.permits))
    }

    /// The state alone, where nothing follows from a change of it.
    fn with_state<T>(&self, section: impl FnOnce(&mut State<S>) -> T) -> T {
        section(&mut self.state.lock())
    }

    /// Starts what may start and has somebody look: for a source that has something from the start, and for what a worker that
    /// left in mid-job has made room for.
    pub(crate) fn start_ready(self: &Arc<Self>) {
        let ended = self.ctx.is_done();
        self.with_effects(|state, effects| state.start_ready(ended, effects));
    }

    /// Completes a job whose end is awaited, in a section of its own: its observer claims a permit
    /// before that goes to a job that has not started.
    pub(crate) fn complete_observed(self: &Arc<Self>, completed: &mut Option<Completion<S>>) {
        if let Some(observed) = completed.take_if(|completed| completed.tag.is_observed()) {
            self.with_effects(|state, effects| state.complete(observed, effects));
        }
    }

    /// A worker that holds no job lets the other tasks of the runtime run. It is scheduled again
    /// only if no searcher is on its way to take over.
    pub(crate) fn yield_worker(self: &Arc<Self>, mut completed: Option<Completion<S>>) -> Yielded {
        let ended = self.ctx.is_done();
        self.complete_observed(&mut completed);
        let yielded = self.with_effects(|state, effects| {
            if let Some(completed) = completed {
                state.complete(completed, effects);
            }
            state.start(ended, effects);
            if state.has_work() {
                state.permits.yields()
            } else {
                Yielded::Leaves
            }
        });
        if yielded == Yielded::Leaves {
            self.reap();
        }
        yielded
    }

    /// On a runtime with one thread, a searcher that takes over from a worker that has yielded lets
    /// the runtime poll its timers and sockets first. Whether it does, and is woken then.
    pub(crate) fn waits_behind_driver(&self, cx: &mut task::Context<'_>) -> bool {
        // That worker has yielded to this one, and to all other tasks, too.
        let waits = !self.has_threads() && self.state.lock().permits.takes_over();
        if waits {
            self.wake_behind_others(cx);
        }
        waits
    }

    /// Whether workers may run at once.
    pub(crate) fn has_threads(&self) -> bool {
        self.runtime
            .get()
            .is_some_and(|runtime| runtime.has_threads)
    }

    /// Has a worker that yields polled again, behind what else is ready.
    ///
    /// Another thread may take it meanwhile. Where there is none, it waits until the runtime has
    /// polled its timers and sockets: tokio does so after 61 polls of tasks or when nothing is
    /// ready, and 61 polls of a worker are long.
    pub(crate) fn wake_behind_others(&self, cx: &mut task::Context<'_>) {
        if self.has_threads() {
            cx.waker().wake_by_ref();
        } else {
            sync::wake_after_driver(cx);
        }
    }

    /// Whether everything was stopped, as far as this thread knows.
    pub(crate) fn is_aborted(&self) -> bool {
        // `Relaxed`: a hint. What was taken before is stopped a little later.
        self.aborted.load(Ordering::Relaxed)
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

    fn update(self: Arc<Self>, section: &mut dyn FnMut(&mut Permits, &mut Wakers) -> bool) {
        let ended = self.ctx.is_done();
        self.with_effects(|state, effects| {
            if section(&mut state.permits, &mut effects.stale_wakers) {
                state.start_ready(ended, effects);
            }
        });
    }
}
