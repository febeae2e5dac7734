//! Tasks that never run: a refused one, and one that its handle takes out of the queue.

use super::blocking;
use super::handle::Number;
use super::name::{GROUP_CLOSED, WAIT_ENDED, why};
use super::permit_wait::PermitWait;
use super::policy::Policy;
use super::queue::{Queue, Queued};
use super::task::{Entry, Work};
use super::task_handle::StopQueued;
use crate::context::ContextError;
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::source::{HadPermit, Outcome, Rejected, Source};
use crate::scheduler::state::State;
use crate::sync::Arc;

impl<E> State<Queue<E>>
where
    E: GroupError,
{
    /// Counts a task that is refused, unless a wait is already over. Returns whether it did.
    fn count_in_refused(&mut self, policy: Policy) -> bool {
        let counts = !self.is_concluded();
        if counts {
            self.count_in_task(policy);
        }
        counts
    }
}

impl<E> Scheduler<Queue<E>>
where
    E: GroupError,
{
    /// Refuses a task because the context is done or the group is closed. It counts as ended,
    /// unless a wait is already over.
    pub(super) fn refuse(self: &Arc<Self>, queued: Queued<E>) {
        let entry = match queued {
            Queued::Entry(entry) => entry,
            Queued::Local(wait) => return self.refuse_local(wait, Policy::default()),
            Queued::Reserved(_) | Queued::Gap => return,
        };
        let policy = entry.task.policy;
        let counts = self.with_state(|state| state.count_in_refused(policy));
        if counts {
            return self.refuse_entry(entry);
        }
        let Entry { task, work } = entry;
        work.discard();
        if let Some(observer) = task.observer {
            observer.failed(self.why_refused(), false);
            observer.ended(&**self, false);
        }
    }

    /// Returns the error of what the group refuses now.
    pub(super) fn why_refused(self: &Arc<Self>) -> ContextError {
        let why_shut = || {
            // The context ends a moment after the wait that does it.
            let has_ended = self.read(|state| state.is_concluded());
            let reason = if has_ended {
                &WAIT_ENDED
            } else {
                &GROUP_CLOSED
            };
            ContextError::cancelled(Some(why(self, reason)))
        };
        self.ctx().err().unwrap_or_else(why_shut)
    }

    /// Drops a task that was refused, and counts it as ended. A closure is dropped on the pool.
    fn refuse_entry(self: &Arc<Self>, Entry { task, work }: Entry<E>) {
        match work {
            Work::Blocking(job) => blocking::refuse(self, task, job),
            Work::Future(job) => {
                let outcome = Outcome::of_refusal(panic::catch(|| drop(job)));
                self.complete_unstarted(task, outcome);
            }
        }
    }

    /// Refuses a local task, which counts as ended when it has been dropped.
    pub(super) fn refuse_local(self: &Arc<Self>, wait: Arc<PermitWait>, policy: Policy) {
        self.with_effects(|state, effects| {
            if state.count_in_refused(policy) {
                wait.refuse(effects);
            } else {
                wait.dismiss(effects);
            }
        });
    }

    /// Drops work that never runs, and counts its task as ended.
    pub(super) fn reject(self: &Arc<Self>, Entry { task: tag, work }: Entry<E>, permit: HadPermit) {
        Source::dispose(self, Rejected { tag, work, permit });
    }
}

impl<E> StopQueued for Scheduler<Queue<E>>
where
    E: GroupError,
{
    fn stop_queued(self: Arc<Self>, number: Number, observer: usize) -> bool {
        self.with_effects(|state, effects| {
            let Some(Entry { task, work }) = state.source.take_out(number, observer) else {
                return false;
            };
            state.reject(vec![(task, work)], HadPermit::No);
            state.call_searcher(effects);
            state.relieve_watcher(effects);
            true
        })
    }
}
