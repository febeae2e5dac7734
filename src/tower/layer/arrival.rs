//! The arrival of a request: its context is derived, and put into its extensions.

use http::request::Parts;
use tokio::time::Instant;

use super::ContextLayer;
use super::config::Found;
use crate::context::{Context, deadline_after};
use crate::tower::handlers::InFlight;
use crate::tower::protocol::Protocol;
use crate::tower::scope::Scope;

impl<M> ContextLayer<M> {
    /// Derives the context of a request that has arrived, and puts it into the request's
    /// extensions. Returns what ends the context, and the handler's place among those that are
    /// counted. That is `None` if the request does not reach the handler: its deadline has passed,
    /// or the server shuts down.
    pub(in crate::tower) fn arrive(&self, parts: &mut Parts) -> (Box<Scope>, Option<InFlight>) {
        let found = self.config.find(&parts.headers);
        let began = Instant::now();
        let ctx = self.derive(parts, found, began);
        parts.extensions.insert(ctx.clone());
        let is_late = ctx.deadline().is_some_and(|at| at <= began);
        let mut scope = Box::new(Scope::new(ctx, began, self.config.grace, parts));
        if found.content_type {
            scope.protocol = Protocol::of(&parts.headers).for_version(parts.version);
        }
        let in_flight = if is_late {
            None
        } else {
            InFlight::begin(&self.shared, &scope.line, &scope.ctx)
        };
        (scope, in_flight)
    }

    fn derive(&self, parts: &Parts, found: Found, began: Instant) -> Context {
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
