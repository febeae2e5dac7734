//! The method and path of a request, for reports and events.

use std::time::Duration;

use http::Method;
use http::request::Parts;
use http::uri::PathAndQuery;

use crate::span::{self, Span};
use crate::tracing::{self, RequestEvent};

/// How many bytes of a path are in a name. Its length is up to the client.
const MOST_OF_PATH: usize = 256;

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

    /// Returns the path, without the query.
    pub(super) fn path(&self) -> &str {
        self.target.as_ref().map_or("", PathAndQuery::path)
    }

    /// Returns the name of the handler as a task, such as `POST /orders`. Of a long path, only the
    /// beginning is kept.
    pub(super) fn name(&self) -> String {
        let path = self.path();
        let mut end = path.len().min(MOST_OF_PATH);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        format!("{} {}", self.method, &path[..end])
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
