//! A job that the handle of its task can stop.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;

use super::task_handle::Slot;
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::job::JobResult;
use crate::sync::Arc;

pin_project! {
    /// Puts the value of a job where its handle finds it, unless the handle has the job dropped.
    pub(super) struct Stoppable<T, J> {
        slot: Arc<Slot<T>>,
        #[pin]
        job: J,
    }
}

impl<T, J> Stoppable<T, J> {
    pub(super) fn new(slot: Arc<Slot<T>>, job: J) -> Stoppable<T, J> {
        Stoppable { slot, job }
    }
}

impl<T, E, J> Future for Stoppable<T, J>
where
    J: Future<Output = Result<T, TaskErrorKind<E>>>,
{
    type Output = JobResult<E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<JobResult<E>> {
        let this = self.project();
        if !this.slot.drops_job() {
            match this.job.poll(cx) {
                Poll::Ready(Ok(value)) => {
                    this.slot.put(value);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(kind)) => return Poll::Ready(Err(kind)),
                Poll::Pending if this.slot.keep_job_waker(cx.waker()) => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        // The caller drops a job that is ready.
        Poll::Ready(Err(TaskErrorKind::Aborted(this.slot.stop_error())))
    }
}
