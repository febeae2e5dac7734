//! Futures that their caller polls and that a group waits for.
//!
//! # Invariants
//!
//! 1. A tracked future is counted as a job of its group from the call of `track` until its
//!    destructor has run and its outcome is recorded, once. It has no permit and no worker.
//! 2. It is counted in any phase but `Closed`: the end of the context and an abort do not stop what
//!    only the caller can stop. After a wait is over, there is nothing to count for.
//! 3. A panic is recorded as that of a task is, and does not unwind into the caller. If the future
//!    is not counted, nothing would resume the panic later, so it unwinds into the caller.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tokio::task::coop;

use super::background;
use super::policy::Policy;
use super::queue::Queue;
use super::task::Task;
use crate::panic::{self, Payload};
use crate::registry::{First, TaskKind};
use crate::scheduler::Scheduler;
use crate::scheduler::error::Label;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::job::{self, poll_to_end};
use crate::scheduler::permits::lending::{Lending, SchedulerId};
use crate::scheduler::source::{Outcome, Tag};
use crate::span;
use crate::sync::Arc;

pin_project! {
    /// A future that its caller polls and that a group waits for, from
    /// [`Group::track`](crate::Group::track).
    ///
    /// Its output is `()`: the error of the future, or its panic, is a failure of the group.
    ///
    /// It differs from a task: the group does not poll it, gives it no permit, and cannot abort it.
    /// tokio-util's `TaskTracker::track_future` is similar, and ignores the output.
    ///
    /// # Cancel safety
    ///
    /// Polling `&mut tracked` again later loses nothing. Dropping it drops the future, which is no
    /// failure of the group.
    #[must_use = "a tracked future does nothing unless it is polled, and the group waits for it"]
    pub struct Tracked<F>
    where
        F: Future,
    {
        // `None` once the future has ended.
        #[pin]
        future: Option<F>,
        counted: Option<Counted<F::Output>>,
    }

    impl<F> PinnedDrop for Tracked<F>
    where
        F: Future,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let Some(counted) = this.counted.take() else { return };
            let _entered = span::enter(counted.task.span());
            let dropped = panic::catch(|| this.future.set(None));
            drop(_entered);
            counted.end(dropped.map(|()| None));
        }
    }
}

/// The part of a tracked future that its group knows.
struct Counted<O> {
    group: Arc<dyn Track<O>>,
    task: Task,
}

/// A group's scheduler, as a future with output `O` sees it.
trait Track<O>: Send + Sync {
    fn id(&self) -> SchedulerId;
    /// Records how a tracked future has ended, and counts it out. Without an output it was dropped.
    fn end(self: Arc<Self>, task: Task, ended: Result<Option<O>, Payload>);
}

impl<O> Counted<O> {
    fn end(self, ended: Result<Option<O>, Payload>) {
        self.group.end(self.task, ended);
    }
}

impl<E> Track<Result<(), E>> for Scheduler<Queue<E>>
where
    E: GroupError,
{
    fn id(&self) -> SchedulerId {
        Lending::id(self)
    }

    fn end(self: Arc<Self>, task: Task, ended: Result<Option<Result<(), E>>, Payload>) {
        let outcome = match ended {
            Ok(output) => Outcome::Returned(job::result(output.unwrap_or(Ok(())))),
            Err(payload) => Outcome::Panicked(payload),
        };
        self.complete_unstarted(task, outcome);
    }
}

/// Counts a future in the group, unless a wait of the group is over.
pub(super) fn track<E, F>(
    scheduler: Option<&Arc<Scheduler<Queue<E>>>>,
    label: Label,
    policy: Policy,
    future: F,
) -> Tracked<F>
where
    E: GroupError,
    F: Future<Output = Result<(), E>>,
{
    let counted = scheduler.and_then(|scheduler| {
        let counts = scheduler.with_state(|state| {
            let counts = !state.is_concluded();
            if counts {
                state.count_in_task(policy);
            }
            counts
        });
        counts.then(|| {
            let mut task = Task::with_policy(label, None, policy);
            task.open_span_of(&scheduler.shared.span, TaskKind::Tracked, First::Starts);
            task.started();
            Counted {
                group: scheduler.clone(),
                task,
            }
        })
    });
    Tracked {
        future: Some(future),
        counted,
    }
}

impl<F> Future for Tracked<F>
where
    F: Future,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let budget = ready!(coop::poll_proceed(cx));
        let mut this = self.project();
        match this.counted {
            Some(counted) => {
                let _in_background = background::enter(counted.task.policy, counted.group.id());
                let entered = span::enter(counted.task.span());
                let ended = ready!(poll_to_end(this.future.as_mut(), cx));
                drop(entered);
                if let Some(counted) = this.counted.take() {
                    counted.end(ended.map(Some));
                }
            }
            None => {
                if let Some(future) = this.future.as_mut().as_pin_mut() {
                    ready!(future.poll(cx));
                    this.future.set(None);
                }
            }
        }
        budget.made_progress();
        Poll::Ready(())
    }
}

impl<F> fmt::Debug for Tracked<F>
where
    F: Future,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("ended", &self.future.is_none())
            .finish_non_exhaustive()
    }
}
