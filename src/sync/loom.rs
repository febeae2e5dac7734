//! The same primitives over loom, which switches threads at each operation.
//!
//! Not modelled: the counts of `Arc` (loom's has no `Weak`), time, and the blocking pool. A task is
//! a loom thread, so a model can have only a few of them.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::time::Duration;

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::{MutexGuard, atomic};
pub(crate) use loom::thread;

use atomic::{AtomicBool, Ordering};
use loom::sync::{Condvar as LoomCondvar, Mutex as LoomMutex};

/// Once, so that a model stays small.
pub(crate) const TRY_LOCKS: usize = 1;

pub(crate) struct Mutex<T>(LoomMutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(LoomMutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        match self.0.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    pub(crate) fn into_inner(self) -> T {
        match self.0.into_inner() {
            Ok(value) => value,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

pub(crate) struct Condvar(LoomCondvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Condvar(LoomCondvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        match self.0.wait(guard) {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Loom has no `OnceLock`. This is the one of std, behind a lock and a flag that loom sees.
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    sets: LoomMutex<()>,
    is_set: AtomicBool,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        OnceLock {
            value: std::sync::OnceLock::new(),
            sets: LoomMutex::new(()),
            is_set: AtomicBool::new(false),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        match self.is_set.load(Ordering::Acquire) {
            true => self.value.get(),
            false => None,
        }
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _sets = self.sets.lock();
        let set = self.value.set(value);
        self.is_set.store(true, Ordering::Release);
        set
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> Self {
        let clone = OnceLock::new();
        if let Some(value) = self.get() {
            let _ = clone.set(value.clone());
        }
        clone
    }
}

macro_rules! thread_static {
    (static $name:ident: $type:ty = $value:expr;) => {
        loom::thread_local! {
            static $name: $type = $value;
        }
    };
}
pub(crate) use thread_static;

/// Makes a new value at each use: an iteration of a model must share nothing with the one before.
pub(crate) struct Shared<T>(PhantomData<fn() -> T>);

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Shared(PhantomData)
    }

    pub(crate) fn get(&self, make: impl FnOnce() -> T) -> T {
        make()
    }
}

/// With one thread there is no other that could run a task from the LIFO slot. No model has such a
/// slot.
pub(crate) fn has_shut_down(_: &Handle) -> bool {
    false
}

pub(crate) fn worker_threads(_: &Handle) -> usize {
    1
}

pub(crate) fn thread_with_slot() -> Option<std::thread::ThreadId> {
    None
}

pub(crate) fn wake_after_driver(cx: &mut task::Context<'_>) {
    cx.waker().wake_by_ref();
}

/// The tasks of a burst that get a worker of their own. One, since loom has few threads: the next
/// task is queued, and a searching worker is spawned for it.
pub(crate) const MOST_IN_BURST: usize = 1;

/// The most items of a small fan-out, which have a worker each.
pub(crate) const FEW_ITEMS: usize = 2;

/// A clock that stands still, since a model has no time.
pub(crate) struct PollClock;

impl PollClock {
    pub(crate) fn start() -> PollClock {
        PollClock
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// The runtime of a model. Every thread of a model is inside it.
#[derive(Clone)]
pub(crate) struct Handle;

impl Handle {
    pub(crate) fn try_current() -> Result<Handle, std::convert::Infallible> {
        Ok(Handle)
    }

    pub(crate) fn spawn<F>(&self, future: F) -> thread::JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        thread::spawn(move || loom::future::block_on(future))
    }

    /// A model has no timers, so nothing has to be entered.
    pub(crate) fn enter(&self) -> Handle {
        Handle
    }

    pub(crate) fn spawn_blocking(&self, _: impl FnOnce() + Send + 'static) {
        unimplemented!("no model has a blocking pool")
    }
}

/// A task that was spawned. The runtime of a model does not shut down, so the task was not dropped
/// without a poll.
pub(crate) struct Spawned;

impl Spawned {
    pub(crate) fn is_finished(&self) -> bool {
        false
    }
}

/// A set of tasks. Each is a loom thread.
pub(crate) struct JoinSet<T> {
    tasks: Vec<Arc<LoomMutex<Task>>>,
    output: PhantomData<T>,
}

#[derive(Default)]
struct Task {
    is_aborted: bool,
    has_ended: bool,
    /// The waker of the task itself, to wake it for an abort, and the waker that waits for its end.
    task: Option<Waker>,
    waiter: Option<Waker>,
}

impl<T> JoinSet<T> {
    pub(crate) fn new() -> Self {
        JoinSet {
            tasks: Vec::new(),
            output: PhantomData,
        }
    }

    pub(crate) fn spawn_on<F>(&mut self, future: F, _: &Handle) -> Spawned
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = Arc::new(LoomMutex::new(Task::default()));
        self.tasks.push(task.clone());
        loom::thread::spawn(move || {
            {
                let mut future = Box::pin(future);
                loom::future::block_on(poll_fn(|cx| {
                    if with(&task, |task| task.is_aborted) {
                        return Poll::Ready(());
                    }
                    let polled = future.as_mut().poll(cx);
                    let is_aborted = with(&task, |task| {
                        task.task = Some(cx.waker().clone());
                        task.is_aborted
                    });
                    match is_aborted {
                        true => Poll::Ready(()),
                        false => polled,
                    }
                }));
            }
            let waiter = with(&task, |task| {
                task.has_ended = true;
                task.task = None;
                task.waiter.take()
            });
            waiter.into_iter().for_each(Waker::wake);
        });
        Spawned
    }

    pub(crate) fn try_join_next(&mut self) -> Option<()> {
        let has_ended = |task: &Arc<_>| with(task, |task: &mut Task| task.has_ended);
        let ended = self.tasks.iter().position(has_ended)?;
        self.tasks.swap_remove(ended);
        Some(())
    }

    pub(crate) fn poll_join_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<()>> {
        for task in &self.tasks {
            with(task, |task| task.waiter = Some(cx.waker().clone()));
        }
        match self.try_join_next() {
            Some(()) => Poll::Ready(Some(())),
            None if self.tasks.is_empty() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    pub(crate) fn abort_all(&mut self) {
        for task in &self.tasks {
            let waker = with(task, |task| {
                task.is_aborted = true;
                task.task.take()
            });
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        JoinSet::new()
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

fn with<T>(task: &LoomMutex<Task>, look: impl FnOnce(&mut Task) -> T) -> T {
    match task.lock() {
        Ok(mut task) => look(&mut task),
        Err(poisoned) => look(&mut poisoned.into_inner()),
    }
}
