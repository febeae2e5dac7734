//! The layer: its settings, and the headers that it adds to a request.

use std::time::Duration;

use http::{HeaderName, Request};
use tokio::time::Instant;

use crate::context::ContextError;
use crate::context::{Cause, Context};
use crate::sync::Arc;
use crate::tower::carried::Carried;
use crate::tower::cause::NO_TIME_LEFT;
use crate::tower::header::{self, GRPC_TIMEOUT};

/// Makes the calls of a client part of a [`Context`]: they carry its deadline, and are dropped when
/// the context is done.
///
/// Use it if the server that is called should know the deadline or the trace. Without the layer,
/// `ctx.run(client.get(url).send()).await` cancels a call as well.
///
/// The context is taken from the extensions of the request. A
/// [`ContextLayer`](crate::tower::ContextLayer) inserts it there, and so can a caller:
/// `request.extensions_mut().insert(ctx)`. A request without one uses the context of the layer
/// ([`context`](PropagateLayer::context)). If the layer has none either, the call is sent
/// unchanged.
///
/// - **Deadline.** The time that is left, minus the [`margin`](PropagateLayer::margin), is sent as
///   `grpc-timeout` and in the headers that were [added](PropagateLayer::header). A shorter timeout
///   that the request already has in such a header stays.
/// - **No time left.** If the context is done, or no time is left, the call fails at once and
///   nothing is sent.
/// - **Cancellation.** When the context is done, the call is dropped. That closes the HTTP/1.1
///   connection or resets the HTTP/2 stream, so the server detects a disconnect. This applies until
///   the response's body, [`CallBody`](super::CallBody), is complete.
/// - **Trace.** The headers that the context [carries](Carried) (`traceparent`, `tracestate`,
///   `baggage`) are added to the request, unless it has them.
///
/// If calls are retried, put this layer inside the retry layer. Then each attempt sends the time
/// that is left at that moment.
///
/// # Errors
///
/// The error is a [`BoxError`](crate::tower::BoxError). It holds the inner service's error or a
/// [`ContextError`]; `error.downcast_ref::<ContextError>()` tells them apart.
///
/// If the inner service fails after the timeout that was sent has passed, the error is a
/// [`ContextError`] too, with the service's error as its cause. Some clients enforce the timeout
/// header themselves, and their error reports the same deadline.
///
/// A gRPC call, whose content type is `application/grpc*`, does not fail with a [`ContextError`].
/// It gets a response with `grpc-status: 4` if the deadline has passed, or 1 if the context was
/// cancelled. So in tonic it is a `Status` with `Code::DeadlineExceeded` or `Code::Cancelled`. A
/// boxed error would be `Code::Unknown`.
///
/// # Examples
///
#[cfg_attr(not(doctest), doc = include_str!("clients.md"))] // a doctest of tests/http/docs.rs
#[derive(Debug, Clone)]
pub struct PropagateLayer {
    config: Arc<Config>,
    pub(super) ctx: Option<Context>,
}

#[derive(Debug, Clone)]
struct Config {
    margin: Duration,
    /// The headers in which the timeout is sent: `grpc-timeout`, and those that were added.
    headers: Vec<HeaderName>,
    /// `true` if the headers that the context carries are added.
    carries: bool,
}

impl PropagateLayer {
    /// Returns a layer without a margin, which sends the timeout in `grpc-timeout` only.
    #[must_use]
    pub fn new() -> PropagateLayer {
        let config = Config {
            margin: Duration::ZERO,
            headers: vec![GRPC_TIMEOUT],
            carries: true,
        };
        PropagateLayer {
            config: Arc::new(config),
            ctx: None,
        }
    }

    /// Subtracts `margin` from the timeout that is sent, so that the server's response, a timeout
    /// error included, arrives before the local deadline.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> PropagateLayer {
        Arc::make_mut(&mut self.config).margin = margin;
        self
    }

    /// Sends the timeout in this header too. Can be called more than once.
    ///
    /// The value has the format that [`ContextLayer::header`](crate::tower::ContextLayer::header)
    /// reads: `250ms`, or a bare number of milliseconds if the header's name ends in `-ms`. Such a
    /// number is at least 1, because some servers take 0 for no limit.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> PropagateLayer {
        Arc::make_mut(&mut self.config).headers.push(name);
        self
    }

    /// Sets the context of requests that have none in their extensions.
    #[must_use]
    pub fn context(mut self, ctx: &Context) -> PropagateLayer {
        self.ctx = Some(ctx.clone());
        self
    }

    /// Does not forward the headers that the context [carries](Carried). Use it for calls to third
    /// parties, which should not receive a client's `baggage`.
    #[must_use]
    pub fn without_carried(mut self) -> PropagateLayer {
        Arc::make_mut(&mut self.config).carries = false;
        self
    }

    /// Adds the headers to a request, and returns the instant at which the timeout that is sent
    /// passes, if one is sent.
    ///
    /// # Errors
    ///
    /// The context's error, or that no time is left after the margin. The request is then not to be
    /// sent.
    pub(super) fn prepare<B>(
        &self,
        ctx: &Context,
        request: &mut Request<B>,
    ) -> Result<Option<Instant>, ContextError> {
        ctx.check()?;
        let headers = request.headers_mut();
        let mut until = None;
        if let Some(remaining) = ctx.remaining() {
            let left = remaining.saturating_sub(self.config.margin);
            if left.is_zero() {
                // The deadline may have passed since the check above. Then the error is the
                // context's own.
                ctx.check()?;
                return Err(ContextError::deadline_exceeded(Some(Cause::from_static(
                    &NO_TIME_LEFT,
                ))));
            }
            for name in &self.config.headers {
                let present = header::timeout(headers, [name]);
                if present.is_none_or(|present| left < present) {
                    headers.insert(name, header::format(name, left));
                }
            }
            let told = header::timeout(headers, &self.config.headers);
            until = Instant::now().checked_add(told.unwrap_or(left));
        }
        if let (true, Some(carried)) = (self.config.carries, ctx.value::<Carried>()) {
            carried.put_on(headers);
        }
        Ok(until)
    }
}

impl Default for PropagateLayer {
    /// Returns [`PropagateLayer::new`].
    fn default() -> PropagateLayer {
        PropagateLayer::new()
    }
}
