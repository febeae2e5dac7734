//! The admission of a task: the future that `go` returns.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker, ready};

use tokio::task::coop;

use crate::scheduler::lease::Lease;
use crate::sync::Arc;

/// The position of a queued task in the order in which the queued tasks of its group start.
pub(crate) type Number = u64;

/// Decides an admission: a group's scheduler, whatever its error type.
pub(crate) trait DecideAdmission: Send + Sync {
    /// Returns whether the task starts, once that is decided. Until then, keeps the waker.
    fn poll_decision(
        self: Arc<Self>,
        number: Number,
        lease: &mut Lease,
        waker: &Waker,
    ) -> Poll<bool>;
    /// Removes the waker of an admission that is dropped.
    fn give_up(self: Arc<Self>, number: Number, lease: &mut Lease);
    /// Returns whether the task starts, if that is decided. It is for `Debug` and never blocks.
    fn decision(&self, number: Number) -> Option<bool>;
}

/// A future that resolves when a task has started, from [`go`](crate::Group::go).
///
/// Awaiting it waits until the task has *started*, not until it has finished. That is backpressure,
/// as Go's blocking `Go` has it. You need not await it: the task starts as soon as a permit is
/// free, with or without that.
///
/// A task of the group that awaits an admission lends its own permit for that time, so that the
/// limit cannot deadlock. See [`Group::set_limit`](crate::Group::set_limit).
///
/// It is no handle of the task, unlike tokio's `JoinHandle`: it has no result and cannot abort. For
/// a result, start the task with [`spawn`](crate::Group::spawn).
///
/// # Cancel safety
///
/// Dropping an admission does not affect the task. Polling `&mut admission` again later loses
/// nothing.
pub struct Admission {
    state: State,
}

enum State {
    Decided(bool),
    Queued {
        decider: Arc<dyn DecideAdmission>,
        number: Number,
        lease: Lease,
        /// Whether the decider may have a waker of this admission.
        polled: bool,
    },
}

/// The outcome of an [`Admission`]: whether the task has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    started: bool,
}

impl Admitted {
    /// Returns `true` if the task has started.
    ///
    /// If it has not, it never will: the group's context was done first, or the group was closed or
    /// dropped. The task was dropped without being polled. It counts as failed with the
    /// [`ContextError`](crate::ContextError), unless the group was dropped or its `wait` has
    /// returned.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started
    }
}

impl Admission {
    /// Returns the admission of a task that has its permit.
    pub(crate) fn started() -> Admission {
        Admission {
            state: State::Decided(true),
        }
    }

    /// Returns the admission of a task that never starts.
    pub(crate) fn never_started() -> Admission {
        Admission {
            state: State::Decided(false),
        }
    }

    /// Returns the position of a task that is queued.
    pub(super) fn number(&self) -> Option<Number> {
        match self.state {
            State::Queued { number, .. } => Some(number),
            State::Decided(_) => None,
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
        // The decider has no waker of an admission that was never polled.
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
