//! Implements `start`: a task that says when it is ready, and then runs on.
//!
//! # Invariants
//!
//! The failure of a task is on its way to a caller that may be dropped at any moment, on any
//! thread.
//!
//! 1. A call leaves [`Stage::Starting`] once: through `ok`, or through the failure of its task. The
//!    first decides: a value that comes after the failure is dropped, and a failure that comes
//!    after the value is the group's.
//! 2. A caller is entered in the scheduler's [`Calls`](crate::scheduler::calls::Calls) before its
//!    task is submitted, and stays there until it has its outcome or is dropped. A failure that
//!    decides a call is kept there, under the scheduler's lock, before the task counts as ended. If
//!    the caller is not entered any more, the failure is the group's at once. A panic is the
//!    group's in any case.
//! 3. A failure that is kept is taken out once, under that lock: by its caller, or for the group.
//!    The group gets it when the caller is dropped, or when a wait finds it and has nothing else
//!    left to wait for. So no wait returns `Ok` while a failure is lost.
//! 4. A wait does not wait for a caller. It would never return if the caller was leaked, or is
//!    alive and not polled any more (`select! { r = &mut start => .., _ = stop => .. }`, and then
//!    `wait`). It yields a few times, so that a caller that was woken takes its failure first.
//!    After that the failure is the group's.

use std::fmt;
use std::future::poll_fn;

use tokio::task::coop;

use super::error::{GROUP_DROPPED, stopped};
use super::policy::Options;
use super::queue::Queue;
use super::task::Task;
use super::task_handle::{Slot, TaskHandle};
use crate::context::{Context, RunOwned, StaticCause};
use crate::scheduler::Scheduler;
use crate::scheduler::calls::{CallId, Failure};
use crate::scheduler::effects::Observer;
use crate::scheduler::error::{Label, TaskErrorKind};
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{self, Job, JobResult};
use crate::scheduler::permits::lending::Lending;
use crate::sync::{Arc, Mutex, Weak};

static NOT_READY: StaticCause = StaticCause("the task finished without calling `Ready::ok`");

/// Reports that a task of [`start`](crate::Group::start) is ready.
///
/// Dropping it without calling [`ok`](Ready::ok) reports nothing: `start` then waits until the task
/// has finished, and fails.
#[doc(alias("TaskStatus", "task_status"))]
#[must_use = "`start` waits until `ok` is called or the task has finished"]
pub struct Ready<R> {
    call: Arc<Call<R>>,
}

impl<R> Ready<R> {
    /// Reports that the task is ready, and makes `start` return `value`. The task runs on as an
    /// ordinary task of its group.
    ///
    /// If the task has failed before, `value` is dropped and `start` returns the failure. This can
    /// happen if another task holds the `Ready`, or a destructor of the task itself does.
    pub fn ok(self, value: R) {
        let mut stage = self.call.stage.lock();
        if *stage == Stage::Failed {
            drop(stage);
            drop(value);
            return;
        }
        *stage = Stage::Ready;
        // Under the lock on the stage: a task that ends now finds the value there.
        let unwanted = self.call.slot.try_put(value);
        drop(stage);
        drop(unwanted);
        let scheduler = self.call.scheduler.upgrade();
        self.call.slot.end(scheduler.as_deref());
    }
}

impl<R> fmt::Debug for Ready<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

/// A call of `start`, shared by its task and its caller.
struct Call<R> {
    /// Keeps the value, and the waker of the caller until the task is ready or has ended.
    slot: Arc<Slot<R>>,
    scheduler: Weak<dyn Lending>,
    /// This lock is taken before that of `slot`.
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    Ready,
    Failed,
}

impl<R> Call<R> {
    fn id(&self) -> CallId {
        std::ptr::from_ref(self).cast::<()>() as CallId
    }

    /// Notes that the task has failed. Returns whether that decides the call.
    fn fail(&self) -> bool {
        let mut stage = self.stage.lock();
        if *stage == Stage::Starting {
            *stage = Stage::Failed;
        }
        *stage == Stage::Failed
    }
}

impl<R: Send> Observer for Call<R> {
    fn ended(&self, scheduler: &dyn Lending, _: bool) {
        // A value that was passed to `ok` stays, however the task ended later.
        self.slot.end(Some(scheduler));
    }

    fn failed_call(&self) -> Option<CallId> {
        self.fail().then(|| self.id())
    }
}

/// The caller's side. While it exists, a failure before readiness is the call's (invariant 2).
struct Caller<R, E>
where
    E: GroupError,
{
    scheduler: Arc<Scheduler<Queue<E>>>,
    /// Keeps the address in use, so that no other call gets the same id.
    call: Arc<Call<R>>,
}

impl<R, E> Caller<R, E>
where
    E: GroupError,
{
    fn enter(scheduler: Arc<Scheduler<Queue<E>>>, call: Arc<Call<R>>) -> Caller<R, E> {
        scheduler.with_effects(|state, _| state.calls.enter(call.id()));
        Caller { scheduler, call }
    }

    /// Removes the caller, and returns the failure that was kept for it.
    fn leave(&self) -> Option<Failure<E>> {
        self.scheduler
            .with_effects(|state, _| state.calls.leave(self.call.id()))
    }
}

impl<R, E> Drop for Caller<R, E>
where
    E: GroupError,
{
    fn drop(&mut self) {
        if let Some(failure) = self.leave() {
            self.scheduler.fail(failure);
        }
    }
}

/// Starts a task and waits until it is ready.
///
/// `begin` is in a box whatever its size, so that this future is small. A box of a closure that
/// captures nothing allocates nothing.
pub(crate) async fn start<E, R, S, F>(
    scheduler: Option<Arc<Scheduler<Queue<E>>>>,
    label: Label,
    options: Options,
    begin: Box<S>,
) -> Result<R, E>
where
    E: GroupError,
    R: Send + 'static,
    S: FnOnce(Context, Ready<R>) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
{
    let Some(scheduler) = scheduler else {
        // There is nothing to wait for, but a loop around this call must yield to other tasks.
        poll_fn(coop::poll_proceed).await.made_progress();
        return Err(E::from(stopped(&GROUP_DROPPED)));
    };
    scheduler.bind("start");
    let weak: Weak<dyn Lending> = Arc::<Scheduler<Queue<E>>>::downgrade(&scheduler);
    let slot = Slot::new();
    // Awaiting it lends the permit of the caller, as awaiting any handle does.
    let value = TaskHandle::new(slot.clone(), weak.clone());
    let call = Arc::new(Call {
        slot,
        scheduler: weak,
        stage: Mutex::new(Stage::Starting),
    });
    let caller = Caller::enter(scheduler, call.clone());
    let (begin, finish) = {
        let call = call.clone();
        let ready = Ready { call: call.clone() };
        let finish = move |result: JobResult<E>| {
            if result.is_err() {
                // Now, and not when the failure is recorded: a destructor that runs in between may
                // call `ok`.
                call.fail();
            }
            result
        };
        (move |ctx| begin(ctx, ready), finish)
    };
    let group = caller.scheduler.ctx().clone();
    let task = Task::with_policy(label, Some(call), options.policy);
    if let Some(max) = options.cleanup {
        let begin = move || {
            let ctx = group.shield(max);
            RunOwned::new(ctx.clone(), begin(ctx))
        };
        let finish = move |ended| finish(job::result_under(ended));
        let job: Job<E> = Box::pin(job::of_start(begin, finish));
        caller.scheduler.submit_with(task, job);
    } else if const { job::is_big::<F>() } {
        let begin = move || Box::pin(begin(group));
        let job = job::of_start(begin, move |ended| finish(job::result(ended)));
        caller.scheduler.submit_with(task, job);
    } else {
        let job = job::of_start(
            move || begin(group),
            move |ended| finish(job::result(ended)),
        );
        caller.scheduler.submit_with(task, job);
    }
    if let Ok(value) = value.await {
        return Ok(value);
    }
    let kind = caller.leave().map(|failure| failure.kind);
    Err(match kind {
        Some(TaskErrorKind::Failed(error)) => error,
        Some(TaskErrorKind::Aborted(error)) => E::from(error),
        // The task panicked or returned `Ok`, or a wait has taken its failure.
        Some(TaskErrorKind::Panicked(_)) | None => {
            let ended = caller.scheduler.ctx().err();
            E::from(ended.unwrap_or_else(|| stopped(&NOT_READY)))
        }
    })
}
