//! The method and path of a request, for reports and events.

use std::fmt;
use std::time::Duration;

use http::Method;
use http::request::Parts;
use http::uri::PathAndQuery;

use crate::span::{self, Span};
use crate::tracing::{self, RequestEvent};

/// The method and path of a request. It shares the bytes of the request, so it is cheap to make.
#[derive(Debug, Clone)]
pub(super) struct RequestLine {
    method: Method,
    /// `None` for the method CONNECT, whose URI has none.
    target: Option<PathAndQuery>,
}

impl RequestLine {
    pub(super) fn of(parts: &Parts) -> RequestLine {
        RequestLine {
            method: parts.method.clone(),
            target: parts.uri.path_and_query().cloned(),
        }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the path, without the query.
    pub(super) fn path(&self) -> &str {
        self.target.as_ref().map_or("", PathAndQuery::path)
    }

    /// Emits an event of the request, in its span.
    pub(super) fn emit(&self, span: &Span, event: RequestEvent<'_>) {
        let _entered = span::enter_caller(span);
        tracing::request(self.method.as_str(), self.path(), event);
    }

    /// Emits the event for a handler that was aborted.
    pub(super) fn emit_abort(&self, span: &Span, elapsed: Duration, reason: &'static str) {
        self.emit(span, RequestEvent::Aborted { elapsed, reason });
    }
}

impl fmt::Display for RequestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path())
    }
}
