//! A request's scope: it ends the request's context, and has its deadline. It exists from the
//! request's arrival until its response's body is complete.

use std::task::{self, Poll, ready};
use std::time::Duration;

use http::Method;
use http::request::Parts;
use tokio::task::coop;
use tokio::time::Instant;

use super::cause::{HANDLER_PANICKED, client_gone, request_finished};
use super::deadline::Deadline;
use super::protocol::Protocol;
use super::request_line::RequestLine;
use super::wait::Wait;
use crate::context::ContextError;
use crate::context::{Cause, Context};
use crate::span::Span;
use crate::tracing::{self, RequestEvent};

/// The scope of a request. It is boxed, because it moves often: from the service's `call` into the
/// response future, and from there into the response's body. When a server drops one of these
/// early, the client has disconnected: the scope then cancels the context with that cause.
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
    /// When the request arrived.
    pub(super) began: Instant,
    /// How long the handler may run after its context is done.
    pub(super) grace: Duration,
    /// What a handler that is pending waits for.
    pub(super) wait: Wait,
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
    /// Returns the scope of a request that has arrived, and whose context is `ctx`.
    pub(super) fn new(ctx: Context, began: Instant, grace: Duration, parts: &Parts) -> Scope {
        Scope {
            deadline: Deadline::new(ctx.deadline()),
            ctx,
            protocol: Protocol::Http,
            line: RequestLine::of(parts),
            is_head: parts.method == Method::HEAD,
            caller: Span::current(),
            began,
            grace,
            wait: Wait::new(),
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
        self.ctx.end_if_shared(request_finished);
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
        self.ctx.end_with(client_gone());
        self.emit(RequestEvent::ClientGone);
    }

    /// Ends the context, whose deadline has passed, and returns the context's error.
    ///
    /// The context is done at its deadline without this call, too. But then it would not wake the
    /// listeners that have no timer of their own.
    pub(super) fn expire(&mut self) -> ContextError {
        self.if_dropped = IfDropped::Nothing;
        self.ctx.end_with(request_finished());
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

/// Takes a unit of the task's budget for a response that is ready at the first poll. Returns
/// `Pending`, and wakes the task, if the budget is used up.
///
/// Without it, a caller that repeats such requests in a loop would never yield to other tasks.
pub(super) fn poll_budget(cx: &mut task::Context<'_>) -> Poll<()> {
    ready!(coop::poll_proceed(cx)).made_progress();
    Poll::Ready(())
}
