//! The arrival of a request: its context is derived, and put into its extensions.

use http::{Method, Request};
use http_body::Body;
use tokio::time::Instant;

use super::ContextLayer;
use crate::context::{Context, deadline_after};
use crate::tower::body::RequestBody;
use crate::tower::exchange::Exchange;
use crate::tower::handlers::InFlight;
use crate::tower::protocol::Protocol;
use crate::tower::request_line::RequestLine;
use crate::tower::scope::Scope;

/// A request that has arrived.
pub(in crate::tower) struct Arrival<B> {
    pub(in crate::tower) request: Request<RequestBody<B>>,
    pub(in crate::tower) exchange: Exchange,
    /// `None` if the request does not reach the handler: its deadline has passed, or the server
    /// shuts down.
    pub(in crate::tower) in_flight: Option<InFlight>,
}

impl<M> ContextLayer<M> {
    /// Derives the context of a request that has arrived. Returns the request with that context and
    /// a body that detects a disconnect, and what ends the context.
    pub(in crate::tower) fn arrive<B: Body>(&self, request: Request<B>) -> Arrival<B> {
        let (mut parts, body) = request.into_parts();
        let found = self.config.find(&parts.headers);
        let began = Instant::now();
        let ctx = self.derive(&parts, found, began);
        let is_late = ctx.deadline().is_some_and(|at| at <= began);
        let protocol = if found.content_type {
            Protocol::of(&parts.headers).for_version(parts.version)
        } else {
            Protocol::Http
        };
        let line = RequestLine::of(&parts);
        let is_head = parts.method == Method::HEAD;
        parts.extensions.insert(ctx.clone());
        let request = Request::from_parts(parts, RequestBody::new(&ctx, body));
        let scope = Scope::new(ctx, protocol, line, is_head);
        Arrival {
            request,
            exchange: Exchange::new(scope, began, self.config.grace),
            in_flight: if is_late {
                None
            } else {
                InFlight::begin(&self.shared)
            },
        }
    }

    fn derive(
        &self,
        parts: &http::request::Parts,
        found: super::config::Found,
        began: Instant,
    ) -> Context {
        let server = self.shared.ctx();
        let mut derived = parts
            .extensions
            .get::<Context>()
            .map(|outer| outer.merge(server));
        if let Some(carried) = self.config.carried(&parts.headers, found) {
            derived = Some(derived.as_ref().unwrap_or(server).with_value(carried));
        }
        let parent = derived.as_ref().unwrap_or(server);
        match self.config.timeout(parts, found) {
            Some((timeout, cause)) => {
                let at = deadline_after(began, timeout);
                parent.with_end(Some((at, cause)), || timeout.is_zero())
            }
            None => parent.with_end(None, || false),
        }
    }
}
