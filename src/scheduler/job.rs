//! A user's future as a job.
//!
//! The future is not wrapped in an `async` block. A panic that unwinds through such a block drops
//! what the block awaits while it unwinds, and a destructor that panics then aborts the process.
//! Here the future stays in place until it is dropped explicitly.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;

use super::current;
use crate::context::ContextError;
use crate::panic::{self, Payload};
use crate::scheduler::error::TaskErrorKind;
use crate::span::{self, TaskSpan};

/// The largest future or closure that is passed by value from the call to its job. Each call in
/// between copies it, which takes a multiple of its size on the stack, above all in a debug build.
/// The figures are those of tokio.
const BY_VALUE: usize = if cfg!(debug_assertions) { 2048 } else { 16_384 };

/// Returns whether a future or closure must be boxed at the call, before it is passed on.
///
/// Ask in an `if const`: the compiler then compiles one of the two branches for each type, also in
/// a debug build.
pub(crate) const fn is_big<T>() -> bool {
    size_of::<T>() > BY_VALUE
}

/// Passes the future on in a box if it is big. This happens in the public call itself, because each
/// call in between would copy the future. The box is type-erased, so that the code behind it is not
/// compiled twice for each future.
macro_rules! boxed_if_big {
    ($future:ident: $type:ty $(, $auto:path)? => $call:expr) => {
        if const { $crate::scheduler::job::is_big::<$type>() } {
            type Boxed<O> = std::pin::Pin<Box<dyn Future<Output = O> $(+ $auto)?>>;
            let $future: Boxed<<$type as Future>::Output> = Box::pin($future);
            $call
        } else {
            $call
        }
    };
}
pub(crate) use boxed_if_big;

/// The output of a job of a group.
pub(crate) type JobResult<E> = Result<(), TaskErrorKind<E>>;

/// A job with its type erased: a group holds futures of any type.
pub(crate) type Job<E> = Pin<Box<dyn Future<Output = JobResult<E>> + Send>>;

pin_project! {
    /// A job: the function that makes the future, if the future is made at the start; the future;
    /// and the function that turns its output into a result.
    pub(crate) struct Work<S, F, M> {
        start: Option<S>,
        #[pin]
        future: Option<F>,
        finish: Option<M>,
    }
}

/// Returns a job for an existing future.
pub(crate) fn of_future<F, M, O>(future: F, finish: M) -> Work<fn() -> F, F, M>
where
    F: Future,
    M: FnOnce(F::Output) -> O,
{
    Work {
        start: None,
        future: Some(future),
        finish: Some(finish),
    }
}

/// Returns a job whose future is made when the job is first polled.
pub(crate) fn of_start<S, F, M, O>(start: S, finish: M) -> Work<S, F, M>
where
    S: FnOnce() -> F,
    F: Future,
    M: FnOnce(F::Output) -> O,
{
    Work {
        start: Some(start),
        future: None,
        finish: Some(finish),
    }
}

/// Polls a job in its span, as the current job of this thread. When it is ready, it is dropped. A
/// panic of the poll or of the destructor is returned.
#[inline(always)]
pub(crate) fn poll_job<O>(
    job: &mut dyn ErasedJob<O>,
    span: Option<&TaskSpan>,
    cx: &mut task::Context<'_>,
) -> Poll<Result<O, Payload>> {
    let _entered = span::enter(span);
    current::poll(cx, |cx| job.poll_to_end(cx))
}

/// A job behind a pointer, until it has ended. What a worker does around its job is then compiled
/// once, and not once for each type of job.
pub(crate) trait ErasedJob<O> {
    /// Polls the job. When it is ready, it is dropped. A panic of the poll or of the destructor is
    /// returned.
    fn poll_to_end(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<O, Payload>>;
    /// Drops the job. A panic of the destructor is returned.
    fn drop_now(&mut self) -> Result<(), Payload>;
}

impl<J: Future> ErasedJob<J::Output> for Pin<&mut Option<J>> {
    fn poll_to_end(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<J::Output, Payload>> {
        poll_to_end(self.as_mut(), cx)
    }

    fn drop_now(&mut self) -> Result<(), Payload> {
        panic::catch(|| self.set(None))
    }
}

/// Polls a job. When it is ready, it is dropped. A panic of the poll or of the destructor is
/// returned.
pub(crate) fn poll_to_end<J: Future>(
    mut job: Pin<&mut Option<J>>,
    cx: &mut task::Context<'_>,
) -> Poll<Result<J::Output, Payload>> {
    let polled = panic::catch(|| match job.as_mut().as_pin_mut() {
        Some(job) => job.poll(cx),
        None => Poll::Pending,
    });
    let ended = match polled {
        Ok(poll) => Ok(ready!(poll)),
        Err(payload) => Err(payload),
    };
    let dropped = panic::catch(|| job.set(None));
    Poll::Ready(panic::first(ended, dropped))
}

/// Returns the output of a fallible future as the result of its job.
pub(crate) fn result<T, E>(result: Result<T, E>) -> Result<T, TaskErrorKind<E>> {
    result.map_err(TaskErrorKind::Failed)
}

/// Returns the output of a fallible future that was run under a context as the result of its job.
pub(crate) fn result_under<T, E>(
    ended: Result<Result<T, E>, ContextError>,
) -> Result<T, TaskErrorKind<E>> {
    match ended {
        Ok(output) => result(output),
        Err(ended) => Err(TaskErrorKind::Aborted(ended)),
    }
}

impl<S, F, M, O> Future for Work<S, F, M>
where
    S: FnOnce() -> F,
    F: Future,
    M: FnOnce(F::Output) -> O,
{
    type Output = O;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(start) = this.start.take() {
            this.future.set(Some(start()));
        }
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            panic!("a job was polled again after its start had panicked");
        };
        let output = ready!(future.poll(cx));
        match this.finish.take() {
            Some(finish) => Poll::Ready(finish(output)),
            None => panic!("a job was polled again after it had finished"),
        }
    }
}
