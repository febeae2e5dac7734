//! Readiness: a task that says when it is ready, and goes on.

use std::fmt::{self, Display};

use super::core::Core;
use super::job;
use super::launch::Launch;
use super::queue::{Queue, Task, Work};
use super::source::{Lending, Observer};
use super::task_handle::{Slot, TaskHandle};
use crate::context::{Cause, Note};
use crate::error::ContextError;
use crate::sync::{Arc, Mutex, Weak};

static NOT_READY: Note = Note("the task ended without saying that it was ready");
static GROUP_GONE: Note = Note("the group has gone");

/// How a task that [`start`](crate::Group::start) started says that it is ready.
///
/// Dropping it says nothing: what `start` waits for then is the end of the task.
#[must_use = "`start` waits until `ok` is called, or the task ends"]
pub struct Ready<R> {
    call: Arc<Call<R>>,
}

impl<R> Ready<R> {
    /// The task is ready; `value` is what `start` returns. The task goes on, as an ordinary one of its group.
    pub fn ok(self, value: R) {
        self.call.stage.lock().is_ready = true;
        self.call.slot.put(value);
        let core = self.call.core.upgrade();
        self.call.slot.end(core.as_deref(), true);
    }
}

impl<R> fmt::Debug for Ready<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

/// A call of `start`, as its task and its caller see it.
struct Call<R> {
    /// Where the value waits, and the caller for it: until the task is ready, or has ended.
    slot: Arc<Slot<R>>,
    core: Weak<dyn Lending>,
    stage: Mutex<Stage>,
}

struct Stage {
    is_ready: bool,
    /// The caller waits; once it has gone, the task is one like any other.
    called: bool,
}

impl<R> Call<R> {
    /// Whether a failure now is the caller's.
    fn takes_failure(&self) -> bool {
        let stage = self.stage.lock();
        stage.called && !stage.is_ready
    }
}

impl<R: Send> Observer for Call<R> {
    fn ended(&self, core: &dyn Lending, _: bool) {
        // What it was ready with stays, however it ended later.
        self.slot.end(Some(core), true);
    }

    fn takes_failure(&self) -> bool {
        Call::takes_failure(self)
    }
}

/// The caller's side: dropped, the caller has gone.
struct Caller<R>(Arc<Call<R>>);

impl<R> Drop for Caller<R> {
    fn drop(&mut self) {
        self.0.stage.lock().called = false;
    }
}

/// The whole of `start`.
pub(crate) async fn start<E, R, S, F>(launch: Launch<'static, E>, begin: S) -> Result<R, E>
where
    E: From<ContextError> + Display + Send + 'static,
    R: Send + 'static,
    S: FnOnce(Ready<R>) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
{
    let stopped = |note| ContextError::cancelled(Some(Cause::note(note)));
    let Some(core) = launch.core else {
        return Err(E::from(stopped(&GROUP_GONE)));
    };
    core.bind("start");
    let weak: Weak<dyn Lending> = Arc::<Core<Queue<E>>>::downgrade(&core);
    let slot = Slot::new();
    // Awaiting it lends, as awaiting any handle does.
    let value = TaskHandle::new(slot.clone(), weak.clone());
    let call = Arc::new(Call {
        slot,
        core: weak,
        stage: Mutex::new(Stage {
            is_ready: false,
            called: true,
        }),
    });
    let failure = Arc::new(Mutex::new(None));
    let caller = Caller(call.clone());
    let job = {
        let (call, failure) = (call.clone(), failure.clone());
        let ready = Ready { call: call.clone() };
        let finish = move |result| match result {
            // Before it was ready, an error is the caller's and not the group's.
            Err(error) if call.takes_failure() => {
                *failure.lock() = Some(error);
                Ok(())
            }
            result => job::result(result),
        };
        job::of_start(move || begin(ready), finish)
    };
    let task = Task::new(launch.label, Some(call));
    core.submit(task, Work::Future(Box::pin(job)));
    let value = value.await;
    drop(caller);
    if let Some(value) = value {
        return Ok(value);
    }
    let failed = failure.lock().take();
    Err(failed.unwrap_or_else(|| E::from(core.ctx().err().unwrap_or_else(|| stopped(&NOT_READY)))))
}
