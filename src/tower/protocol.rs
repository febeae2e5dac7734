//! HTTP and gRPC: how each is told that a request's context has ended.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body::Frame;

use super::error::BoxError;
use crate::context::ContextError;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What a request speaks.
#[derive(Debug)]
pub(super) enum Protocol {
    Http,
    Grpc {
        content_type: HeaderValue,
        /// Whether its responses end with trailers. grpc-web writes them into the body, where a layer that does not know
        /// the body's frames cannot put any.
        trailers: bool,
    },
}

impl Protocol {
    pub(super) fn of<B>(request: &Request<B>) -> Protocol {
        let Some(content_type) = request.headers().get(CONTENT_TYPE) else {
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

    /// The same for a connection that drops trailers: HTTP/1.1 would end the body there as if it were whole.
    pub(super) fn for_version(self, version: Version) -> Protocol {
        match self {
            Protocol::Grpc { content_type, .. } if version < Version::HTTP_2 => Protocol::Grpc {
                content_type,
                trailers: false,
            },
            other => other,
        }
    }

    /// A response that is a gRPC status and nothing else, if this is gRPC.
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

    /// How a response's body ends that `error` has cut off: in gRPC's trailers with this status, where it can have any.
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

fn status(code: i32, message: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    headers
}
