//! Tasks on the blocking pool, under the group's limit.
//!
//! A closure that runs cannot be aborted. So the worker that takes such a task hands it, with its
//! permit, to the pool, and goes on to the next; the thread that runs the closure does the
//! accounting. A `wait` waits for it by the count.
//!
//! A closure may block in its destructor too: a client with a runtime of its own does, and panics on
//! a thread that polls tasks. So one that never begins is dropped on the pool as well. It takes the
//! same way as one that begins, and is dropped where it would have begun.
//!
//! # Invariants
//!
//! 1. Until a thread takes it, a closure on its way is in `OnPool`, with its task. Whichever removes
//!    it from there, the thread or an abort, counts it as ended.
//! 2. A closure begins only if its thread has removed it, the group is open, and its context is not
//!    done.
//! 3. An abort does not wait for a thread of the pool: what it removes counts as ended at once, and
//!    the closure is dropped later, when the pool has a thread for it.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::core::Core;
use super::queue::{Queue, Task};
use super::source::{Outcome, Tag};
use super::state::Permit;
use crate::context::Context;
use crate::error::{ContextError, TaskErrorKind};
use crate::panic;
use crate::sync::{Arc, Handle};
use crate::tracing;

/// What runs on the pool.
pub(crate) type BlockingJob<E> = Box<dyn FnOnce(Context) -> Result<(), E> + Send>;

/// The tasks whose closures wait for a thread of the pool.
pub(crate) struct OnPool {
    tasks: BTreeMap<OnPoolId, (Task, Permit)>,
    next: OnPoolId,
}

type OnPoolId = u64;

impl OnPool {
    pub(crate) fn new() -> OnPool {
        OnPool {
            tasks: BTreeMap::new(),
            next: 0,
        }
    }

    fn insert(&mut self, task: Task, permit: Permit) -> OnPoolId {
        self.next += 1;
        self.tasks.insert(self.next, (task, permit));
        self.next
    }

    /// For an abort.
    pub(crate) fn take_all(&mut self) -> Vec<(Task, Permit)> {
        std::mem::take(&mut self.tasks).into_values().collect()
    }
}

/// Hands a job to the pool, to run there, or to be dropped there if it may not run any more.
pub(crate) fn hand_over<E>(
    core: &Arc<Core<Queue<E>>>,
    task: Task,
    job: BlockingJob<E>,
    permit: Permit,
) where
    E: From<ContextError> + Display + Send + 'static,
{
    let id = core.with(|state, _| match state.is_open() {
        true => Ok(state.source.on_pool.insert(task, permit)),
        false => Err(task),
    });
    let waiting = WaitingJob {
        core: core.clone(),
        id: id.as_ref().ok().copied(),
        job: Some(job),
    };
    core.spawn_blocking(move || waiting.run());
    if let Err(task) = id {
        core.end_elsewhere(task, permit, Outcome::Aborted);
    }
}

/// Drops a job that no group waits for, on the pool.
pub(crate) fn discard<E: 'static>(job: BlockingJob<E>) {
    match Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn_blocking(move || panic::discard(job));
        }
        Err(_) => panic::discard(job),
    }
}

/// A job on its way to a thread, or on one. Dropped unrun (the runtime has shut down), it counts as
/// aborted.
struct WaitingJob<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    core: Arc<Core<Queue<E>>>,
    /// `None` if it counts as ended already.
    id: Option<OnPoolId>,
    job: Option<BlockingJob<E>>,
}

impl<E> WaitingJob<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn run(mut self) {
        if self.core.ctx().is_done() {
            return;
        }
        let taken = self.take_task();
        if let (Some((mut task, permit)), Some(job)) = (taken, self.job.take()) {
            task.started();
            let ctx = self.core.ctx().clone();
            let entered = tracing::enter(task.span());
            let ended = panic::catch(|| job(ctx));
            drop(entered);
            let outcome = match ended {
                Ok(result) => Outcome::Returned(result.map_err(TaskErrorKind::Failed)),
                Err(payload) => Outcome::Panicked(payload),
            };
            self.core.end_elsewhere(task, permit, outcome);
        }
    }

    /// The task, unless an abort was first.
    fn take_task(&mut self) -> Option<(Task, Permit)> {
        let id = self.id.take()?;
        self.core
            .with(|state, _| state.source.on_pool.tasks.remove(&id))
    }
}

impl<E> Drop for WaitingJob<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn drop(&mut self) {
        let Some(job) = self.job.take() else { return };
        match self.take_task() {
            Some((task, permit)) => {
                let outcome = Outcome::of_drop(panic::catch(|| drop(job)));
                self.core.end_elsewhere(task, permit, outcome);
            }
            None => panic::discard(job),
        }
    }
}
