//! The body of a response, which ends the request's context.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use bytes::Buf;
use http::header::CONTENT_LENGTH;
use http::{StatusCode, response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::context::Cause;
use crate::tower::cause::{RESPONSE_TOO_SHORT, ResponseFailed};
use crate::tower::error::{BoxError, SharedError};
use crate::tower::scope::{GRPC_DEADLINE_EXCEEDED, Scope};

pin_project! {
    /// The body of a response that went through a [`ContextLayer`](crate::tower::ContextLayer).
    ///
    /// It gives the frames of the inner body, and ends the request's context:
    ///
    /// - When the body is complete, the context is cancelled with
    ///   [`RequestFinished`](crate::tower::RequestFinished).
    /// - When the body is dropped before that, the context is cancelled with
    ///   [`ClientGone`](crate::tower::ClientGone).
    /// - When the inner body fails, the context is cancelled with the cause `the response's body
    ///   failed`, whose source is the error. This body fails with an error that displays as that
    ///   error, and has it as its source.
    /// - When the inner body ends with fewer bytes than it has announced, the context is cancelled
    ///   with the cause `the response's body is shorter than its content-length`.
    /// - When the deadline passes first, the inner body is dropped, and this body ends. For gRPC,
    ///   its last frame is trailers with `grpc-status: 4`. Otherwise it fails with a
    ///   [`ContextError`](crate::ContextError), and the server aborts the response. It also fails
    ///   for gRPC over HTTP/1.1 or grpc-web, and if fewer bytes were sent than the response had
    ///   announced.
    ///
    /// # When a body is complete
    ///
    /// A server drops a body as soon as it knows that no frame will follow. It does not poll until
    /// `None`. So a body is complete in each of these cases:
    ///
    /// - it reports its end ([`is_end_stream`](Body::is_end_stream)), even before its first frame;
    /// - it has given trailers or `None`;
    /// - it has given as many bytes as `content-length` or its size hint announced;
    /// - HTTP allows no body: a response to HEAD, or one with status 1xx, 204 or 304.
    ///
    /// A complete body was handed over to the server. How much of it the client has received is
    /// unknown.
    pub struct ResponseBody<B> {
        // None when the context is done, since the body has ended or failed. Declared before the
        // inner body, and so dropped first: the context is done when the destructors of the inner
        // body run.
        scope: Option<Box<Scope>>,
        // The bytes that are still to come, if the response announced their number.
        left: Option<u64>,
        // None if the layer sends the response itself, and after the deadline.
        #[pin]
        inner: Option<B>,
    }
}

impl<B> ResponseBody<B> {
    /// Returns the empty body of a response that the layer sends itself.
    pub(in crate::tower) fn empty() -> ResponseBody<B> {
        ResponseBody {
            scope: None,
            left: None,
            inner: None,
        }
    }
}

/// Returns an empty body. Layers that send responses of their own need it, such as CORS.
impl<B> Default for ResponseBody<B> {
    fn default() -> ResponseBody<B> {
        ResponseBody::empty()
    }
}

impl<B: Body> ResponseBody<B> {
    pub(in crate::tower) fn new(
        mut scope: Box<Scope>,
        parts: &response::Parts,
        inner: B,
    ) -> ResponseBody<B> {
        let left = announced(parts).or_else(|| inner.size_hint().exact());
        if scope.is_head || has_no_body(parts.status) || left == Some(0) {
            scope.mark_complete();
        }
        let scope = if inner.is_end_stream() {
            finish(&mut scope, left);
            None
        } else {
            Some(scope)
        };
        ResponseBody {
            scope,
            left,
            inner: Some(inner),
        }
    }
}

/// Ends the context of a response that has ended with `left` bytes missing.
fn finish(scope: &mut Scope, left: Option<u64>) {
    if scope.is_open() && left.is_some_and(|left| left > 0) {
        scope.fail(Cause::from_static(&RESPONSE_TOO_SHORT));
    } else {
        scope.finish();
    }
}

/// Returns the length of the body that the headers announce.
fn announced(parts: &response::Parts) -> Option<u64> {
    let value = parts.headers.get(CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// Returns `true` for a status whose responses have no body, whatever the headers announce.
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The result of a poll of the inner body.
enum Polled<D, E> {
    Frame(Option<Result<Frame<D>, E>>),
    DeadlinePassed,
}

/// Polls the inner body unless the deadline has passed, and waits for the first of the two.
fn poll_before_deadline<B: Body>(
    scope: &mut Scope,
    inner: Pin<&mut B>,
    cx: &mut task::Context<'_>,
) -> Poll<Polled<B::Data, B::Error>> {
    // The clock is read before the body is polled: a frame that is ready at the deadline is too
    // late.
    if !scope.deadline.has_passed() {
        if let Poll::Ready(frame) = scope.run(|| inner.poll_frame(cx)) {
            return Poll::Ready(Polled::Frame(frame));
        }
        ready!(scope.deadline.poll(cx));
    }
    Poll::Ready(Polled::DeadlinePassed)
}

/// Ends the context, whose deadline has passed, and returns the last frame of the response.
fn cut_off<D>(scope: &mut Scope, left: Option<u64>) -> Result<Frame<D>, BoxError> {
    let error = scope.expire();
    // A body with fewer bytes than announced is broken, and trailers would hide that.
    match left {
        None | Some(0) => scope.protocol.last_frame(GRPC_DEADLINE_EXCEEDED, error),
        Some(_) => Err(error.into()),
    }
}

/// Subtracts the bytes of `frame` from the bytes that are still to come, `left`. At zero, the
/// response is complete.
fn count_data<D: Buf>(frame: &Frame<D>, left: &mut Option<u64>, scope: &mut Scope) {
    if let (Some(left), Some(data)) = (left, frame.data_ref()) {
        *left = left.saturating_sub(data.remaining() as u64);
        if *left == 0 {
            scope.mark_complete();
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Some(scope) = this.scope else {
            // The body is complete, and the server polls it all the same.
            return inner.poll_frame(cx).map_err(Into::into);
        };
        let frame = match ready!(poll_before_deadline(scope, inner.as_mut(), cx)) {
            Polled::Frame(frame) => frame,
            Polled::DeadlinePassed => {
                let last = cut_off(scope, *this.left);
                *this.scope = None;
                this.inner.set(None);
                return Poll::Ready(Some(last));
            }
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                count_data(&frame, this.left, scope);
                if frame.is_trailers() || inner.is_end_stream() {
                    finish(scope, *this.left);
                    *this.scope = None;
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let error = SharedError::new(error);
                scope.fail(ResponseFailed::new(error.clone()).into());
                *this.scope = None;
                Some(Err(error.into()))
            }
            None => {
                finish(scope, *this.left);
                *this.scope = None;
                None
            }
        })
    }

    /// Returns `true` only after the scope has recorded the end. An inner body that comes from
    /// another server may reach its end between two polls. If this body reported that at once, the
    /// server would not poll again, and would drop the scope as if the client had disconnected.
    fn is_end_stream(&self) -> bool {
        self.scope.is_none() && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("is_over", &self.scope.is_none())
            .finish_non_exhaustive()
    }
}
