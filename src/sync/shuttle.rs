//! The parts of tokio that the crate uses, over the executor of shuttle. Only `tests/shuttle.rs` of
//! the models uses this module.
//!
//! The crate root uses this module under the name `tokio`, so that `tokio::task::JoinSet` is the
//! one below. It is as thin as possible: a task is a shuttle task, and a `JoinSet` is a list of
//! handles.
//!
//! `shuttle-tokio` would not do: its `JoinSet` cannot be polled (`poll_join_next`,
//! `try_join_next`), it has no `coop::poll_proceed`, and its `runtime_flavor` is
//! `unimplemented!()`.
//!
//! Not modelled: a runtime that shuts down; time (its types are tokio's own, and waiting for a
//! timer panics); what `OnceLock` synchronizes, since it is the one of std, at which shuttle does
//! not switch tasks; orderings weaker than `SeqCst`.

/// The real `tokio::time`: in this crate, the name `tokio` stands for this module.
pub(crate) use tokio_itself::time;

pub(crate) use task::spawn;

use std::time::Duration;

use shuttle::rand::Rng;

pub(crate) fn has_shut_down(_: &runtime::Handle) -> bool {
    false
}

pub(crate) fn worker_threads(_: &runtime::Handle) -> usize {
    2
}

pub(crate) fn wake_after_driver(cx: &mut std::task::Context<'_>) {
    cx.waker().wake_by_ref();
}

/// The tasks of a burst that get a worker of their own. Few, so that there are schedules with a
/// queue and a searching worker as well.
pub(crate) const MOST_IN_BURST: usize = 2;

/// The most items of a small fan-out, which have a worker each.
pub(crate) const FEW_ITEMS: usize = 3;

/// A clock by which a poll takes too long at random. Shuttle decides when.
pub(crate) struct PollClock;

impl PollClock {
    pub(crate) fn start() -> PollClock {
        PollClock
    }

    pub(crate) fn elapsed(&self) -> Duration {
        match shuttle::rand::thread_rng().gen_ratio(1, 16) {
            true => Duration::from_secs(1),
            false => Duration::ZERO,
        }
    }
}

pub(crate) mod runtime {
    #[derive(Debug, Clone)]
    pub(crate) struct Handle(());

    impl Handle {
        pub(crate) fn try_current() -> Result<Handle, ()> {
            Ok(Handle(()))
        }

        pub(crate) fn spawn<F>(&self, future: F) -> shuttle::future::JoinHandle<()>
        where
            F: Future<Output = ()> + Send + 'static,
        {
            shuttle::future::spawn(future)
        }

        /// A model has no timers, so nothing has to be entered.
        pub(crate) fn enter(&self) -> Handle {
            self.clone()
        }

        pub(crate) fn spawn_blocking(&self, run: impl FnOnce() + Send + 'static) {
            drop(shuttle::thread::spawn(run));
        }
    }
}

pub(crate) mod task {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use shuttle::future;
    pub(crate) use shuttle::future::{AbortHandle, JoinHandle, spawn, spawn_local};

    use super::runtime::Handle;

    /// Every caller counts as a task, so that the code which flushes the LIFO slot runs.
    pub(crate) fn try_id() -> Option<()> {
        Some(())
    }

    /// A task that was spawned. The runtime of a model does not shut down, so the task was not
    /// dropped without a poll.
    pub(crate) struct Spawned;

    impl Spawned {
        pub(crate) fn is_finished(&self) -> bool {
            false
        }
    }

    #[derive(Default)]
    pub(crate) struct JoinSet<T>(Vec<JoinHandle<T>>);

    impl<T: Send + 'static> JoinSet<T> {
        pub(crate) fn new() -> JoinSet<T> {
            JoinSet(Vec::new())
        }

        pub(crate) fn spawn_on<F>(&mut self, task: F, _: &Handle) -> Spawned
        where
            F: Future<Output = T> + Send + 'static,
        {
            self.0.push(future::spawn(task));
            Spawned
        }

        pub(crate) fn abort_all(&mut self) {
            self.0.iter().for_each(JoinHandle::abort);
        }

        pub(crate) fn try_join_next(&mut self) -> Option<()> {
            let at = self.0.iter().position(JoinHandle::is_finished)?;
            drop(self.0.swap_remove(at));
            Some(())
        }

        pub(crate) fn poll_join_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            let ready = |task: &mut JoinHandle<T>| Pin::new(task).poll(cx).is_ready();
            match self.0.iter_mut().position(ready) {
                Some(at) => {
                    drop(self.0.swap_remove(at));
                    Poll::Ready(Some(()))
                }
                None => Poll::Pending,
            }
        }
    }

    impl<T> Drop for JoinSet<T> {
        fn drop(&mut self) {
            self.0.iter().for_each(JoinHandle::abort);
        }
    }

    pub(crate) mod coop {
        use std::task::{Context, Poll};

        use shuttle::rand::Rng;

        pub(crate) struct Budget;

        impl Budget {
            pub(crate) fn made_progress(&self) {}
        }

        /// Only timers are polled with this, and no model has timers.
        pub(crate) fn unconstrained<F>(future: F) -> F {
            future
        }

        /// Reports at random that the budget is used up. Shuttle decides when.
        pub(crate) fn poll_proceed(cx: &mut Context<'_>) -> Poll<Budget> {
            if shuttle::rand::thread_rng().gen_ratio(1, 16) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Budget)
        }
    }
}
