//! The deadline of a request, and timers that fire whatever is left of the task's budget.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{self, Poll};

use tokio::task::coop;
use tokio::time::{Instant, Sleep};

/// The deadline of a request, if it has one, and a timer that is made when the response's body
/// first has to wait.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) fn new(at: Option<Instant>) -> Deadline {
        Deadline { at, timer: None }
    }

    pub(super) fn has_passed(&self) -> bool {
        self.at.is_some_and(|at| at <= Instant::now())
    }

    /// Returns the earlier of the deadline and `other`.
    pub(super) fn or_earlier(&self, other: Instant) -> Instant {
        self.at.map_or(other, |at| at.min(other))
    }

    /// Completes when the deadline has passed. Without a deadline, it never completes and registers
    /// no waker.
    pub(super) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        poll_timer(timer, cx)
    }
}

/// Polls a timer, whatever is left of the task's budget. tokio's timer does not complete in a poll
/// that has used it up, so a handler that uses it up in every poll would outlast its deadline.
pub(super) fn poll_timer(timer: &mut Pin<Box<Sleep>>, cx: &mut task::Context<'_>) -> Poll<()> {
    pin!(coop::unconstrained(timer)).poll(cx)
}
