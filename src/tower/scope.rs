//! A request's scope: it ends the request's context, and has its deadline. It exists from the
//! request's arrival until its response's body is complete.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{self, Poll, ready};

use tokio::task::coop;
use tokio::time::{Instant, Sleep};

use super::cause::{ClientGone, HANDLER_PANICKED, REQUEST_FINISHED};
use super::protocol::Protocol;
use super::request_line::RequestLine;
use crate::context::ContextError;
use crate::context::{Cause, Context};
use crate::tracing::{self, RequestEvent, Span};

/// The scope of a request. It moves from the service's `call` into the response future, and from
/// there into the response's body. When a server drops one of these early, the client has
/// disconnected: the scope then cancels the context with that cause.
///
/// At or after the deadline, the context has the kind and cause of the deadline, whatever the scope
/// does.
///
/// A struct that holds a scope declares it before the handler's future or body. Fields are dropped
/// in the order of their declaration, so the context is done when the handler's destructors run,
/// and they can read the cause.
pub(super) struct Scope {
    pub(super) ctx: Context,
    pub(super) deadline: Deadline,
    pub(super) protocol: Protocol,
    pub(super) line: RequestLine,
    /// `true` for a request with the method HEAD. The server sends no body for it, even if the
    /// response holds one.
    pub(super) is_head: bool,
    /// The span in which the service was called, which is the span of the request.
    pub(super) caller: Span,
    if_dropped: IfDropped,
}

/// The cause with which a drop of the scope ends the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfDropped {
    /// The server drops the response early: the client has disconnected.
    ClientGone,
    /// Every byte that was announced has been handed to the server.
    Finished,
    /// The context has been ended; nothing is left to do.
    Nothing,
}

impl Scope {
    pub(super) fn new(ctx: Context, protocol: Protocol, line: RequestLine, is_head: bool) -> Scope {
        Scope {
            deadline: Deadline::new(ctx.deadline()),
            ctx,
            protocol,
            line,
            is_head,
            caller: Span::current(),
            if_dropped: IfDropped::ClientGone,
        }
    }

    /// Runs code of the handler. If it panics, the context is cancelled with the cause of a panic,
    /// at once: the code that catches the panic may drop the scope much later.
    pub(super) fn run<T>(&mut self, code: impl FnOnce() -> T) -> T {
        struct OnPanic<'a>(&'a mut Scope);

        impl Drop for OnPanic<'_> {
            fn drop(&mut self) {
                self.0.fail(Cause::from_static(&HANDLER_PANICKED));
            }
        }

        let on_panic = OnPanic(self);
        let output = code();
        std::mem::forget(on_panic);
        output
    }

    /// Returns `true` while the context has not been ended and the response is not complete: a drop
    /// means that the client has disconnected.
    pub(super) fn is_open(&self) -> bool {
        self.if_dropped == IfDropped::ClientGone
    }

    /// Records that the response is complete: if the scope is dropped from now on, the request is
    /// finished.
    pub(super) fn mark_complete(&mut self) {
        self.if_dropped = IfDropped::Finished;
    }

    /// Ends the context because the request is finished. Most requests finish, so this emits no
    /// event.
    pub(super) fn finish(&mut self) {
        self.if_dropped = IfDropped::Nothing;
        self.ctx
            .end_if_shared(|| Cause::from_static(&REQUEST_FINISHED));
    }

    /// Cancels the context with `why` as its cause.
    pub(super) fn fail(&mut self, why: Cause) {
        self.if_dropped = IfDropped::Nothing;
        tracing::cancelled(|| self.ctx.is_done(), Some(&why));
        self.ctx.end_with(why);
    }

    /// Cancels the context because the client has disconnected.
    pub(super) fn client_gone(&mut self) {
        self.if_dropped = IfDropped::Nothing;
        self.ctx.end_with(Cause::from_static(ClientGone::plain()));
        self.emit(RequestEvent::ClientGone);
    }

    /// Ends the context, whose deadline has passed, and returns the context's error.
    ///
    /// The context is done at its deadline without this call, too. But then it would not wake the
    /// listeners that have no timer of their own.
    pub(super) fn expire(&mut self) -> ContextError {
        self.if_dropped = IfDropped::Nothing;
        self.ctx.end_with(Cause::from_static(&REQUEST_FINISHED));
        self.emit(RequestEvent::TimedOut);
        let error = self.ctx.err();
        error.unwrap_or_else(|| ContextError::deadline_exceeded(None))
    }

    fn emit(&self, event: RequestEvent<'_>) {
        self.line.emit(&self.caller, event);
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        match self.if_dropped {
            IfDropped::ClientGone => self.client_gone(),
            IfDropped::Finished => self.finish(),
            IfDropped::Nothing => {}
        }
    }
}

/// The gRPC code and message of a deadline that has passed. The message is the text of the
/// `ContextError`.
pub(super) const GRPC_DEADLINE_EXCEEDED: (i32, &str) = (4, "context deadline exceeded");

/// The deadline of a request, if it has one, and a timer that is made when the response's body
/// first has to wait.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    fn new(at: Option<Instant>) -> Deadline {
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

/// Takes a unit of the task's budget for a response that is ready at the first poll. Returns
/// `Pending`, and wakes the task, if the budget is used up.
///
/// Without it, a caller that repeats such requests in a loop would never yield to other tasks.
pub(super) fn poll_budget(cx: &mut task::Context<'_>) -> Poll<()> {
    ready!(coop::poll_proceed(cx)).made_progress();
    Poll::Ready(())
}
