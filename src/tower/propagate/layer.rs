//! The layer: its settings, and what it puts on a request.

use std::time::Duration;

use http::{HeaderName, Request};
use tokio::time::Instant;

use crate::context::ContextError;
use crate::context::{Cause, Context};
use crate::sync::Arc;
use crate::tower::carried::Carried;
use crate::tower::cause::NO_TIME_LEFT;
use crate::tower::header::{self, GRPC_TIMEOUT};

/// Makes the calls of a client part of a [`Context`]: they carry its deadline, and end when it ends.
///
/// The context is the one in the extensions of the request, where a [`ContextLayer`](crate::tower::ContextLayer) puts it and a caller
/// can: `request.extensions_mut().insert(ctx)`. A request that has none there takes the one that was given to the layer
/// ([`context`](PropagateLayer::context)); where that is missing too, the call goes through as it is.
///
/// - **The deadline travels.** The time that is left, less the [`margin`](PropagateLayer::margin), is sent as
///   `grpc-timeout`, and in the headers that were [added](PropagateLayer::header). A shorter time that the request has there
///   already stays.
/// - **No time, no call.** If the context has ended or nothing is left, the call fails at once, and nothing is sent.
/// - **The call ends with the context**: it is dropped, which closes the HTTP/1.1 connection or resets the HTTP/2 stream, and
///   the server sees its client go. This holds to the end of the response's body, [`CallBody`](super::CallBody).
/// - **The trace travels.** The headers that the context [carries](Carried) (`traceparent`, `tracestate`, `baggage`) are put
///   on the request, unless it has them.
///
/// Where calls are tried again, put it inside the retries: each attempt then says what is left of the time when it is made.
///
/// # Errors
///
/// [`BoxError`](crate::tower::BoxError): the inner service's error, or a [`ContextError`]; `error.downcast_ref::<ContextError>()` tells. An error of the
/// inner service that comes when the time that was sent has passed is a [`ContextError`] too, with that error as its cause:
/// a client that keeps to the same header is no other failure. A gRPC call
/// (its content type is `application/grpc*`) gets the [`ContextError`] as what it is there, a response with `grpc-status: 4`, or 1 where
/// the context was cancelled: so in tonic it is a `Status` with `Code::DeadlineExceeded` or `Code::Cancelled`, and not
/// one with `Code::Unknown`.
///
/// # With the clients that there are
///
/// `S` is any service from `http::Request` to `http::Response`. *hyper-util*'s `Client` and *tonic*'s `Channel` are just that:
/// wrap the channel, and give the result to the generated client in the channel's place. *reqwest* has request and response
/// types of its own, which convert; here it is whole:
///
/// ```
/// use errgroup::Context;
/// use errgroup::tower::{BoxError, CallBody, PropagateLayer};
/// use http::{Request, Response};
/// use tower::{Layer, Service, ServiceExt, service_fn};
///
/// /// A reqwest client that calls with the time that is left.
/// fn client(
///     client: reqwest::Client,
/// ) -> impl Service<Request<reqwest::Body>, Response = Response<CallBody<reqwest::Body>>, Error = BoxError> {
///     let execute = move |request: Request<reqwest::Body>| {
///         let client = client.clone();
///         async move {
///             let response = client.execute(request.try_into()?).await?;
///             Ok::<Response<reqwest::Body>, reqwest::Error>(response.into())
///         }
///     };
///     PropagateLayer::new().layer(service_fn(execute))
/// }
///
/// # async fn example(ctx: Context) -> Result<(), BoxError> {
/// let mut request = Request::get("http://127.0.0.1:8080/").body(reqwest::Body::default())?;
/// request.extensions_mut().insert(ctx);
/// let response = client(reqwest::Client::new()).oneshot(request).await?;
/// // And back, for `json`, `text` and the rest.
/// let text = reqwest::Response::from(response.map(reqwest::Body::wrap)).text().await?;
/// # Ok(()) }
/// ```
///
/// And hyper-util:
///
/// ```
/// use errgroup::Context;
/// use errgroup::tower::{BoxError, PropagateLayer};
/// use http::Request;
/// use http_body_util::{BodyExt, Empty};
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use tower::{Layer, ServiceExt};
///
/// # async fn example(ctx: Context) -> Result<(), BoxError> {
/// let client = Client::builder(TokioExecutor::new()).build_http::<Empty<&'static [u8]>>();
/// let client = PropagateLayer::new().context(&ctx).layer(client);
///
/// let request = Request::get("http://127.0.0.1:8080/").body(Empty::new())?;
/// let response = client.oneshot(request).await?;
/// let bytes = response.into_body().collect().await?.to_bytes();
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PropagateLayer {
    config: Arc<Config>,
    pub(super) ctx: Option<Context>,
}

#[derive(Debug, Clone)]
struct Config {
    margin: Duration,
    /// `grpc-timeout`, and what was added.
    headers: Vec<HeaderName>,
    carries: bool,
}

impl PropagateLayer {
    /// A layer without a margin, that sends `grpc-timeout` alone.
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

    /// Tells the server that there is this much less time than there is, so that its answer, be it that the time is up, is
    /// here before it is up here.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> PropagateLayer {
        Arc::make_mut(&mut self.config).margin = margin;
        self
    }

    /// Sends the time in this header too. May be called more than once.
    ///
    /// It is written as [`ContextLayer::header`](crate::tower::ContextLayer::header) reads it: `250ms`, or as a bare number of milliseconds
    /// if the header's name ends in `-ms`. That is never less than 1: some servers take 0 for no limit.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> PropagateLayer {
        Arc::make_mut(&mut self.config).headers.push(name);
        self
    }

    /// The context of requests that have none in their extensions.
    #[must_use]
    pub fn context(mut self, ctx: &Context) -> PropagateLayer {
        self.ctx = Some(ctx.clone());
        self
    }

    /// Leaves out the headers that the context [carries](Carried): for calls to strangers, whom a client's `baggage` is none of
    /// their business.
    #[must_use]
    pub fn without_carried(mut self) -> PropagateLayer {
        Arc::make_mut(&mut self.config).carries = false;
        self
    }

    /// Puts on a request what travels with it, and gives the instant until which the server is told to have time.
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
                // It may have passed since.
                ctx.check()?;
                return Err(ContextError::deadline_exceeded(Some(Cause::note(
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
    /// [`PropagateLayer::new`].
    fn default() -> PropagateLayer {
        PropagateLayer::new()
    }
}
