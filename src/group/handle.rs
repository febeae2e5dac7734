//! What `go` gives back.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker, ready};

use tokio::task::coop;

use crate::scheduler::lease::Lease;
use crate::sync::Arc;

/// The number of a task in the order in which the tasks of its group start.
pub(crate) type Number = u64;

/// Where an admission is decided: a group's scheduler, whatever its error type.
pub(crate) trait DecideAdmission: Send + Sync {
    fn poll_decision(
        self: Arc<Self>,
        number: Number,
        lease: &mut Lease,
        waker: &Waker,
    ) -> Poll<bool>;
    fn give_up(self: Arc<Self>, number: Number, lease: &mut Lease);
    /// For `Debug`: never blocks.
    fn decision(&self, number: Number) -> Option<bool>;
}

/// Whether and when a task was admitted: given back by [`go`](crate::Group::go), to be awaited or not.
///
/// Awaiting it waits until the task has *started*, not until it has ended: that is backpressure, and what Go's blocking
/// `Go` does. Not awaiting it is fine. The task starts either way, as soon as there is a permit.
///
/// A task of the group that awaits one lends its own permit meanwhile, so that a limit cannot deadlock; see
/// [`Group::set_limit`](crate::Group::set_limit).
///
/// # Cancel safety
///
/// Dropping it changes nothing for the task.
pub struct Admission {
    state: State,
}

enum State {
    Decided(bool),
    Queued {
        decider: Arc<dyn DecideAdmission>,
        number: Number,
        lease: Lease,
        polled: bool,
    },
}

/// What became of a task that asked for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    started: bool,
}

impl Admitted {
    /// Whether the task has started. If not, the group's context ended first: the task was dropped unpolled, and counts as
    /// ended with the [`ContextError`](crate::ContextError).
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started
    }
}

impl Admission {
    /// The admission of a task that has its permit.
    pub(crate) fn started() -> Admission {
        Admission {
            state: State::Decided(true),
        }
    }

    /// The admission of a task that never starts.
    pub(crate) fn never_started() -> Admission {
        Admission {
            state: State::Decided(false),
        }
    }

    pub(crate) fn queued(decider: Arc<dyn DecideAdmission>, number: Number) -> Admission {
        Admission {
            state: State::Queued {
                decider,
                number,
                lease: Lease::None,
                polled: false,
            },
        }
    }
}

impl Future for Admission {
    type Output = Admitted;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Admitted> {
        let budget = ready!(coop::poll_proceed(cx));
        let started = match &mut self.state {
            State::Decided(started) => *started,
            State::Queued {
                decider,
                number,
                lease,
                polled,
            } => {
                *polled = true;
                let decision = decider.clone().poll_decision(*number, lease, cx.waker());
                let started = ready!(decision);
                self.state = State::Decided(started);
                started
            }
        };
        budget.made_progress();
        Poll::Ready(Admitted { started })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        // One that was never polled has told nobody of itself.
        if let State::Queued {
            decider,
            number,
            lease,
            polled: true,
        } = &mut self.state
        {
            decider.clone().give_up(*number, lease);
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let started = match &self.state {
            State::Decided(started) => Some(*started),
            State::Queued {
                decider, number, ..
            } => decider.decision(*number),
        };
        f.debug_struct("Admission")
            .field("started", &started)
            .finish_non_exhaustive()
    }
}
