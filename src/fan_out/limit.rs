//! The limit of a fan-out, and the handle that changes it while the fan-out runs.
//!
//! # Invariants
//!
//! 1. The limit is stored first, and then the run is notified. A run that begins registers where it
//!    is notified first, and then reads the limit. Both lock `notified`. So a change is either read
//!    by the run when it begins, or notified to it.
//! 2. A run reads the limit under the lock under which it takes permits, or on the one task that
//!    runs its items. So of two changes, the one that was stored last is in force.
//! 3. A handle holds nothing of the run but a weak pointer to its scheduler, or the waker of the
//!    task that polls it, and that only until the run is over.

use std::fmt;
use std::task::Waker;

use crate::panic;
use crate::scheduler::permits::lending::Lending;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, Weak};

/// Changes the limit of one fan-out while that runs. [`limit_handle`](crate::FanOut::limit_handle)
/// returns it.
///
/// A clone is a handle to the same fan-out. It does not keep the items alive, and has no effect
/// when the fan-out is over.
///
/// tokio's counterpart is `Semaphore::add_permits` and `forget_permits`, which change a limit by a
/// difference. This sets it.
///
/// # Examples
///
/// Half as many requests at once when the server is overloaded:
///
/// ```
/// use errgroup::{Context, fan_out};
///
/// # enum Response { Overloaded, Page(u32) }
/// # async fn get(page: u32) -> Response {
/// #     if page == 3 { Response::Overloaded } else { Response::Page(page) }
/// # }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> anyhow::Result<()> {
/// let ctx = Context::background();
/// let (pages, limit) = fan_out(&ctx, 0..20, |_ctx, page| async move {
///     anyhow::Ok(get(page).await)
/// })
/// .limit(8)
/// .limit_handle();
///
/// let mut pages = pages.stream();
/// # let mut seen = 0;
/// while let Some(page) = futures::StreamExt::next(&mut pages).await {
///     match page? {
///         Response::Overloaded => limit.set_limit(4),
///         Response::Page(_page) => { /* .. */ }
///     }
/// #   seen += 1;
/// }
/// # assert_eq!((seen, limit.limit()), (20, Some(4)));
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias("Semaphore", "CapacityLimiter"))]
pub struct LimitHandle {
    shared: Arc<Shared>,
}

struct Shared {
    limit: AtomicUsize,
    notified: Mutex<Notified>,
}

/// What is notified of a new limit.
enum Notified {
    /// The fan-out has not started, or is over.
    Nothing,
    Workers(Weak<dyn Lending>),
    /// The task that runs the items itself.
    Caller(Waker),
}

impl LimitHandle {
    pub(crate) fn new(limit: usize) -> LimitHandle {
        LimitHandle {
            shared: Arc::new(Shared {
                limit: AtomicUsize::new(limit),
                notified: Mutex::new(Notified::Nothing),
            }),
        }
    }

    /// Sets how many items may be in flight at once. `None` means no limit.
    ///
    /// If the limit is raised, items start at once. If it is lowered, the items in flight continue,
    /// and no item starts until there are fewer than `limit` of them. A worker that is pulling an
    /// item at this moment may still start it.
    ///
    /// A limit of 0 pauses the fan-out: the items in flight continue, and no further item is
    /// pulled. A fan-out that is paused does not see that there are no more items, so it is not
    /// over before its limit is raised or its context is done.
    ///
    /// May be called before the fan-out starts. Has no effect when it is over.
    pub fn set_limit(&self, limit: impl Into<Option<usize>>) {
        self.shared.set(limit.into().unwrap_or(usize::MAX));
        // The lock is not held while the run is notified: a waker is user code.
        let workers = {
            let mut notified = self.shared.notified.lock();
            match &*notified {
                Notified::Workers(workers) => workers.upgrade(),
                Notified::Caller(_) => {
                    let caller = std::mem::replace(&mut *notified, Notified::Nothing);
                    drop(notified);
                    if let Notified::Caller(waker) = caller {
                        panic::wake(waker);
                    }
                    return;
                }
                Notified::Nothing => return,
            }
        };
        if let Some(workers) = workers {
            workers.update(&mut |permits, _| {
                permits.set_limit(self.shared.get());
                true
            });
        }
    }

    /// Returns how many items may be in flight at once, or `None` if there is no limit.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        let limit = self.shared.get();
        (limit != usize::MAX).then_some(limit)
    }
}

impl fmt::Debug for LimitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitHandle")
            .field("limit", &self.shared.get())
            .finish_non_exhaustive()
    }
}

impl Shared {
    // `Relaxed`: a run that must not miss the change is ordered by one of the two locks
    // (invariants 1 and 2).
    fn get(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    fn set(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    fn notify(&self, new: Notified) {
        let old = std::mem::replace(&mut *self.notified.lock(), new);
        if let Notified::Caller(waker) = old {
            panic::discard(waker);
        }
    }
}

/// The limit, as the builder has it.
pub(crate) enum Limit {
    Fixed(usize),
    /// There is a handle.
    Steered(LimitHandle),
}

impl Limit {
    pub(crate) fn set(&mut self, limit: usize) {
        match self {
            Limit::Fixed(fixed) => *fixed = limit,
            Limit::Steered(handle) => handle.shared.set(limit),
        }
    }

    pub(crate) fn get(&self) -> usize {
        match self {
            Limit::Fixed(limit) => *limit,
            Limit::Steered(handle) => handle.shared.get(),
        }
    }

    /// Returns the handle. There is one from now on.
    pub(crate) fn handle(&mut self) -> LimitHandle {
        match self {
            Limit::Steered(handle) => handle.clone(),
            Limit::Fixed(limit) => {
                let handle = LimitHandle::new(*limit);
                *self = Limit::Steered(handle.clone());
                handle
            }
        }
    }

    /// Returns whether no item can ever start.
    pub(crate) fn is_stuck(&self) -> bool {
        matches!(self, Limit::Fixed(0))
    }

    /// Returns the limit with which a run begins, and what follows the handle if there is one. At a
    /// limit of 0 that no handle can raise, the run must look whether there is an item, so one is
    /// pulled; it never starts.
    pub(crate) fn into_run(self) -> (usize, Option<Steering>) {
        match self {
            Limit::Fixed(limit) => (limit.max(1), None),
            Limit::Steered(handle) => (handle.shared.get(), Some(Steering(handle.shared))),
        }
    }
}

/// The end of a run at which its limit is changed.
pub(crate) struct Steering(Arc<Shared>);

impl Steering {
    pub(crate) fn limit(&self) -> usize {
        self.0.get()
    }

    /// Returns a handle to the same limit.
    #[cfg(feature = "inspect")]
    pub(crate) fn handle(&self) -> LimitHandle {
        LimitHandle {
            shared: self.0.clone(),
        }
    }

    /// Sets the limit of the workers, and has every later change reach them.
    pub(crate) fn follow(&self, workers: Arc<dyn Lending>) {
        self.0.notify(Notified::Workers(Arc::downgrade(&workers)));
        workers.update(&mut |permits, _| {
            permits.set_limit(self.0.get());
            false
        });
    }

    /// Has the next change wake the task that runs the items. Returns whether the limit is still
    /// `limit`.
    pub(crate) fn wake_at_change(&self, limit: usize, task: &Waker) -> bool {
        self.0.notify(Notified::Caller(task.clone()));
        self.0.get() == limit
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        self.0.notify(Notified::Nothing);
    }
}
