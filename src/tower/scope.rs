//! A request's scope: a guard that ends its context, and its deadline. It exists from the request's
//! arrival until its response's body is complete.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{self, Poll, ready};

use tokio::task::coop;
use tokio::time::{Instant, Sleep};

use super::cause::{ClientGone, HANDLER_PANICKED, RequestFinished};
use super::protocol::Protocol;
use crate::context::ContextError;
use crate::context::{CancelHandle, Cause, Context, StaticCause};

/// The scope of a request. It moves from the service's `call` into the response future, and from
/// there into the response's body. When a server drops one of these early, the client has
/// disconnected: the guard then cancels the context with that cause.
///
/// A struct that holds a scope declares it before the handler's future or body. Fields are dropped
/// in the order of their declaration, so the context is done when the handler's destructors run,
/// and they can read the cause.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) guard: Guard,
    pub(super) ctx: Context,
    pub(super) deadline: Deadline,
    pub(super) protocol: Protocol,
    /// `true` for a request with the method HEAD. The server sends no body for it, even if the
    /// response holds one.
    pub(super) is_head: bool,
}

impl Scope {
    /// Ends the context, whose deadline has passed, and returns the context's error.
    ///
    /// The context is done at its deadline without this call, too. But then it would not wake the
    /// listeners that have no timer of their own.
    pub(super) fn expire(&mut self) -> ContextError {
        self.guard.finish();
        let error = self.ctx.err();
        error.unwrap_or_else(|| ContextError::deadline_exceeded(None))
    }
}

/// The gRPC code and message of a deadline that has passed. The message is the text of the
/// `ContextError`.
pub(super) const GRPC_DEADLINE_EXCEEDED: (i32, &str) = (4, "context deadline exceeded");

/// Ends the context of a request when it is dropped. The cause depends on how far the request had
/// come.
///
/// At or after the deadline, the context has the kind and cause of the deadline, whatever the guard
/// does.
#[derive(Debug)]
pub(super) struct Guard {
    handle: CancelHandle,
    if_dropped: IfDropped,
}

/// The cause with which a drop of the guard ends the context.
#[derive(Debug, Clone, Copy)]
enum IfDropped {
    /// The server drops the response early: the client has disconnected.
    ClientGone,
    /// The handler's code is running. The guard is dropped in this state only if that code has
    /// panicked.
    Panicked,
    /// Every byte that was announced has been handed to the server.
    Finished,
    /// The context has been ended; nothing is left to do.
    Nothing,
}

impl Guard {
    pub(super) fn new(handle: CancelHandle) -> Guard {
        Guard {
            handle,
            if_dropped: IfDropped::ClientGone,
        }
    }

    /// Runs code of the handler. If it panics, the state of the guard is not reset, and its drop
    /// cancels the context with the cause of a panic.
    pub(super) fn run<T>(&mut self, code: impl FnOnce() -> T) -> T {
        let before = std::mem::replace(&mut self.if_dropped, IfDropped::Panicked);
        let output = code();
        self.if_dropped = before;
        output
    }

    /// Records that the response is complete: if the guard is dropped from now on, the request is
    /// finished.
    pub(super) fn mark_complete(&mut self) {
        self.if_dropped = IfDropped::Finished;
    }

    /// Ends the context because the request is finished. Most requests finish, so this emits no
    /// tracing event.
    pub(super) fn finish(&mut self) {
        self.if_dropped = IfDropped::Nothing;
        self.handle.end_with(Cause::from(RequestFinished));
    }

    /// Cancels the context with `why` as its cause.
    pub(super) fn fail(&mut self, why: &'static StaticCause) {
        self.if_dropped = IfDropped::Nothing;
        self.handle.cancel_with(Cause::from_static(why));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        match self.if_dropped {
            IfDropped::ClientGone => self.handle.cancel_with(ClientGone),
            IfDropped::Panicked => self
                .handle
                .cancel_with(Cause::from_static(&HANDLER_PANICKED)),
            IfDropped::Finished => self.finish(),
            IfDropped::Nothing => {}
        }
    }
}

/// The deadline of a request, if it has one, and a timer that is made when the request first has to
/// wait.
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

    /// Completes when the deadline has passed. Without a deadline, it never completes and registers
    /// no waker.
    pub(super) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        // Unconstrained: tokio's timer does not complete in a poll that has used up its budget. A
        // handler that uses it up in every poll would outlast its deadline.
        pin!(coop::unconstrained(timer)).poll(cx)
    }
}

/// Takes a unit of the task's budget for a response that is ready at the first poll. Returns
/// `Pending`, and wakes the task, if the budget is used up.
///
/// Without it, a caller that repeats such requests in a loop would never yield to other tasks.
pub(super) fn poll_budget(cx: &mut task::Context<'_>) -> Poll<()> {
    ready!(coop::poll_proceed(cx)).made_progress();
    Poll::Ready(())
}
