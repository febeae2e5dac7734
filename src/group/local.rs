//! Tasks that are not `Send`, under the group's limit.
//!
//! A worker may run on any thread, so it cannot run these. Each is a local task of its own. It
//! waits for its permit in the group's queue like any other task (see [`LocalWait`]), and holds the
//! permit while it runs.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker, ready};

use pin_project_lite::pin_project;

use super::handle::{Admission, Number};
use super::queue::{Queue, Task};
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::current::{self, CurrentJob};
use crate::scheduler::effects::Effects;
use crate::scheduler::error::TaskErrorKind;
use crate::scheduler::job::poll_job;
use crate::scheduler::lending::LenderId;
use crate::scheduler::source::{GroupError, Outcome, Tag};
use crate::sync::{Arc, Mutex};

/// Identifies a local task within its group.
pub(crate) type LocalId = usize;

/// The wait of a local task for its permit.
///
/// Its lock may be taken while the scheduler's lock is held. No lock is taken while it is held.
pub(crate) struct LocalWait(Mutex<WaitState>);

struct WaitState {
    stage: Stage,
    waker: Option<Waker>,
    /// Its number in the queue, if it has to wait there. Written under the scheduler's lock.
    number: Option<Number>,
    /// Whether the task starts, once that is decided: its admission resolves to this. It is written
    /// under the scheduler's lock, in the section in which the waiter is woken, so a waiter that is
    /// woken finds it. `stage` does not serve for that: a task leaves it outside that lock.
    decision: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not counted yet.
    New,
    /// Counted, and waiting for a permit.
    Waiting,
    /// The task has a permit.
    Admitted,
    /// The task never starts, and counts as ended when it has been dropped.
    Refused,
    /// The task never starts, and does not count: a wait of the group is over.
    Dismissed,
    /// The task has finished or was dropped.
    Left,
}

impl LocalWait {
    fn new() -> Arc<LocalWait> {
        Arc::new(LocalWait(Mutex::new(WaitState {
            stage: Stage::New,
            waker: None,
            number: None,
            decision: None,
        })))
    }

    /// Begins to wait. Returns `false` if the task was dropped already, because its `LocalSet` was
    /// being dropped when it was spawned.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.0.lock();
        let new = state.stage == Stage::New;
        if new {
            state.stage = Stage::Waiting;
        }
        new
    }

    /// Gives the task a permit. Returns `false` if the task was dropped, and needs none.
    pub(crate) fn admit(&self, effects: &mut Effects) -> bool {
        self.decide(Stage::Admitted, effects)
    }

    /// Decides that the task never starts. It counts as ended when it has been dropped.
    pub(crate) fn refuse(&self, effects: &mut Effects) {
        self.decide(Stage::Refused, effects);
    }

    /// Decides that the task never starts and does not count, because a wait of the group is over.
    pub(crate) fn dismiss(&self, effects: &mut Effects) {
        self.decide(Stage::Dismissed, effects);
    }

    fn decide(&self, stage: Stage, effects: &mut Effects) -> bool {
        let mut state = self.0.lock();
        let waits = state.stage == Stage::Waiting;
        state.decision = Some(waits && stage == Stage::Admitted);
        if !waits {
            return false;
        }
        state.stage = stage;
        effects.wake.extend(state.waker.take());
        true
    }

    /// Notes the number in the queue. The task may have been dropped already.
    pub(crate) fn set_number(&self, number: Number) {
        self.0.lock().number = Some(number);
    }

    pub(crate) fn number(&self) -> Option<Number> {
        self.0.lock().number
    }

    /// Notes that the task was dropped in the queue: unless it was decided before, it never starts.
    pub(crate) fn forget(&self) {
        self.0.lock().decision.get_or_insert(false);
    }

    /// Returns whether the task starts, if that is decided.
    pub(crate) fn decision(&self) -> Option<bool> {
        self.0.lock().decision
    }

    /// Returns whether the task starts, if that is decided. It is for `Debug` and never blocks.
    pub(crate) fn try_decision(&self) -> Option<bool> {
        self.0.try_lock().and_then(|state| state.decision)
    }

    fn poll(&self, cx: &mut task::Context<'_>) -> Poll<Stage> {
        let waker = cx.waker().clone();
        let mut state = self.0.lock();
        if !matches!(state.stage, Stage::New | Stage::Waiting) {
            let stage = state.stage;
            drop(state);
            return Poll::Ready(stage);
        }
        let old = state.waker.replace(waker);
        drop(state);
        drop(old);
        Poll::Pending
    }

    fn leave(&self) -> Stage {
        let mut state = self.0.lock();
        let waker = state.waker.take();
        let stage = std::mem::replace(&mut state.stage, Stage::Left);
        drop(state);
        drop(waker);
        stage
    }
}

pin_project! {
    struct LocalTask<E, F>
    where
        E: GroupError,
    {
        scheduler: Arc<Scheduler<Queue<E>>>,
        wait: Arc<LocalWait>,
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
                let _on_thread = current::enter(this.current, cx.waker());
                Outcome::of_poll(ready!(poll_job(this.future.as_mut(), span, cx)))
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
    wait: &Arc<LocalWait>,
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
        Stage::Refused => scheduler.complete_unstarted(task, outcome),
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
        let wait = LocalWait::new();
        let id = Arc::as_ptr(&wait) as LocalId;
        task.local = Some(id);
        task.open_span(&self.shared);
        let local = LocalTask {
            scheduler: self.clone(),
            wait: wait.clone(),
            task: Some(task),
            future: Some(future),
            current: Some(CurrentJob::new(self.clone())),
            started: false,
        };
        let abort = tokio::task::spawn_local(local).abort_handle();
        self.submit_local(wait, id, abort)
    }
}
