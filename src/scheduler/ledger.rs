//! What is known of the jobs of a scheduler that is being drained: see [`drain`](super::drain).

use std::time::Duration;

use tokio::time::Instant;

use super::calls::Failure;
use super::error::Label;

#[derive(Default)]
pub(crate) struct Ledger {
    pub(super) finished: usize,
    pub(super) stopped: usize,
    pub(super) aborted: Vec<Straggler>,
    /// Whether the jobs that are left have been aborted, so that the drain waits for no closure.
    pub(super) is_aborted: bool,
    /// Whether the drain has cancelled the context, or is about to. A job may end before the
    /// scheduler is notified of the end of its context.
    pub(super) is_asked: bool,
    /// A deadline that passes notifies nothing.
    deadline: Option<Instant>,
}

impl Ledger {
    pub(super) fn new(deadline: Option<Instant>) -> Ledger {
        Ledger {
            deadline,
            ..Ledger::default()
        }
    }

    /// Enters a job that has neither succeeded nor failed by itself.
    pub(super) fn enter_unfinished<E>(&mut self, failure: &Failure<E>) {
        if failure.was_running {
            self.aborted.push(Straggler {
                label: failure.label.clone(),
                age: failure.elapsed,
            });
        } else {
            self.stopped += 1;
        }
    }

    pub(super) fn has_deadline_passed(&self) -> bool {
        self.deadline.is_some_and(|at| at <= Instant::now())
    }
}

/// A job that did not end by itself.
pub(crate) struct Straggler {
    pub(crate) label: Label,
    pub(crate) age: Duration,
}
