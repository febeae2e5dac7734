//! Readiness: a task that says when it is ready, and goes on.

use std::fmt::{self, Display};
use std::future::poll_fn;
use std::task::{Poll, Waker};

use super::job;
use super::launch::Launch;
use super::queue::{Task, Work};
use super::source::{Lending, Observer};
use crate::context::{Cause, Note};
use crate::error::ContextError;
use crate::panic;
use crate::sync::{Arc, Mutex};

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
        let mut state = self.call.0.lock();
        state.is_ready = true;
        state.value = Some(value);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(panic::wake);
    }
}

impl<R> fmt::Debug for Ready<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").finish_non_exhaustive()
    }
}

/// A call of `start`, as its task and its caller see it.
struct Call<R>(Mutex<State<R>>);

struct State<R> {
    value: Option<R>,
    is_ready: bool,
    ended: bool,
    /// The caller waits; once it has gone, the task is one like any other.
    called: bool,
    waker: Option<Waker>,
}

impl<R> Call<R> {
    fn new() -> Arc<Call<R>> {
        Arc::new(Call(Mutex::new(State {
            value: None,
            is_ready: false,
            ended: false,
            called: true,
            waker: None,
        })))
    }

    /// Whether a failure now is the caller's.
    fn takes_failure(&self) -> bool {
        let state = self.0.lock();
        state.called && !state.is_ready
    }
}

impl<R: Send> Observer for Call<R> {
    fn ended(&self, _: &dyn Lending, _: bool) {
        let mut state = self.0.lock();
        state.ended = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(panic::wake);
    }

    fn takes_failure(&self) -> bool {
        Call::takes_failure(self)
    }
}

/// The caller's side: dropped, the caller has gone.
struct Caller<R>(Arc<Call<R>>);

impl<R> Drop for Caller<R> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.called = false;
        let left = (state.value.take(), state.waker.take());
        drop(state);
        drop(left);
    }
}

impl<R> Caller<R> {
    /// What the task was ready with; `None` if it ended before.
    async fn ready(&self) -> Option<R> {
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut state = self.0.0.lock();
            if state.is_ready || state.ended {
                let value = state.value.take();
                drop(state);
                return Poll::Ready(value);
            }
            let old = state.waker.replace(waker);
            drop(state);
            drop(old);
            Poll::Pending
        })
        .await
    }
}

/// The whole of `start`.
pub(crate) async fn start<E, R, S, F>(launch: Launch<E>, begin: S) -> Result<R, E>
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
    let call = Call::new();
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
    core.submit(task, Work::Future(Box::pin(job))).await;
    if let Some(value) = caller.ready().await {
        return Ok(value);
    }
    let failed = failure.lock().take();
    Err(failed.unwrap_or_else(|| E::from(core.ctx().err().unwrap_or_else(|| stopped(&NOT_READY)))))
}
