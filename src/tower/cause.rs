//! The causes that end a request's context, and the HTTP status and gRPC code for each.

use std::error::Error;
use std::fmt;

use http::StatusCode;

use super::error::SharedError;
use crate::context::{Cause, ContextError, StaticCause};
use crate::sync::Shared;

pub(super) static TIME_OF_CLIENT_PASSED: StaticCause =
    StaticCause("the time that the client allows for the request has passed");
pub(super) static TIME_OF_SERVER_PASSED: StaticCause =
    StaticCause("the time that the server allows for a request has passed");
pub(super) static HANDLER_PANICKED: StaticCause = StaticCause("the request's handler panicked");
pub(super) static HANDLER_FAILED: StaticCause = StaticCause("the request's handler failed");
pub(super) static RESPONSE_TOO_SHORT: StaticCause =
    StaticCause("the response's body is shorter than its content-length");
pub(super) static NO_TIME_LEFT: StaticCause = StaticCause("no time is left for the call");
pub(super) static SERVER_STOPS: StaticCause = StaticCause("the server shuts down");

/// Returns the cause [`RequestFinished`]. All requests share one, so that most need no allocation
/// for it.
pub(super) fn request_finished() -> Cause {
    static CAUSE: Shared<Cause> = Shared::new();
    CAUSE.get(|| Cause::from(RequestFinished))
}

/// Returns the cause [`ClientGone`] of a client that waited for the response. All requests share
/// one.
pub(super) fn client_gone() -> Cause {
    static CAUSE: Shared<Cause> = Shared::new();
    CAUSE.get(|| Cause::from(ClientGone::new()))
}

/// The cause of a request's context when the client disconnected before it had the whole response.
///
/// `ctx.caused_by::<ClientGone>()` asks for it. The context is cancelled with it
///
/// - when the response future or the response's body is dropped before it has completed. The text
///   is then `client disconnected`;
/// - when the request's body fails, or ends before its announced length. The text is then `client
///   disconnected before the request's body was complete`, and the [`source`](Error::source) is the
///   body's error.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, tower::ClientGone};
///
/// # let (ctx, guard) = Context::background().with_cancel();
/// # guard.cancel_with(ClientGone::new());
/// assert!(ctx.caused_by::<ClientGone>());
/// assert_eq!(ctx.cause().unwrap().to_string(), "client disconnected");
/// ```
#[derive(Debug, Clone, Default)]
pub struct ClientGone {
    upload: Option<SharedError>,
}

impl ClientGone {
    /// Returns the cause of a client that disconnected while it waited for the response. It is for
    /// tests of handlers: `guard.cancel_with(ClientGone::new())`.
    #[must_use]
    pub const fn new() -> ClientGone {
        ClientGone { upload: None }
    }

    /// Returns the cause of a client whose upload has ended early, with the error of the body.
    pub(super) fn in_upload(error: SharedError) -> ClientGone {
        ClientGone {
            upload: Some(error),
        }
    }
}

impl fmt::Display for ClientGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.upload {
            Some(_) => "client disconnected before the request's body was complete",
            None => "client disconnected",
        })
    }
}

impl Error for ClientGone {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.upload.as_ref().map(SharedError::original)
    }
}

/// The cause of a request's context when the whole response was handed to the server.
///
/// `ctx.caused_by::<RequestFinished>()` asks for it. Its text is `the request is finished`. It
/// cancels everything that was started with the context and still runs. The response is in the
/// server's hands then. That does not mean that the client has received it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request is finished")]
pub struct RequestFinished;

/// The cause of a request's context when the body of the response failed.
#[derive(Debug, Clone)]
pub(super) struct ResponseFailed {
    error: SharedError,
}

impl ResponseFailed {
    pub(super) fn new(error: SharedError) -> ResponseFailed {
        ResponseFailed { error }
    }
}

impl fmt::Display for ResponseFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response's body failed")
    }
}

impl Error for ResponseFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.error.original())
    }
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
    if error.caused_by::<ClientGone>() {
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
    if error.caused_by::<ClientGone>() {
        1
    } else {
        14
    }
}

/// Converts the error into the status that [`status_of`] returns: 504 for a deadline that has
/// passed, 499 for a client that disconnected, and 503 otherwise.
impl From<ContextError> for StatusCode {
    fn from(error: ContextError) -> StatusCode {
        status_of(&error)
    }
}
