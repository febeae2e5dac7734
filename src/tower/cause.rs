//! Why a request's context ended, and what that is as a status.

use http::StatusCode;

use crate::context::ContextError;
use crate::context::{Context, Note};

pub(super) static TIME_OF_CLIENT_PASSED: Note =
    Note("the time that the client allows for the request has passed");
pub(super) static TIME_OF_SERVER_PASSED: Note =
    Note("the time that the server allows for a request has passed");
pub(super) static HANDLER_PANICKED: Note = Note("the request's handler panicked");
pub(super) static HANDLER_FAILED: Note = Note("the request's handler failed");
pub(super) static BODY_FAILED: Note = Note("the response's body failed");
pub(super) static NO_TIME_LEFT: Note = Note("no time is left for the call");
pub(super) static SERVER_STOPS: Note = Note("the server shuts down");

/// The cause of a request's context when the client went before it had its answer: `client disconnected`.
///
/// It is what the context ends with when the response future or the response's body is dropped before its end, or when
/// the request's body breaks off.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, tower::ClientGone};
///
/// # let (ctx, guard) = Context::background().with_cancel();
/// # guard.cancel_with(ClientGone);
/// let cause = ctx.cause().unwrap();
/// assert!(cause.downcast_ref::<ClientGone>().is_some());
/// assert_eq!(cause.to_string(), "client disconnected");
/// assert!(ClientGone::ended(&ctx));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("client disconnected")]
pub struct ClientGone;

impl ClientGone {
    /// Whether it is the client's going that ended `ctx`.
    #[must_use]
    pub fn ended(ctx: &Context) -> bool {
        ctx.err().is_some_and(|error| ClientGone::caused(&error))
    }

    /// Whether it is the client's going that `error` speaks of.
    #[must_use]
    pub fn caused(error: &ContextError) -> bool {
        is::<ClientGone>(error)
    }
}

/// The cause of a request's context when the request was answered whole: `the request is finished`.
///
/// It tells what was started with the context that nobody waits for it any more. *Finished* means handed to the server,
/// not received by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request is finished")]
pub struct RequestFinished;

impl RequestFinished {
    /// Whether it is the end of the request, in good order, that ended `ctx`.
    #[must_use]
    pub fn ended(ctx: &Context) -> bool {
        ctx.err().is_some_and(|error| is::<RequestFinished>(&error))
    }
}

fn is<T: std::error::Error + 'static>(error: &ContextError) -> bool {
    error
        .cause()
        .is_some_and(|cause| cause.downcast_ref::<T>().is_some())
}

/// The HTTP status for a handler that was stopped by the end of its context.
///
/// | the context ended | status |
/// |---|---|
/// | by its deadline | 504 Gateway Timeout |
/// | because the client has gone | 499, which nobody will read but the access log |
/// | for another reason: the server shuts down | 503 Service Unavailable |
///
/// The same conversion is there as `StatusCode::from(error)`, so that `?` works in a function that returns
/// `Result<_, StatusCode>`; with feature `axum`, a [`ContextError`] is a response itself.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, tower::status_of};
/// use std::time::Duration;
///
/// let ctx = Context::background().with_timeout(Duration::ZERO);
/// assert_eq!(status_of(&ctx.err().unwrap()), 504);
/// ```
#[must_use]
pub fn status_of(error: &ContextError) -> StatusCode {
    if error.is_deadline_exceeded() {
        return StatusCode::GATEWAY_TIMEOUT;
    }
    if ClientGone::caused(error) {
        // nginx's; `http` has no name for it, and knows every number from 100 to 999.
        return StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    }
    StatusCode::SERVICE_UNAVAILABLE
}

/// The gRPC code for a handler that was stopped by the end of its context.
///
/// 4 (`DEADLINE_EXCEEDED`) for a deadline, 1 (`CANCELLED`) where the client has gone, 14 (`UNAVAILABLE`) otherwise. In tonic,
/// `Code::from(grpc_code_of(&error))` makes a code of it.
#[must_use]
pub fn grpc_code_of(error: &ContextError) -> i32 {
    if error.is_deadline_exceeded() {
        return 4;
    }
    if ClientGone::caused(error) { 1 } else { 14 }
}

/// As [`status_of`] has it.
impl From<ContextError> for StatusCode {
    fn from(error: ContextError) -> StatusCode {
        status_of(&error)
    }
}
