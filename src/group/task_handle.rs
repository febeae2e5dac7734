//! The result of a task: given back by `spawn`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use tokio::task::coop;

use crate::panic;
use crate::scheduler::current;
use crate::scheduler::effects::Wakers;
use crate::scheduler::lease::Lease;
use crate::scheduler::lending::Waiter;
use crate::scheduler::source::{Lending, Observer};
use crate::sync::{Arc, Mutex, Weak};

/// The value of a task that [`spawn`](crate::Group::spawn) started.
///
/// It waits in the handle: [`take`](TaskHandle::take) it after `wait`. Or await the handle, in a sibling or anywhere else: it
/// resolves when the task has ended, to the value, or to `None` at once when the task has failed, panicked, was stopped
/// or never started. A task of the group that awaits one lends its own permit meanwhile, as with an
/// [`Admission`](crate::Admission).
///
/// Dropping it changes nothing for the task; the value is then dropped.
///
/// # Cancel safety
///
/// Awaiting `&mut handle` loses nothing: it can be awaited again.
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
pub struct TaskHandle<T> {
    slot: Arc<Slot<T>>,
    scheduler: Option<Weak<dyn Lending>>,
    lease: Lease,
}

/// Where the value waits. Its lock is taken before the scheduler's.
pub(crate) struct Slot<T>(Mutex<State<T>>);

struct State<T> {
    value: Option<T>,
    ended: bool,
    /// Nobody will take the value.
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

    /// Keeps the value for the handle. Without one it is dropped here, in the task, whose panic it is if that panics.
    pub(crate) fn put(&self, value: T) {
        drop(self.try_put(value));
    }

    /// The same; hands the value back if there is no handle, to be dropped under no lock.
    pub(crate) fn try_put(&self, value: T) -> Option<T> {
        let mut state = self.0.lock();
        if state.abandoned {
            return Some(value);
        }
        state.value.replace(value)
    }

    /// Wakes the handle: the task has ended, and a value that is here stays.
    pub(crate) fn end(&self, scheduler: Option<&dyn Lending>) {
        self.end_after(scheduler, |_| None);
    }

    /// Wakes the handle: the task has failed, so a value that is here is dropped. (A destructor of
    /// the task may have panicked after it had put the value here.)
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

/// Tells a waiter; its permit, if it has lent one, before that goes to a queued task.
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

    /// That of a task whose group had gone.
    pub(crate) fn empty() -> TaskHandle<T> {
        let slot = Slot::new();
        slot.end_without_value(None);
        TaskHandle {
            slot,
            scheduler: None,
            lease: Lease::None,
        }
    }

    /// Takes the value, if it is there: the task has returned `Ok`, and nobody has taken it before.
    ///
    /// After `wait` has returned `Ok`, it is there.
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
