//! What a request holds from its arrival to the end of its response's body: the right to end its context, and its deadline.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{self, Poll, ready};

use tokio::task::coop;
use tokio::time::{Instant, Sleep};

use super::cause::{ClientGone, HANDLER_PANICKED, RequestFinished};
use super::protocol::Protocol;
use crate::context::ContextError;
use crate::context::{CancelHandle, Cause, Context, Note};

/// It goes from the service's `call` into the response future, and from there into the response's body. Dropped on the way,
/// it ends the context: the client has gone.
///
/// Whoever holds it declares it before what it holds for the handler, so that the context has ended by the time the handler's
/// destructors run.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) guard: Guard,
    pub(super) ctx: Context,
    pub(super) deadline: Deadline,
    pub(super) protocol: Protocol,
    /// Responses to it have no body, whatever they hold.
    pub(super) is_head: bool,
}

impl Scope {
    /// Ends the context at its deadline, which has passed, and gives the error that it has from then on.
    ///
    /// It would end without this too, but would not tell those who wait without a timer of their own.
    pub(super) fn expire(&mut self) -> ContextError {
        self.guard.finish();
        let error = self.ctx.err();
        error.unwrap_or_else(|| ContextError::deadline_exceeded(None))
    }
}

/// The text is what the error displays.
pub(super) const GRPC_DEADLINE_EXCEEDED: (i32, &str) = (4, "context deadline exceeded");

/// Ends the context of a request when it is dropped, with the cause that fits.
///
/// At or after the deadline, the context ends by that, whatever is said here.
#[derive(Debug)]
pub(super) struct Guard {
    handle: CancelHandle,
    if_dropped: IfDropped,
}

#[derive(Debug, Clone, Copy)]
enum IfDropped {
    ClientGone,
    /// The handler is being polled: only its panic gets past that.
    Panicked,
    /// All that was announced has been handed over.
    Finished,
    /// The context has ended.
    Nothing,
}

impl Guard {
    pub(super) fn new(handle: CancelHandle) -> Guard {
        Guard {
            handle,
            if_dropped: IfDropped::ClientGone,
        }
    }

    /// Runs the handler's code.
    pub(super) fn run<T>(&mut self, code: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(&mut self.if_dropped, IfDropped::Panicked);
        let output = code();
        self.if_dropped = before;
        output
    }

    /// From now on, a drop is a success.
    pub(super) fn mark_complete(&mut self) {
        self.if_dropped = IfDropped::Finished;
    }

    /// The request was answered: as most are, and so nothing that a log is told of.
    pub(super) fn finish(&mut self) {
        self.if_dropped = IfDropped::Nothing;
        self.handle.end_with(Cause::from(RequestFinished));
    }

    pub(super) fn fail(&mut self, why: &'static Note) {
        self.if_dropped = IfDropped::Nothing;
        self.handle.cancel_with(Cause::note(why));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        match self.if_dropped {
            IfDropped::ClientGone => self.handle.cancel_with(ClientGone),
            IfDropped::Panicked => self.handle.cancel_with(Cause::note(&HANDLER_PANICKED)),
            IfDropped::Finished => self.finish(),
            IfDropped::Nothing => {}
        }
    }
}

/// The instant at which a request is over in any case, and a timer once somebody waits.
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

    /// Resolves when the deadline has passed; never, if there is none.
    pub(super) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        // Unconstrained: a handler that uses up the budget in each poll must not outlast its
        // deadline.
        pin!(coop::unconstrained(timer)).poll(cx)
    }
}

/// Takes a unit of the task's budget, for an answer that is there at the first poll: a caller that
/// tries again at once would not let another task run otherwise. Pending, with the task woken, if
/// nothing is left.
pub(super) fn poll_budget(cx: &mut task::Context<'_>) -> Poll<()> {
    ready!(coop::poll_proceed(cx)).made_progress();
    Poll::Ready(())
}
