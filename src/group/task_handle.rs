//! A handle to a task with a value: what `spawn` returns.

mod slot;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use tokio::task::coop;

use super::error::{GROUP_DROPPED, stopped};
use super::handle::{Admission, Number};
use crate::context::{CancelHandle, Cause, ContextError, StaticCause};
use crate::panic;
use crate::scheduler::current;
use crate::scheduler::lease::Lease;
use crate::scheduler::permits::lending::{Lending, Waiter};
use crate::scheduler::wakers::{Taken, Wakers};
use crate::sync::{Arc, Weak};
pub(crate) use slot::Slot;
use slot::Stop;

/// A handle to a task with a value, from [`spawn`](crate::Group::spawn),
/// [`spawn_with`](crate::Group::spawn_with) or [`spawn_blocking`](crate::Group::spawn_blocking).
///
/// The value is kept in the handle: [`take`](TaskHandle::take) it after `wait`. Or await the
/// handle, in a sibling or anywhere else. It resolves when the task has finished, to the value or
/// to an error. So `Ok((a.await?, b.await?))` in a [`Group::scope`](crate::Group::scope) collects
/// results of different types, and the scope still returns the first failure itself.
///
/// A task of the group that awaits a handle lends its own permit for that time, as with an
/// [`Admission`](crate::Admission), so that the limit cannot deadlock.
///
/// # Stopping one task
///
/// [`cancel`](TaskHandle::cancel) and [`abort`](TaskHandle::abort) stop this task and no other. A
/// task that was stopped through its handle and then ends, except by a panic, is not a
/// failure of the group and does not cancel the others. While it is queued, it is taken out of the
/// queue and never runs.
///
/// Dropping the handle does not affect the task, and drops its value.
///
/// # Errors
///
/// Awaiting the handle returns an error if there is no value:
///
/// - The task has failed or panicked. The error's text is `task failed`, and its
///   [`cause`](ContextError::cause) has the name, the place and the error of the task as text.
///   Neither [`is_cancelled`](ContextError::is_cancelled) nor
///   [`is_deadline_exceeded`](ContextError::is_deadline_exceeded) is true of it. The error itself
///   goes to `wait`.
/// - The task was stopped, by its handle or by its group, or never started. The error is that of
///   the cancellation, with its cause.
/// - The value was taken before. The text is `task failed`, too, and the cause says so.
///
/// # Cancel safety
///
/// Awaiting `&mut handle` loses nothing if it is dropped: the handle can be awaited again.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, Group};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> anyhow::Result<()> {
/// let (user, orders) = Group::<anyhow::Error>::scope(&Context::background(), async |g, _ctx| {
///     let user = g.spawn(async { Ok("ada") });
///     let orders = g.spawn(async { Ok(vec![1, 2]) });
///     Ok((user.await?, orders.await?))
/// })
/// .await?;
/// assert_eq!((user, orders), ("ada", vec![1, 2]));
/// # Ok(()) }
/// ```
#[doc(alias("JoinHandle", "Deferred", "Subtask"))]
pub struct TaskHandle<T> {
    slot: Arc<Slot<T>>,
    scheduler: Option<Weak<dyn Lending>>,
    lease: Lease,
    /// Cancels the context of the task's own, if it has one.
    own: Option<CancelHandle>,
    /// Where the task was queued, if it was.
    queued: Option<QueuedAt>,
}

/// The scheduler in whose queue a task is, and its position.
struct QueuedAt {
    scheduler: Weak<dyn StopQueued>,
    number: Number,
}

/// Takes a task out of the queue: a group's scheduler, whatever its error type.
pub(super) trait StopQueued: Send + Sync {
    /// Takes out the task at this position that has this observer, if it is still there. It counts
    /// as ended when it has been dropped.
    fn stop_queued(self: Arc<Self>, number: Number, observer: usize) -> bool;
}

static VALUE_TAKEN: StaticCause = StaticCause("the value was taken before");
static HANDLE_ABORTED: StaticCause = StaticCause("the task was aborted through its handle");

/// Returns what a task and its handle share, and the handle. `own` cancels the context of the
/// task's own, if it has one.
pub(super) fn of_task<T, S>(
    scheduler: &Arc<S>,
    own: Option<CancelHandle>,
) -> (Arc<Slot<T>>, TaskHandle<T>)
where
    S: Lending + 'static,
{
    let slot = Slot::new();
    let weak: Weak<dyn Lending> = Arc::<S>::downgrade(scheduler);
    let mut handle = TaskHandle::new(slot.clone(), weak);
    handle.own = own;
    (slot, handle)
}

impl<T> TaskHandle<T> {
    pub(crate) fn new(slot: Arc<Slot<T>>, scheduler: Weak<dyn Lending>) -> TaskHandle<T> {
        TaskHandle {
            slot,
            scheduler: Some(scheduler),
            lease: Lease::None,
            own: None,
            queued: None,
        }
    }

    /// Returns the handle of a task that never starts, because its group was dropped.
    pub(crate) fn empty() -> TaskHandle<T> {
        let slot = Slot::new();
        slot.state.lock().error = Some(stopped(&GROUP_DROPPED));
        slot.end_without_value(None);
        TaskHandle {
            slot,
            scheduler: None,
            lease: Lease::None,
            own: None,
            queued: None,
        }
    }

    /// Adds where the task is queued, if its admission says so.
    pub(super) fn with_admission(
        mut self,
        admission: &Admission,
        scheduler: impl FnOnce() -> Weak<dyn StopQueued>,
    ) -> TaskHandle<T> {
        self.queued = admission.number().map(|number| QueuedAt {
            scheduler: scheduler(),
            number,
        });
        self
    }

    /// Takes the value, if the task has returned `Ok` and the value was not taken before.
    ///
    /// It never waits. After `wait` has returned `Ok`, the value is there, unless this handle has
    /// stopped the task, or it is a background task that failed when all others had finished.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.slot.state.lock().value.take()
    }

    /// Returns true if the task has finished, or was taken out of the queue by this handle.
    ///
    /// The number of running tasks of the group may still include the task for a moment.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.slot.state.lock().ended
    }

    /// Cancels the task, without a cause of its own.
    ///
    /// A task of [`spawn_with`](crate::Group::spawn_with) or
    /// [`spawn_blocking`](crate::Group::spawn_blocking) has a context of its own, which is
    /// cancelled: the task observes that and returns in its own time. A task of
    /// [`spawn`](crate::Group::spawn) has none, and is dropped at its next await. So is a
    /// [clean-up](crate::TaskBuilder::cleanup) task that is no closure. A task that is queued never
    /// runs.
    ///
    /// It has no effect on a task that has finished. Other tasks of the group are not affected:
    /// see [the type](TaskHandle#stopping-one-task).
    pub fn cancel(&self) {
        self.cancel_by(None);
    }

    /// Cancels the task with a cause, which its context and this handle then report.
    ///
    /// See [`cancel`](TaskHandle::cancel).
    pub fn cancel_with(&self, cause: impl Into<Cause>) {
        self.cancel_by(Some(cause.into()));
    }

    /// Drops the task at its next await.
    ///
    /// A context of its own is cancelled, too. A closure of
    /// [`spawn_blocking`](crate::Group::spawn_blocking) that runs cannot be dropped. It observes
    /// its context. A task that is queued never runs.
    ///
    /// It has no effect on a task that has finished. Other tasks of the group are not affected:
    /// see [the type](TaskHandle#stopping-one-task).
    pub fn abort(&self) {
        let cause = Cause::from_static(&HANDLE_ABORTED);
        self.stop(Stop::Drop, Some(cause));
    }

    fn cancel_by(&self, cause: Option<Cause>) {
        let stop = match self.own {
            Some(_) => Stop::Cancel,
            None => Stop::Drop,
        };
        self.stop(stop, cause);
    }

    fn stop(&self, stop: Stop, cause: Option<Cause>) {
        let error = ContextError::cancelled(cause.clone());
        if !self.slot.stop(stop, error) {
            return;
        }
        if let Some(queued) = &self.queued {
            let observer = Arc::as_ptr(&self.slot).cast::<()>() as usize;
            let scheduler = queued.scheduler.upgrade();
            if scheduler.is_some_and(|it| it.stop_queued(queued.number, observer)) {
                self.slot.end_without_value(self.scheduler().as_deref());
            }
        }
        if let Some(own) = &self.own {
            match cause {
                Some(cause) => own.cancel_with(cause),
                None => own.cancel(),
            }
        }
    }

    fn scheduler(&self) -> Option<Arc<dyn Lending>> {
        self.scheduler.as_ref().and_then(Weak::upgrade)
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, ContextError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let budget = ready!(coop::poll_proceed(cx));
        let this = &mut *self;
        let scheduler = this.scheduler.as_ref().and_then(Weak::upgrade);
        let how = scheduler
            .as_ref()
            .and_then(|scheduler| current::own_poll(scheduler.id(), cx.waker()));
        let mut waker = Some(cx.waker().clone());
        let (mut wake, mut unneeded) = (Wakers::default(), Wakers::default());
        let mut wakers = Taken {
            wake: &mut wake,
            unneeded: &mut unneeded,
        };
        let lease = &mut this.lease;
        let mut state = this.slot.state.lock();
        let is_ready =
            state.ended && lease.resume_in(scheduler.as_deref(), &mut waker, &mut wakers);
        let mut is_free = false;
        let output = if is_ready {
            let value = state.value.take();
            let error = || state.error.clone().unwrap_or_else(value_taken);
            Some(value.ok_or_else(error))
        } else {
            if !state.ended {
                let lent;
                (lent, is_free) = lease.wait_in(how, scheduler.as_deref());
                let waiter = waker.take().map(|waker| Waiter { waker, lent });
                let old = std::mem::replace(&mut state.waiter, waiter);
                unneeded.extend(old.map(|old| old.waker));
            }
            None
        };
        drop(state);
        wake.for_each(panic::wake);
        drop((unneeded, waker));
        if let Some(output) = output {
            budget.made_progress();
            return Poll::Ready(output);
        }
        if let Some(scheduler) = &scheduler {
            if is_free {
                scheduler.clone().update(&mut |_, _| true);
            }
            current::wait_for_job(scheduler, cx.waker());
        }
        Poll::Pending
    }
}

fn value_taken() -> ContextError {
    ContextError::task_failed(Cause::from_static(&VALUE_TAKEN))
}

impl<T> Drop for TaskHandle<T> {
    fn drop(&mut self) {
        let scheduler = self.scheduler();
        let (mut wake, mut unneeded) = (Wakers::default(), Wakers::default());
        let mut wakers = Taken {
            wake: &mut wake,
            unneeded: &mut unneeded,
        };
        let mut state = self.slot.state.lock();
        state.abandoned = true;
        let left = (state.waiter.take(), state.value.take());
        if let (Some(scheduler), false) = (&scheduler, self.lease.is_none()) {
            let (lease, ended) = (&mut self.lease, state.ended);
            scheduler.read(&mut |permits| lease.end(ended, permits, &mut wakers));
        }
        drop(state);
        wake.for_each(panic::wake);
        drop((left, unneeded));
    }
}

impl<T> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.slot.state.try_lock().map(|state| state.ended);
        let mut debug = f.debug_struct("TaskHandle");
        match ended {
            Some(ended) => debug.field("ended", &ended),
            None => debug.field("state", &format_args!("<locked>")),
        };
        debug.finish_non_exhaustive()
    }
}
