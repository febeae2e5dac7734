//! A handle to the result of a task: what `spawn` returns.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use tokio::task::coop;

use crate::panic;
use crate::scheduler::current;
use crate::scheduler::effects::Observer;
use crate::scheduler::lease::Lease;
use crate::scheduler::permits::lending::Lending;
use crate::scheduler::permits::lending::Waiter;
use crate::scheduler::wakers::Wakers;
use crate::sync::{Arc, Mutex, Weak};

/// A handle to the value of a task, from [`spawn`](crate::Group::spawn).
///
/// The value is kept in the handle: [`take`](TaskHandle::take) it after `wait`. Or await the
/// handle, in a sibling or anywhere else. It resolves when the task has finished: to the value, or
/// to `None` if the task has failed, panicked, was stopped or never started, or if the value was
/// taken before. The error of the task is not in the handle. It goes to `wait`.
///
/// A task of the group that awaits a handle lends its own permit for that time, as with an
/// [`Admission`](crate::Admission), so that the limit cannot deadlock.
///
/// Dropping the handle does not affect the task, and drops its value. A tokio `JoinHandle` differs:
/// it resolves to an error if the task failed, and it can abort the task.
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
/// # async fn main() -> Result<(), String> {
/// let (g, _ctx) = Group::<String>::with_context(Context::background());
/// let user = g.spawn(async { Ok("ada") });
/// let orders = g.spawn(async { Ok(vec![1, 2]) });
/// g.wait().await?;
/// assert_eq!((user.take(), orders.take()), (Some("ada"), Some(vec![1, 2])));
/// # Ok(()) }
/// ```
#[doc(alias("JoinHandle", "Deferred", "Subtask"))]
pub struct TaskHandle<T> {
    slot: Arc<Slot<T>>,
    scheduler: Option<Weak<dyn Lending>>,
    lease: Lease,
}

/// Keeps the value of a task for its handle. Its lock is taken before the scheduler's.
pub(crate) struct Slot<T>(Mutex<State<T>>);

struct State<T> {
    value: Option<T>,
    ended: bool,
    /// The handle was dropped, so a value is not kept.
    abandoned: bool,
    waiter: Option<Waiter>,
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Arc<Slot<T>> {
        Arc::new(Slot(Mutex::new(State {
            value: None,
            ended: false,
            abandoned: false,
            waiter: None,
        })))
    }

    /// Keeps the value for the handle. If the handle was dropped, drops the value here, in the
    /// task: a panic of its destructor is then a panic of the task.
    pub(crate) fn put(&self, value: T) {
        drop(self.try_put(value));
    }

    /// Keeps the value for the handle. If the handle was dropped, returns the value, which the
    /// caller drops when it holds no lock.
    pub(crate) fn try_put(&self, value: T) -> Option<T> {
        let mut state = self.0.lock();
        if state.abandoned {
            return Some(value);
        }
        state.value.replace(value)
    }

    /// Wakes the handle because the task has ended. Keeps a value that is here.
    pub(crate) fn end(&self, scheduler: Option<&dyn Lending>) {
        self.end_after(scheduler, |_| None);
    }

    /// Wakes the handle because the task has failed, and drops a value that is here: a destructor
    /// of the task may have panicked after the value was put here.
    pub(crate) fn end_without_value(&self, scheduler: Option<&dyn Lending>) {
        self.end_after(scheduler, Option::take);
    }

    fn end_after(
        &self,
        scheduler: Option<&dyn Lending>,
        take: impl FnOnce(&mut Option<T>) -> Option<T>,
    ) {
        let mut state = self.0.lock();
        state.ended = true;
        let unwanted = take(&mut state.value);
        let mut wake = Wakers::default();
        if let Some(waiter) = state.waiter.take() {
            decide(waiter, scheduler, &mut wake);
        }
        drop(state);
        panic::discard(unwanted);
        wake.for_each(panic::wake);
    }
}

/// Wakes a waiter. If it has lent its permit, claims a permit for it before a queued task gets it.
fn decide(waiter: Waiter, scheduler: Option<&dyn Lending>, wake: &mut Wakers) {
    let Some(scheduler) = scheduler else {
        wake.push(waiter.waker);
        return;
    };
    let mut waiter = Some(waiter);
    scheduler.read(&mut |permits| {
        if let Some(waiter) = waiter.take() {
            permits.decide(waiter, wake);
        }
        permits.grant(wake);
    });
}

impl<T: Send> Observer for Slot<T> {
    fn ended(&self, scheduler: &dyn Lending, succeeded: bool) {
        if succeeded {
            self.end(Some(scheduler));
        } else {
            self.end_without_value(Some(scheduler));
        }
    }
}

impl<T> TaskHandle<T> {
    pub(crate) fn new(slot: Arc<Slot<T>>, scheduler: Weak<dyn Lending>) -> TaskHandle<T> {
        TaskHandle {
            slot,
            scheduler: Some(scheduler),
            lease: Lease::None,
        }
    }

    /// Returns the handle of a task that never starts, because its group was dropped.
    pub(crate) fn empty() -> TaskHandle<T> {
        let slot = Slot::new();
        slot.end_without_value(None);
        TaskHandle {
            slot,
            scheduler: None,
            lease: Lease::None,
        }
    }

    /// Takes the value, if the task has returned `Ok` and the value was not taken before.
    ///
    /// It never waits. After `wait` has returned `Ok`, the value is there.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.slot.0.lock().value.take()
    }

    fn scheduler(&self) -> Option<Arc<dyn Lending>> {
        self.scheduler.as_ref().and_then(Weak::upgrade)
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<T>> {
        let budget = ready!(coop::poll_proceed(cx));
        let this = &mut *self;
        let scheduler = this.scheduler.as_ref().and_then(Weak::upgrade);
        let how = scheduler
            .as_ref()
            .and_then(|scheduler| current::own_poll(scheduler.id(), cx.waker()));
        let mut waker = Some(cx.waker().clone());
        let mut unneeded = Wakers::default();
        let lease = &mut this.lease;
        let mut state = this.slot.0.lock();
        let is_ready =
            state.ended && lease.resume_in(scheduler.as_deref(), &mut waker, &mut unneeded);
        let mut is_free = false;
        let value = if is_ready {
            state.value.take()
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
        drop((unneeded, waker));
        if is_ready {
            budget.made_progress();
            return Poll::Ready(value);
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

impl<T> Drop for TaskHandle<T> {
    fn drop(&mut self) {
        let scheduler = self.scheduler();
        let mut unneeded = Wakers::default();
        let mut state = self.slot.0.lock();
        state.abandoned = true;
        let left = (state.waiter.take(), state.value.take());
        if let (Some(scheduler), false) = (&scheduler, self.lease.is_none()) {
            let (lease, ended) = (&mut self.lease, state.ended);
            scheduler.read(&mut |permits| lease.end(ended, permits, &mut unneeded));
        }
        drop(state);
        drop((left, unneeded));
    }
}

impl<T> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.slot.0.try_lock().map(|state| state.ended);
        let mut debug = f.debug_struct("TaskHandle");
        match ended {
            Some(ended) => debug.field("ended", &ended),
            None => debug.field("state", &format_args!("<locked>")),
        };
        debug.finish_non_exhaustive()
    }
}
