//! Tasks that are not `Send`, under the group's limit.
//!
//! A worker may run on any thread, so it cannot run these. Each is a local task of its own. It
//! waits for its permit in the group's queue like any other task (see [`PermitWait`]), and holds
//! the permit while it runs.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;

use super::background;
use super::handle::Admission;
use super::permit_wait::{PermitWait, Stage};
use super::queue::Queue;
use super::task::{LocalId, Place, Task};
use crate::panic;
use crate::registry::{First, TaskKind};
use crate::scheduler::Scheduler;
use crate::scheduler::current::{self, CurrentJob};
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::poll_job;
use crate::scheduler::permits::lending::{LenderId, Lending};
use crate::scheduler::source::{Outcome, Tag};
use crate::sync::Arc;

pin_project! {
    struct LocalTask<E, F>
    where
        E: GroupError,
    {
        scheduler: Arc<Scheduler<Queue<E>>>,
        wait: Arc<PermitWait>,
        // `None` once the task has been counted as ended.
        task: Option<Task>,
        #[pin]
        future: Option<F>,
        current: Option<CurrentJob>,
        started: bool,
    }

    impl<E, F> PinnedDrop for LocalTask<E, F>
    where
        E: GroupError,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let dropped = panic::catch(|| this.future.set(None));
            let (task, lender) = (this.task.take(), renew(this.current));
            end(this.scheduler, this.wait, task, Outcome::of_drop(dropped), lender);
        }
    }
}

impl<E, F> Future for LocalTask<E, F>
where
    E: GroupError,
    F: Future<Output = Result<(), TaskErrorKind<E>>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let outcome = match ready!(this.wait.poll(cx)) {
            Stage::Admitted => {
                if !*this.started {
                    *this.started = true;
                    this.task.iter_mut().for_each(Tag::started);
                }
                let span = this.task.as_ref().and_then(Tag::span);
                // A background task takes no permit, so it is no current job.
                let takes_none = this.task.as_ref().filter(|_| this.current.is_none());
                let _in_background = takes_none.and_then(|task| {
                    background::enter(task.policy, Lending::id(&**this.scheduler))
                });
                let _on_thread = current::enter(this.current, cx.waker());
                Outcome::of_poll(ready!(poll_job(&mut this.future, span, cx)))
            }
            _ => Outcome::of_drop(panic::catch(|| this.future.set(None))),
        };
        let (task, lender) = (this.task.take(), renew(this.current));
        end(this.scheduler, this.wait, task, outcome, lender);
        Poll::Ready(())
    }
}

fn renew(current: &mut Option<CurrentJob>) -> Option<LenderId> {
    current.as_mut().and_then(CurrentJob::renew)
}

/// Counts the task as ended, once.
fn end<E>(
    scheduler: &Arc<Scheduler<Queue<E>>>,
    wait: &Arc<PermitWait>,
    task: Option<Task>,
    outcome: Outcome<Queue<E>>,
    lender: Option<LenderId>,
) where
    E: GroupError,
{
    let Some(task) = task else { return };
    match wait.leave() {
        Stage::Admitted => scheduler.complete_elsewhere(task, outcome, lender),
        Stage::Waiting => {
            scheduler.with_effects(|state, effects| {
                state.source.forget(wait, &mut state.permits, effects)
            });
            scheduler.complete_unstarted(task, outcome);
        }
        Stage::Refused => {
            let outcome = match outcome {
                Outcome::Aborted => Outcome::Refused,
                outcome => outcome,
            };
            scheduler.complete_unstarted(task, outcome);
        }
        Stage::New | Stage::Dismissed | Stage::Left => {
            if let Some(observer) = task.observer {
                observer.ended(&**scheduler, false);
            }
        }
    }
}

impl<E> Scheduler<Queue<E>>
where
    E: GroupError,
{
    /// Starts a local task, or queues it.
    ///
    /// The task is spawned first and then waits. Only when it is spawned is it certain that its
    /// future is polled or dropped, and so counted as ended.
    #[track_caller]
    pub(crate) fn go_local<F>(self: &Arc<Self>, mut task: Task, future: F) -> Admission
    where
        F: Future<Output = Result<(), TaskErrorKind<E>>> + 'static,
    {
        let wait = PermitWait::new();
        let policy = task.policy;
        let id = Arc::as_ptr(&wait) as LocalId;
        task.place = Place::LocalSet(id);
        task.open_span_of(&self.shared.span, TaskKind::Local, First::Waits);
        let local = LocalTask {
            scheduler: self.clone(),
            wait: wait.clone(),
            task: Some(task),
            future: Some(future),
            // A task that takes no permit has none to lend.
            current: policy.takes_permit().then(|| CurrentJob::new(self.clone())),
            started: false,
        };
        let abort = tokio::task::spawn_local(local).abort_handle();
        if !wait.begin() {
            return Admission::never_started();
        }
        if policy.takes_permit() {
            self.submit_local(wait, id, abort)
        } else {
            self.submit_local_without_permit(policy, wait, id, abort)
        }
    }
}
