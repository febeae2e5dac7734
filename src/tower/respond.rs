//! The responses of a server's layers: the handler's own, and those that a layer sends instead of
//! it.

use http::{Response, StatusCode};
use http_body::Body;

use super::body::ResponseBody;
use super::cause::SERVER_STOPS;
use super::scope::{GRPC_DEADLINE_EXCEEDED, Scope};
use crate::context::Cause;

impl Scope {
    /// Returns the handler's response, with the scope in its body. The request is finished when
    /// that body is complete.
    pub(super) fn respond<B: Body>(
        self: Box<Self>,
        response: Response<B>,
    ) -> Response<ResponseBody<B>> {
        let (parts, body) = response.into_parts();
        let body = ResponseBody::new(self, &parts, body);
        Response::from_parts(parts, body)
    }

    /// Returns the response to a request whose deadline has passed: 504, or `grpc-status: 4`. The
    /// caller has called [`expire`](Scope::expire) before.
    pub(super) fn timed_out<B>(self: Box<Self>) -> Response<ResponseBody<B>> {
        self.answer(StatusCode::GATEWAY_TIMEOUT, GRPC_DEADLINE_EXCEEDED)
    }

    /// Cancels the context, and returns the response to a request whose handler does not produce
    /// one: 503, or `grpc-status: 14`.
    pub(super) fn unavailable<B>(mut self: Box<Self>) -> Response<ResponseBody<B>> {
        self.fail(Cause::from_static(&SERVER_STOPS));
        self.answer(StatusCode::SERVICE_UNAVAILABLE, (14, "unavailable"))
    }

    fn answer<B>(
        &self,
        status: StatusCode,
        (code, message): (i32, &'static str),
    ) -> Response<ResponseBody<B>> {
        let response = self
            .protocol
            .trailers_only(code, message)
            .unwrap_or_else(|| {
                let mut response = Response::new(());
                *response.status_mut() = status;
                response
            });
        response.map(|()| ResponseBody::empty())
    }
}
