//! The locks, the atomics and the runtime's tasks that the cores use. The only file that imports
//! them.
//!
//! So one alias decides where they come from: from std and tokio, with `--cfg errgroup_loom` from
//! loom, and with `--cfg errgroup_shuttle` from shuttle. The last two are for `models/`.
//!
//! Poisoning is ignored: no user code runs under a lock, so a panic cannot leave the data
//! half-changed. (The lock around the shared iterator of a fan-out does guard user code, but no
//! thread waits for it while user code runs.)

#[cfg(errgroup_loom)]
mod loom;
#[cfg(errgroup_loom)]
pub(crate) use loom::*;

#[cfg(not(errgroup_loom))]
pub(crate) use real::*;

pub(crate) use std::sync::{Arc, Weak};

#[cfg(errgroup_shuttle)]
pub(crate) mod shuttle;

#[cfg(not(errgroup_loom))]
mod real {
    #[cfg(errgroup_shuttle)]
    use ::shuttle::{hint, sync};
    use std::sync::PoisonError;
    #[cfg(not(errgroup_shuttle))]
    use std::{hint, sync};

    #[cfg(errgroup_shuttle)]
    pub(crate) use ::shuttle::thread;
    #[cfg(not(errgroup_shuttle))]
    pub(crate) use std::thread;

    pub(crate) use hint::spin_loop;
    pub(crate) use std::sync::OnceLock;
    #[cfg(not(errgroup_shuttle))]
    use std::task;
    pub(crate) use sync::{MutexGuard, atomic};
    pub(crate) use tokio::runtime::Handle;
    pub(crate) use tokio::task::JoinSet;

    /// How often `try_lock` is called in a row before the caller takes a slower way.
    pub(crate) const TRY_LOCKS: usize = 64;

    /// A mutex whose `lock` cannot fail.
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn into_inner(self) -> T {
            self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
        }

        /// Returns `None` if another thread has the lock.
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(sync::TryLockError::WouldBlock) => None,
            }
        }
    }

    /// Returns the number of threads that run the tasks of a runtime.
    #[cfg(not(errgroup_shuttle))]
    pub(crate) fn worker_threads(runtime: &Handle) -> usize {
        runtime.metrics().num_workers()
    }

    /// Returns whether a runtime has shut down. Spawns a task that does nothing.
    #[cfg(not(errgroup_shuttle))]
    pub(crate) fn has_shut_down(runtime: &Handle) -> bool {
        // A runtime that has shut down drops at once what is spawned. Otherwise this task is there
        // until it is aborted.
        let task = runtime.spawn(std::future::pending::<()>());
        let is_gone = task.is_finished();
        task.abort();
        is_gone
    }

    /// Returns the calling thread if it polls a task: what it spawns or wakes may then go into its
    /// LIFO slot.
    pub(crate) fn thread_with_slot() -> Option<std::thread::ThreadId> {
        tokio::task::try_id().map(|_| std::thread::current().id())
    }

    /// Makes the runtime poll the task of `cx` again after it has polled its timers and sockets.
    #[cfg(not(errgroup_shuttle))]
    pub(crate) fn wake_after_driver(cx: &mut task::Context<'_>) {
        // The first poll hands the waker to tokio's scheduler, and does nothing else.
        let yields = std::pin::pin!(tokio::task::yield_now());
        let _ = Future::poll(yields, cx);
    }

    /// How many tasks of a burst get a worker of their own: those of a small group.
    #[cfg(not(errgroup_shuttle))]
    pub(crate) const MOST_IN_BURST: usize = 8;

    /// The most items of a small fan-out, which have a worker each.
    #[cfg(not(errgroup_shuttle))]
    pub(crate) const FEW_ITEMS: usize = 8;

    /// Measures how long a poll has been running.
    #[cfg(not(errgroup_shuttle))]
    pub(crate) struct PollClock(std::time::Instant);

    #[cfg(not(errgroup_shuttle))]
    impl PollClock {
        pub(crate) fn start() -> PollClock {
            PollClock(std::time::Instant::now())
        }

        pub(crate) fn elapsed(&self) -> std::time::Duration {
            self.0.elapsed()
        }
    }

    #[cfg(errgroup_shuttle)]
    pub(crate) use super::shuttle::{
        FEW_ITEMS, MOST_IN_BURST, PollClock, has_shut_down, wake_after_driver, worker_threads,
    };

    /// A condition variable whose `wait` cannot fail.
    pub(crate) struct Condvar(sync::Condvar);

    impl Condvar {
        pub(crate) const fn new() -> Self {
            Condvar(sync::Condvar::new())
        }

        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// Declares a static of each thread. Its initial value must be a constant.
    macro_rules! thread_static {
        (static $name:ident: $type:ty = $value:expr;) => {
            #[cfg(not(errgroup_shuttle))]
            std::thread_local! {
                static $name: $type = const { $value };
            }
            #[cfg(errgroup_shuttle)]
            ::shuttle::thread_local! {
                static $name: $type = $value;
            }
        };
    }
    pub(crate) use thread_static;

    /// A value that the whole process shares, made at its first use.
    pub(crate) struct Shared<T>(OnceLock<T>);

    impl<T: Clone> Shared<T> {
        pub(crate) const fn new() -> Self {
            Shared(OnceLock::new())
        }

        pub(crate) fn get(&self, make: impl FnOnce() -> T) -> T {
            self.0.get_or_init(make).clone()
        }
    }
}
