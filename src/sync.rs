//! The only door to locks, atomics, and the tasks of the runtime that the cores stand on.
//!
//! Every core takes its primitives from here, so that one alias decides whether they are std's and tokio's or those of a
//! model checker: with `--cfg errgroup_loom` they are loom's, and with `--cfg errgroup_shuttle` shuttle's, for `models/`.
//!
//! A lock here is never poisoned: no user code runs under one, so a panic cannot leave its data half-changed. (What the tap of a
//! fan-out guards is user code, and nobody ever waits for that lock.)

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

        /// For whoever never waits.
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(sync::TryLockError::WouldBlock) => None,
            }
        }
    }

    /// How many threads run the tasks of a runtime.
    #[cfg(not(errgroup_shuttle))]
    pub(crate) fn worker_threads(runtime: &Handle) -> usize {
        runtime.metrics().num_workers()
    }

    /// The calling thread, if what it spawns or wakes may go into a LIFO slot of its own: if it
    /// polls a task.
    pub(crate) fn thread_with_slot() -> Option<std::thread::ThreadId> {
        tokio::task::try_id().map(|_| std::thread::current().id())
    }

    /// Has the task of `cx` polled again once the runtime has polled its timers and sockets.
    #[cfg(not(errgroup_shuttle))]
    pub(crate) fn wake_after_driver(cx: &mut task::Context<'_>) {
        // Its first poll hands the waker to the scheduler, and that is all it does.
        let yields = std::pin::pin!(tokio::task::yield_now());
        let _ = Future::poll(yields, cx);
    }

    /// How many tasks of a burst get a worker of their own: those of a small group.
    #[cfg(not(errgroup_shuttle))]
    pub(crate) const MOST_IN_BURST: usize = 8;

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
    pub(crate) use super::shuttle::{MOST_IN_BURST, PollClock, wake_after_driver, worker_threads};

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

    /// A static of each thread, with an initial value that costs nothing to have.
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

    /// What the whole process shares, made when it is first asked for.
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
