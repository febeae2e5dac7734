//! A function that runs when a context is done.

use std::fmt;

use tokio::task::AbortHandle;

use super::Context;
use crate::panic;
use crate::span::{self, Span};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Arc, Condvar, Mutex};

type Func = Box<dyn FnOnce() + Send>;

/// The handle of a function that was registered with [`Context::after_func`].
///
/// Dropping it changes nothing: the function still runs. [`guard`](AfterFunc::guard) makes a guard
/// of it, whose drop prevents the run.
pub struct AfterFunc {
    shared: Arc<Shared>,
    /// `None` if the context can never be done.
    task: Option<AbortHandle>,
}

impl AfterFunc {
    pub(crate) fn register(ctx: &Context, func: impl FnOnce() + Send + 'static) -> AfterFunc {
        let shared = Arc::new(Shared::new(Box::new(func)));
        let task = (!ctx.node.never_ends()).then(|| {
            let (done, shared) = (ctx.done_owned(), shared.clone());
            let caller = Span::current();
            let task = tokio::spawn(async move {
                done.await;
                let _entered = span::enter_caller(&caller);
                shared.run();
            });
            task.abort_handle()
        });
        AfterFunc { shared, task }
    }

    /// Prevents the run. Returns `true` if it did, and `false` if the function has started or was
    /// stopped before.
    ///
    /// This does not wait for a function that is running. The drop of a [`guard`](AfterFunc::guard)
    /// does.
    pub fn stop(&self) -> bool {
        let taken = self.shared.take();
        if let Some(task) = &self.task {
            if taken.is_some() {
                task.abort();
            }
        }
        taken.is_some()
    }

    /// Returns a guard. When it has been dropped, the function either has returned or never runs.
    ///
    /// Use it for an interrupt that must not affect the next operation, such as the next query of a
    /// pooled connection. An early return by `?` and a panic drop the guard, too.
    ///
    /// The drop blocks its thread while the function runs on another one, so the function should be
    /// short, and must not wait for the thread that drops the guard. A guard that is dropped by the
    /// function itself does not wait, since it would wait for ever. If the function panics, only
    /// its task does, and the drop returns.
    ///
    /// # Examples
    ///
    /// ```
    /// # use errgroup::{Context, ContextError};
    /// # use std::sync::Arc;
    /// # struct Query;
    /// # impl Query {
    /// #     fn interrupt(&self) {}
    /// #     fn rows(&self) -> std::ops::Range<u32> { 0..3 }
    /// # }
    /// fn rows(ctx: &Context, query: &Arc<Query>) -> Result<u32, ContextError> {
    ///     let handle = Arc::clone(query);
    ///     let _interrupt = ctx.after_func(move || handle.interrupt()).guard();
    ///     let mut rows = 0;
    ///     for _row in query.rows() {
    ///         ctx.check()?; // an early return disarms the interrupt
    ///         rows += 1;
    ///     }
    ///     Ok(rows)
    /// }
    /// # assert_eq!(rows(&Context::background(), &Arc::new(Query)).unwrap(), 3);
    /// ```
    pub fn guard(self) -> AfterFuncGuard {
        AfterFuncGuard { func: self }
    }
}

impl fmt::Debug for AfterFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterFunc").finish_non_exhaustive()
    }
}

/// A guard that [`AfterFunc::guard`] returns: it prevents the run when it is dropped.
///
/// When it has been dropped, the function either has returned or never runs. The drop blocks its
/// thread while the function runs on another one. It does not wait for a function that drops the
/// guard itself.
#[must_use = "dropping an AfterFuncGuard prevents the run: keep it in a variable"]
pub struct AfterFuncGuard {
    func: AfterFunc,
}

impl Drop for AfterFuncGuard {
    fn drop(&mut self) {
        if !self.func.stop() {
            self.func.shared.wait();
        }
    }
}

impl fmt::Debug for AfterFuncGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterFuncGuard").finish_non_exhaustive()
    }
}

/// The state that the function's task and its handle share.
struct Shared {
    state: Mutex<State>,
    /// Notified when the function has returned.
    returned: Condvar,
}

/// The state changes from `Waiting` to `Ended`, directly or by way of `Running`. The thread that
/// takes the function out under the lock decides which.
enum State {
    Waiting(Func),
    Running(ThreadId),
    Ended,
}

impl Shared {
    fn new(func: Func) -> Shared {
        Shared {
            state: Mutex::new(State::Waiting(func)),
            returned: Condvar::new(),
        }
    }

    /// Takes the function, so that it never runs.
    fn take(&self) -> Option<Func> {
        self.begin(State::Ended)
    }

    /// Takes the function if it is still there, with `next` as the new state.
    fn begin(&self, next: State) -> Option<Func> {
        let mut state = self.state.lock();
        if !matches!(*state, State::Waiting(_)) {
            return None;
        }
        match std::mem::replace(&mut *state, next) {
            State::Waiting(func) => Some(func),
            State::Running(_) | State::Ended => None,
        }
    }

    /// Runs the function, outside the lock, unless it was taken before.
    fn run(&self) {
        let Some(func) = self.begin(State::Running(thread::current().id())) else {
            return;
        };
        let ran = panic::catch(func);
        // A function that has panicked has ended as well. Its panic is resumed after the waiting
        // threads have been notified.
        *self.state.lock() = State::Ended;
        self.returned.notify_all();
        if let Err(payload) = ran {
            panic::resume(payload);
        }
    }

    /// Waits until no other thread runs the function.
    fn wait(&self) {
        let current = thread::current().id();
        let mut state = self.state.lock();
        // The loop ends: `run` sets `Ended` after every `Running`, and notifies. The thread that
        // runs the function does not wait, since it would wait for itself.
        while matches!(*state, State::Running(running) if running != current) {
            state = self.returned.wait(state);
        }
    }
}
