//! Tasks on the blocking pool, under the group's limit.
//!
//! Nobody can abort a closure that runs. So the place that takes such a task hands it, with its ticket, to the pool, and
//! goes on to the next; the thread that runs the closure does the accounting. A `wait` waits for it by the count.

use std::fmt::Display;

use super::core::Core;
use super::queue::{Queue, Task};
use super::source::{Outcome, Tag};
use crate::context::Context;
use crate::error::{ContextError, TaskErrorKind};
use crate::panic;
use crate::sync::Arc;
use crate::tracing;

/// What runs on the pool.
pub(crate) type BlockingJob<E> = Box<dyn FnOnce(Context) -> Result<(), E> + Send>;

/// Hands a job to the pool.
pub(crate) fn run<E>(core: &Arc<Core<Queue<E>>>, task: Task, job: BlockingJob<E>)
where
    E: From<ContextError> + Display + Send + 'static,
{
    let running = Running {
        core: core.clone(),
        work: Some((task, job)),
    };
    core.spawn_blocking(move || running.run());
}

/// A job on its way to a thread, or on one; dropped unrun (the runtime shut down), it counts as aborted.
struct Running<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    core: Arc<Core<Queue<E>>>,
    work: Option<(Task, BlockingJob<E>)>,
}

impl<E> Running<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn run(mut self) {
        // An abort while it waited for a thread: it is dropped, as a future would be.
        if !self.core.read(|state| state.is_open()) {
            return;
        }
        if let Some((mut task, job)) = self.work.take() {
            task.started();
            let ctx = self.core.ctx().clone();
            let entered = tracing::enter(task.span());
            let ended = panic::catch(|| job(ctx));
            drop(entered);
            let outcome = match ended {
                Ok(result) => Outcome::Returned(result.map_err(TaskErrorKind::Failed)),
                Err(payload) => Outcome::Panicked(payload),
            };
            self.core.end_off_counter(task, outcome, None);
        }
    }
}

impl<E> Drop for Running<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn drop(&mut self) {
        if let Some((task, job)) = self.work.take() {
            let outcome = Outcome::of_drop(panic::catch(|| drop(job)));
            self.core.end_off_counter(task, outcome, None);
        }
    }
}
