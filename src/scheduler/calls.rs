//! The failures that belong to a call of `Group::start`, until the call takes them or leaves them
//! to the group.
//!
//! The invariants are at the head of `group/start.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::panic;
use crate::scheduler::error::{Label, TaskErrorKind};

/// How often a join that waits for nothing else yields, so that a call that was woken can take its
/// failure.
const MAX_YIELDS: usize = 128;

/// Identifies a call of `start` by the address of the data that it shares with its task. Both keep
/// that data alive.
pub(crate) type CallId = usize;

/// Identifies a closure on the blocking pool within its group.
pub(crate) type PoolId = u64;

/// A failure of a task.
pub(crate) struct Failure<E> {
    pub(crate) label: Label,
    pub(crate) elapsed: Duration,
    pub(crate) kind: TaskErrorKind<E>,
    /// Whether the group's context was done when the task failed, or the group was closed when it
    /// was started.
    pub(crate) ended: bool,
    /// Whether the task was dropped after it had started and before it had ended.
    pub(crate) was_running: bool,
    /// Whether the failure may cancel the group's context.
    pub(crate) ends_context: bool,
    /// The closure that has failed, if it ran on the blocking pool.
    pub(crate) on_pool: Option<PoolId>,
}

/// A call whose caller still waits.
enum Call<E> {
    /// Its task has not failed, or the failure was left to the group.
    Waiting,
    /// Its task has failed, and the caller has not taken the failure yet.
    Failed(Failure<E>),
}

impl<E> Call<E> {
    fn into_failure(self) -> Option<Failure<E>> {
        match self {
            Call::Waiting => None,
            Call::Failed(failure) => Some(failure),
        }
    }
}

/// The calls whose callers still wait. Each has the failure of its task once that has failed.
pub(crate) struct Calls<E> {
    calls: BTreeMap<CallId, Call<E>>,
    /// The number of `calls` with a failure.
    kept: usize,
    /// How often a join has yielded for them.
    yields: usize,
}

/// What a join does about the failures that no call has taken yet.
pub(crate) enum Untaken<E> {
    None,
    /// It yields, because their callers may be about to take them.
    Yield,
    /// It records them as failures of the group.
    Failures(Vec<Failure<E>>),
}

impl<E> Calls<E> {
    pub(crate) const fn new() -> Calls<E> {
        Calls {
            calls: BTreeMap::new(),
            kept: 0,
            yields: 0,
        }
    }

    /// Registers a call whose caller begins to wait.
    pub(crate) fn enter(&mut self, call: CallId) {
        self.calls.insert(call, Call::Waiting);
    }

    /// Keeps a failure for its caller, or returns it if the caller no longer waits.
    pub(crate) fn keep(&mut self, call: CallId, failure: Failure<E>) -> Option<Failure<E>> {
        let Some(slot @ Call::Waiting) = self.calls.get_mut(&call) else {
            return Some(failure);
        };
        *slot = Call::Failed(failure);
        self.kept += 1;
        None
    }

    /// Removes a call, and returns the failure that was kept for it.
    pub(crate) fn leave(&mut self, call: CallId) -> Option<Failure<E>> {
        let failure = self.calls.remove(&call).and_then(Call::into_failure);
        self.kept -= usize::from(failure.is_some());
        failure
    }

    /// Decides what a join does that waits for nothing else.
    pub(crate) fn take_untaken(&mut self) -> Untaken<E> {
        if self.kept == 0 {
            self.yields = 0;
            return Untaken::None;
        }
        if self.yields < MAX_YIELDS {
            self.yields += 1;
            return Untaken::Yield;
        }
        self.kept = 0;
        let calls = self.calls.values_mut();
        let calls = calls.map(|call| std::mem::replace(call, Call::Waiting));
        Untaken::Failures(calls.filter_map(Call::into_failure).collect())
    }
}

impl<E> Drop for Calls<E> {
    /// Errors are user code. A panic of their destructors is discarded.
    fn drop(&mut self) {
        if self.kept == 0 {
            return;
        }
        let calls = std::mem::take(&mut self.calls).into_values();
        calls
            .filter_map(Call::into_failure)
            .for_each(panic::discard);
    }
}
