//! The failures that belong to a call of `start`, until the call takes them or leaves them to the
//! group.
//!
//! The invariants are at the head of [`start`](super::start).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::panic;
use crate::scheduler::error::{Label, TaskErrorKind};

/// How often a wait that has nothing else to wait for yields, so that a call that was woken can
/// take its failure.
const TURNS: usize = 128;

/// Names a call of `start`: the address of what it shares with its task, which both keep alive.
pub(crate) type CallId = usize;

/// How a task failed.
pub(crate) struct Failure<E> {
    pub(crate) label: Label,
    pub(crate) elapsed: Duration,
    pub(crate) kind: TaskErrorKind<E>,
    /// Whether the group's context was done when it failed.
    pub(crate) ended: bool,
}

/// The calls whose callers are there, each with the failure of its task once it has failed.
pub(crate) struct Calls<E> {
    calls: BTreeMap<CallId, Option<Failure<E>>>,
    /// How many of `calls` have a failure.
    kept: usize,
    /// How often a wait has yielded for them.
    turns: usize,
}

/// What a wait does about the failures that no call has taken yet.
pub(crate) enum Untaken<E> {
    None,
    /// It yields: their callers may be about to take them.
    Yield,
    /// They are the group's now.
    Failures(Vec<Failure<E>>),
}

impl<E> Calls<E> {
    pub(crate) const fn new() -> Calls<E> {
        Calls {
            calls: BTreeMap::new(),
            kept: 0,
            turns: 0,
        }
    }

    /// A caller begins to wait.
    pub(crate) fn enter(&mut self, call: CallId) {
        self.calls.insert(call, None);
    }

    /// Keeps a failure for its caller; hands it back if the caller has gone.
    pub(crate) fn keep(&mut self, call: CallId, failure: Failure<E>) -> Option<Failure<E>> {
        let Some(slot @ None) = self.calls.get_mut(&call) else {
            return Some(failure);
        };
        *slot = Some(failure);
        self.kept += 1;
        None
    }

    /// The caller goes, and takes what was kept for it.
    pub(crate) fn leave(&mut self, call: CallId) -> Option<Failure<E>> {
        let failure = self.calls.remove(&call).flatten();
        self.kept -= usize::from(failure.is_some());
        failure
    }

    /// For a wait that has nothing else to wait for.
    pub(crate) fn take_untaken(&mut self) -> Untaken<E> {
        if self.kept == 0 {
            self.turns = 0;
            return Untaken::None;
        }
        if self.turns < TURNS {
            self.turns += 1;
            return Untaken::Yield;
        }
        self.kept = 0;
        Untaken::Failures(self.calls.values_mut().filter_map(Option::take).collect())
    }
}

impl<E> Drop for Calls<E> {
    /// Errors are user code, and a panic of their destructors has no receiver.
    fn drop(&mut self) {
        let failures = std::mem::take(&mut self.calls).into_values().flatten();
        failures.for_each(panic::discard);
    }
}
