//! The causes that end a request's context, and the HTTP status and gRPC code for each.

use http::StatusCode;

use crate::context::ContextError;
use crate::context::{Context, StaticCause};

pub(super) static TIME_OF_CLIENT_PASSED: StaticCause =
    StaticCause("the time that the client allows for the request has passed");
pub(super) static TIME_OF_SERVER_PASSED: StaticCause =
    StaticCause("the time that the server allows for a request has passed");
pub(super) static HANDLER_PANICKED: StaticCause = StaticCause("the request's handler panicked");
pub(super) static HANDLER_FAILED: StaticCause = StaticCause("the request's handler failed");
pub(super) static BODY_FAILED: StaticCause = StaticCause("the response's body failed");
pub(super) static NO_TIME_LEFT: StaticCause = StaticCause("no time is left for the call");
pub(super) static SERVER_STOPS: StaticCause = StaticCause("the server shuts down");

/// The cause of a request's context when the client disconnected before it had the whole response.
///
/// Its text is `client disconnected`. The context is cancelled with it when the response future or
/// the response's body is dropped before it has completed, or when the request's body fails.
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
    /// Returns `true` if `ctx` was cancelled because the client disconnected.
    #[must_use]
    pub fn ended(ctx: &Context) -> bool {
        ctx.err().is_some_and(|error| ClientGone::caused(&error))
    }

    /// Returns `true` if `error` reports a context that was cancelled because the client
    /// disconnected.
    #[must_use]
    pub fn caused(error: &ContextError) -> bool {
        is::<ClientGone>(error)
    }
}

/// The cause of a request's context when the whole response was handed to the server.
///
/// Its text is `the request is finished`. It cancels everything that was started with the context
/// and still runs. The response is in the server's hands then. That does not mean that the client
/// has received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request is finished")]
pub struct RequestFinished;

impl RequestFinished {
    /// Returns `true` if `ctx` was cancelled because its request was finished, with a whole
    /// response.
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

/// Returns the HTTP status for a handler that was stopped because its context is done.
///
/// | the context | status |
/// |---|---|
/// | its deadline has passed | 504 Gateway Timeout |
/// | the client disconnected | 499, which only the access log will show |
/// | cancelled for another reason, such as a shutdown | 503 Service Unavailable |
///
/// `StatusCode::from(error)` is the same conversion. So `?` works in a function that returns
/// `Result<_, StatusCode>`. With feature `axum`, a [`ContextError`] is itself a response.
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
        // nginx's status for a client that disconnected. `http` has no name for it; `from_u16`
        // accepts every number from 100 to 999.
        return StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    }
    StatusCode::SERVICE_UNAVAILABLE
}

/// Returns the gRPC code for a handler that was stopped because its context is done.
///
/// | the context | code |
/// |---|---|
/// | its deadline has passed | 4 (`DEADLINE_EXCEEDED`) |
/// | the client disconnected | 1 (`CANCELLED`) |
/// | cancelled for another reason, such as a shutdown | 14 (`UNAVAILABLE`) |
///
/// In tonic, `Code::from(grpc_code_of(&error))` converts it into a `Code`.
#[must_use]
pub fn grpc_code_of(error: &ContextError) -> i32 {
    if error.is_deadline_exceeded() {
        return 4;
    }
    if ClientGone::caused(error) { 1 } else { 14 }
}

/// Converts the error into the status that [`status_of`] returns: 504 for a deadline that has
/// passed, 499 for a client that disconnected, and 503 otherwise.
impl From<ContextError> for StatusCode {
    fn from(error: ContextError) -> StatusCode {
        status_of(&error)
    }
}
