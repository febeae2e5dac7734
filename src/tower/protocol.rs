//! HTTP and gRPC: how a response in each of them reports that the request's context is done.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version};
use http_body::Frame;

use super::error::BoxError;
use crate::context::ContextError;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The protocol of a request.
#[derive(Debug)]
pub(super) enum Protocol {
    Http,
    Grpc {
        content_type: HeaderValue,
        /// `true` if its responses end with HTTP trailers. grpc-web encodes them in the body's
        /// data, which a layer that does not know the encoding cannot do.
        trailers: bool,
    },
}

impl Protocol {
    /// Reads the protocol from the content type: `application/grpc*` is gRPC, everything else is
    /// HTTP.
    pub(super) fn of(headers: &HeaderMap) -> Protocol {
        let Some(content_type) = headers.get(CONTENT_TYPE) else {
            return Protocol::Http;
        };
        let Some(rest) = content_type.as_bytes().strip_prefix(b"application/grpc") else {
            return Protocol::Http;
        };
        Protocol::Grpc {
            content_type: content_type.clone(),
            trailers: matches!(rest.first(), None | Some(b'+' | b';')),
        }
    }

    /// Returns the protocol as a connection with this HTTP version can carry it. Before HTTP/2,
    /// that is without trailers: HTTP/1.1 would drop them, and a body that is cut off would look
    /// complete.
    pub(super) fn for_version(self, version: Version) -> Protocol {
        match self {
            Protocol::Grpc { content_type, .. } if version < Version::HTTP_2 => Protocol::Grpc {
                content_type,
                trailers: false,
            },
            other => other,
        }
    }

    /// Returns a response that has a gRPC status and no body, or `None` if the protocol is not
    /// gRPC.
    pub(super) fn trailers_only(&self, code: i32, message: &'static str) -> Option<Response<()>> {
        let Protocol::Grpc { content_type, .. } = self else {
            return None;
        };
        let mut response = Response::new(());
        *response.headers_mut() = status(code, message);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, content_type.clone());
        Some(response)
    }

    /// Returns the last frame of a body that `error` cuts off: trailers with the gRPC status, or
    /// the error if the response cannot have trailers.
    pub(super) fn last_frame<D>(
        &self,
        (code, message): (i32, &'static str),
        error: ContextError,
    ) -> Result<Frame<D>, BoxError> {
        match self {
            Protocol::Grpc { trailers: true, .. } => Ok(Frame::trailers(status(code, message))),
            _ => Err(error.into()),
        }
    }
}

/// Returns the headers, or trailers, of a gRPC status.
fn status(code: i32, message: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    headers
}
