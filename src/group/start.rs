//! Readiness: a task that says when it is ready, and goes on.
//!
//! # Invariants
//!
//! What a failed task leaves is on its way to a caller that may be dropped at any moment, on any
//! thread.
//!
//! 1. A call leaves [`Stage::Starting`] once: by `ok`, or by the failure of its task. The first
//!    decides: a value that comes after the failure is dropped, and a failure that comes after the
//!    value is the group's.
//! 2. A caller is entered in the scheduler's [`Calls`](crate::scheduler::calls::Calls) from before its task is
//!    submitted until it has its outcome or is dropped. A failure that decides a call is kept
//!    there, under the scheduler's lock, before the task counts as ended. If the caller is not entered
//!    any more, the failure is the group's at once. A panic is the group's in any case.
//! 3. A failure that is kept leaves once, under that lock: to its caller; or to the group, when the
//!    caller is dropped, or when a wait finds it and has nothing else left to wait for. So no wait
//!    returns `Ok` beside a failure that is lost.
//! 4. A wait does not wait for a caller. A caller that was leaked, or that is alive and not polled
//!    any more (`select! { r = &mut start => .., _ = stop => .. }`, and then `wait`), would hang it
//!    for ever. It yields some turns, so that a caller that has been woken takes its failure first,
//!    and then the failure is the group's.

use std::fmt;
use std::future::poll_fn;

use tokio::task::coop;

use super::queue::{Queue, Task, Work};
use super::task_handle::{Slot, TaskHandle};
use crate::context::ContextError;
use crate::context::{Cause, StaticCause};
use crate::scheduler::Scheduler;
use crate::scheduler::calls::{CallId, Failure};
use crate::scheduler::error::{Label, TaskErrorKind};
use crate::scheduler::job;
use crate::scheduler::source::{GroupError, Lending, Observer};
use crate::sync::{Arc, Mutex, Weak};

static NOT_READY: StaticCause = StaticCause("the task ended without saying that it was ready");
static GROUP_GONE: StaticCause = StaticCause("the group has gone");

/// How a task that [`start`](crate::Group::start) started says that it is ready.
///
/// Dropping it says nothing: what `start` waits for then is the end of the task.
#[must_use = "`start` waits until `ok` is called, or the task ends"]
pub struct Ready<R> {
    call: Arc<Call<R>>,
}

impl<R> Ready<R> {
    /// The task is ready; `value` is what `start` returns. The task goes on, as an ordinary one of its group.
    ///
    /// If the task has failed before (another task may hold this, or a destructor of the task
    /// itself), `value` is dropped: `start` returns the failure.
    pub fn ok(self, value: R) {
        let mut stage = self.call.stage.lock();
        if *stage == Stage::Failed {
            drop(stage);
            drop(value);
            return;
        }
        *stage = Stage::Ready;
        // In one with the stage: a task that ends now finds the value there.
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

/// A call of `start`, as its task and its caller see it.
struct Call<R> {
    /// Where the value waits, and the caller for it: until the task is ready, or has ended.
    slot: Arc<Slot<R>>,
    scheduler: Weak<dyn Lending>,
    /// Its lock is taken before that of `slot`.
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

    /// The task has failed. Says whether that decides the call.
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
        // What it was ready with stays, however it ended later.
        self.slot.end(Some(scheduler));
    }

    fn failed_call(&self) -> Option<CallId> {
        self.fail().then(|| self.id())
    }
}

/// The caller's side: while it is there, a failure before readiness is the call's (invariant 2).
struct Caller<R, E>
where
    E: GroupError,
{
    scheduler: Arc<Scheduler<Queue<E>>>,
    /// Kept, so that no other call gets its id.
    call: Arc<Call<R>>,
}

impl<R, E> Caller<R, E>
where
    E: GroupError,
{
    fn enter(scheduler: Arc<Scheduler<Queue<E>>>, call: Arc<Call<R>>) -> Caller<R, E> {
        scheduler.with(|state, _| state.calls.enter(call.id()));
        Caller { scheduler, call }
    }

    /// Takes the failure that was kept for it, and goes.
    fn leave(&self) -> Option<Failure<E>> {
        self.scheduler
            .with(|state, _| state.calls.leave(self.call.id()))
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

/// The whole of `start`. The function is in a box whatever its size, so that the future that holds it
/// is small; one that captures nothing allocates nothing.
pub(crate) async fn start<E, R, S, F>(
    scheduler: Option<Arc<Scheduler<Queue<E>>>>,
    label: Label,
    begin: Box<S>,
) -> Result<R, E>
where
    E: GroupError,
    R: Send + 'static,
    S: FnOnce(Ready<R>) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
{
    let stopped = |why| ContextError::cancelled(Some(Cause::from_static(why)));
    let Some(scheduler) = scheduler else {
        // It waits for nothing, and a loop around it is to yield all the same.
        poll_fn(coop::poll_proceed).await.made_progress();
        return Err(E::from(stopped(&GROUP_GONE)));
    };
    scheduler.bind("start");
    let weak: Weak<dyn Lending> = Arc::<Scheduler<Queue<E>>>::downgrade(&scheduler);
    let slot = Slot::new();
    // Awaiting it lends, as awaiting any handle does.
    let value = TaskHandle::new(slot.clone(), weak.clone());
    let call = Arc::new(Call {
        slot,
        scheduler: weak,
        stage: Mutex::new(Stage::Starting),
    });
    let caller = Caller::enter(scheduler, call.clone());
    let work = {
        let call = call.clone();
        let ready = Ready { call: call.clone() };
        let finish = move |result: Result<(), E>| {
            if result.is_err() {
                // Now, and not when it is recorded: the destructors that run in between may say
                // `ok`.
                call.fail();
            }
            job::result(result)
        };
        if job::is_big::<F>() {
            Work::Future(Box::pin(job::of_start(
                move || Box::pin(begin(ready)),
                finish,
            )))
        } else {
            Work::Future(Box::pin(job::of_start(move || begin(ready), finish)))
        }
    };
    let task = Task::new(label, Some(call));
    caller.scheduler.submit(task, work);
    if let Some(value) = value.await {
        return Ok(value);
    }
    let kind = caller.leave().map(|failure| failure.kind);
    Err(match kind {
        Some(TaskErrorKind::Failed(error)) => error,
        Some(TaskErrorKind::Aborted(error)) => E::from(error),
        // It panicked, or ended `Ok`, or a wait has taken its failure.
        Some(TaskErrorKind::Panicked(_)) | None => {
            let ended = caller.scheduler.ctx().err();
            E::from(ended.unwrap_or_else(|| stopped(&NOT_READY)))
        }
    })
}
