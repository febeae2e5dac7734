//! The responses of a server's layers: the handler's, and those that a layer gives in its stead.

use http::{Response, StatusCode};
use http_body::Body;

use super::body::ResponseBody;
use super::cause::SERVER_STOPS;
use super::scope::{GRPC_DEADLINE_EXCEEDED, Scope};

impl Scope {
    /// The response, with the rest of the request's life in its body.
    pub(super) fn respond<B: Body>(self, response: Response<B>) -> Response<ResponseBody<B>> {
        let (parts, body) = response.into_parts();
        let body = ResponseBody::new(self, &parts, body);
        Response::from_parts(parts, body)
    }

    /// The answer to a request whose deadline has passed.
    pub(super) fn timed_out<B>(self) -> Response<ResponseBody<B>> {
        self.answer(StatusCode::GATEWAY_TIMEOUT, GRPC_DEADLINE_EXCEEDED)
    }

    /// The answer where no handler will give one.
    pub(super) fn unavailable<B>(mut self) -> Response<ResponseBody<B>> {
        self.guard.fail(&SERVER_STOPS);
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
