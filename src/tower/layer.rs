//! The server's layer: a context for each request.

mod arrival;
mod config;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use http::HeaderName;
use http::request::Parts;

use super::handlers::{Handlers, Shared};
use crate::context::Context;
use crate::sync::Arc;
use config::Config;

/// Gives each request of a server a [`Context`] that is cancelled when its response is no longer
/// needed.
///
/// The context is a child of the server's context. It is in the request's extensions:
/// `request.extensions().get::<Context>()` in hyper, axum and tonic. With feature `axum`, `Context`
/// is an extractor. The context is done
///
/// - when the client disconnects: the server drops the response future, or the response's body
///   before it is complete, or the request's body ends early. The cause is
///   [`ClientGone`](super::ClientGone);
/// - when its deadline passes. The client receives a timeout response;
/// - when the server's context is done, with the same cause;
/// - when the response is complete, or has failed. The cause of a complete response is
///   [`RequestFinished`](super::RequestFinished). This cancels everything that was started with the
///   context. For work that must outlive the request, use
///   [`without_cancel`](Context::without_cancel).
///
/// The first of these events decides. If the deadline has passed, the error is always that of the
/// deadline.
///
/// # A handler runs on without its client
///
/// As in Go, a handler is not stopped when its client disconnects or its deadline passes. Its
/// context is done, and it returns when it has cleaned up:
///
/// ```
/// # use errgroup::Context;
/// # async fn work() -> String { String::new() }
/// async fn handle(ctx: Context) -> String {
///     tokio::select! {
///         answer = work() => answer,
///         error = ctx.done() => {
///             eprintln!("request cancelled: {error}"); // and `await` what has to be undone
///             String::new()
///         }
///     }
/// }
/// ```
///
/// A handler has the [`grace`](ContextLayer::grace) period to return after its context is done.
/// Then it is aborted: its future is dropped at its await. If its client still waits, the response
/// is 503. [`handlers`](ContextLayer::handlers) waits for the handlers at shutdown.
///
/// A handler runs inside the task of its connection, as without the layer, and its future is boxed.
/// When its response is no longer needed, the future is moved to a task of the layer. Then it
/// *lingers*: it runs without a client. So:
///
/// - The handler's future must be `Send + 'static`.
/// - Task-locals that an outer layer sets are not set any more after the move. Put such layers
///   inside this one. The span of the request stays the current one, with feature `tracing`.
/// - [`max_lingering`](ContextLayer::max_lingering) bounds how many linger at once. A limit on
///   concurrent requests that stands *outside* this layer does not count them, because their
///   response futures have returned.
/// - All handlers that linger run on the runtime of the first one.
/// - A handler that was never polled is dropped. So is one whose response future is dropped outside
///   a tokio runtime, or while the runtime shuts down.
///
/// [`drop_on_disconnect`](ContextLayer::drop_on_disconnect) switches to the behaviour of hyper.
///
/// # The deadline
///
/// The deadline is the earliest of
///
/// - the arrival plus the shortest timeout in the request's headers,
/// - the arrival plus [`max_timeout`](ContextLayer::max_timeout),
/// - the deadline of the server's context.
///
/// It applies until the response's *body* is complete. If it passes before there is a response, the
/// response is 504, or `grpc-status: 4` for a request whose content type is `application/grpc*`.
/// The client receives it at once, and the handler may go on for its grace period. A response that
/// the handler returns from then on is discarded. [`ResponseBody`](super::ResponseBody) describes a
/// deadline that passes during the body. A request whose deadline has passed on arrival does not
/// reach the handler.
///
/// A handler that waits needs a tokio runtime with timers.
///
/// # Where to put it
///
/// Put it outside of layers and services that take time, so that it receives the request first and
/// the response last. Put it inside of those that only look at a request and its response (traces,
/// CORS, compression). A layer outside of it that drops the response future (a timeout)
/// looks like a client that disconnects. So does a layer that makes the request's body fail (a size
/// limit). Put such layers inside of it. The whole order, from the outside:
///
/// ```text
/// TraceLayer           sees every response, the layer's own included
/// CatchPanicLayer      turns a panic of a handler into a 500
/// CorsLayer            the layer's own 504 and 503 need its headers, or a browser's `fetch` fails
/// CompressionLayer     changes the length of a body
/// ContextLayer
/// ConcurrencyLimit     counts the handlers that linger, too
/// RequestBodyLimit     makes a body fail, which must not look like a disconnect
/// the routes
/// ```
///
/// With `tower::ServiceBuilder`, this is the order of the calls. With axum's `Router::layer`, it is
/// the reverse: the last call is outermost. Give a concurrency limit to a `Router::layer` call of
/// its own, and use a `GlobalConcurrencyLimitLayer`, since each route gets a service of its own. A
/// request then waits for its permit under its deadline. In one `ServiceBuilder` with this layer,
/// it waits in `poll_ready`, before it has a context.
///
/// A second `ContextLayer` further inside can give a route less time, and
/// [`max_timeout_with`](ContextLayer::max_timeout_with) more or less. If a request already has a
/// context in its extensions, the new context is a child of that one, and of the server's context.
///
/// # Examples
///
/// ```
/// use std::convert::Infallible;
/// use std::time::Duration;
///
/// use errgroup::Context;
/// use errgroup::tower::{ContextLayer, RequestBody};
/// use http::{Request, Response};
/// use http_body_util::Empty;
/// use tower::{Layer, ServiceExt, service_fn};
///
/// type Body = Empty<&'static [u8]>;
///
/// async fn handle(request: Request<RequestBody<Body>>) -> Result<Response<Body>, Infallible> {
///     let ctx = request.extensions().get::<Context>().unwrap();
///     assert!(ctx.remaining().unwrap() <= Duration::from_millis(250));
///     Ok(Response::default())
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let server = Context::background();
/// let layer = ContextLayer::new(&server).max_timeout(Duration::from_secs(30));
///
/// let request = Request::get("/").header("grpc-timeout", "250m").body(Body::new()).unwrap();
/// let response = layer.layer(service_fn(handle)).oneshot(request).await.unwrap();
/// assert_eq!(response.status(), 200);
/// # }
/// ```
pub struct ContextLayer<M = Linger> {
    config: Arc<Config>,
    shared: Arc<Shared>,
    mode: PhantomData<fn() -> M>,
}

/// The default mode of a [`ContextLayer`]: a handler runs on without its client.
#[derive(Debug, Clone, Copy)]
pub struct Linger;

/// The mode of a [`ContextLayer`] that drops its handlers, which
/// [`drop_on_disconnect`](ContextLayer::drop_on_disconnect) returns.
#[derive(Debug, Clone, Copy)]
pub struct DropOnDisconnect;

impl ContextLayer {
    /// Returns a layer that derives the contexts of requests from `ctx`, the server's context.
    ///
    /// Cancel `ctx` when the server is to stop: every request that is still running is then
    /// cancelled with the same cause.
    ///
    /// Clones of the layer share their [`handlers`](ContextLayer::handlers). They may have
    /// different settings, for different routes.
    #[must_use]
    #[track_caller]
    pub fn new(ctx: &Context) -> ContextLayer {
        ContextLayer {
            config: Arc::new(Config::new()),
            shared: Arc::new(Shared::new(ctx)),
            mode: PhantomData,
        }
    }

    /// Lets at most `n` handlers run on without their clients at once. One more is dropped at its
    /// await at once, as hyper does, and counts as aborted. The default is 1,024.
    ///
    /// This is the bound for clients that send requests and disconnect, or open and reset HTTP/2
    /// streams, faster than handlers return. With `0`, no handler lingers.
    #[must_use]
    pub fn max_lingering(mut self, n: usize) -> ContextLayer {
        self.config_mut().max_lingering = n;
        self
    }

    /// Returns a layer that drops a handler at its await when its client disconnects or its
    /// deadline passes, as hyper does without a layer.
    ///
    /// The context is done before the handler is dropped, so its destructors, and everything that
    /// was started with the context, can read the cause. The handler itself does not learn of the
    /// disconnect. No clean-up that is async can run in it. A statement that was sent to a database
    /// is executed all the same, and the second of two writes is never sent.
    ///
    /// The handler's future need not be `Send` or `'static`, and is not boxed. When the server's
    /// context is done, a handler is not dropped: it has its [`grace`](ContextLayer::grace) period,
    /// as in the default mode.
    #[must_use]
    pub fn drop_on_disconnect(self) -> ContextLayer<DropOnDisconnect> {
        ContextLayer {
            config: self.config,
            shared: self.shared,
            mode: PhantomData,
        }
    }
}

impl<M> ContextLayer<M> {
    /// Sets the time that a handler has to return after its context is done. After it, the handler
    /// is aborted. The default is 10 seconds.
    ///
    /// The time begins when the context is done: at the disconnect, at the deadline, or when the
    /// server's context is cancelled. `Duration::MAX` waits for ever.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> ContextLayer<M> {
        self.config_mut().grace = grace;
        self
    }

    /// Returns a handle to the handlers, with which the server's shutdown waits for them.
    ///
    /// A server's graceful shutdown waits for its connections. It does not wait for a handler whose
    /// connection is closed. Call this after [`grace`](ContextLayer::grace), which the handle
    /// copies, and keep the handle until the end of `main`:
    ///
    /// ```
    /// use errgroup::Context;
    /// use errgroup::tower::ContextLayer;
    /// use std::time::Duration;
    ///
    /// # async fn serve(_: &Context, _: ContextLayer) {}
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// # let server = Context::background();
    /// let layer = ContextLayer::new(&server).grace(Duration::from_secs(5));
    /// let handlers = layer.handlers();
    /// serve(&server, layer).await;
    /// let drained = handlers.wait().await;
    /// for request in drained.aborted() {
    ///     eprintln!("aborted: {request}");
    /// }
    /// # }
    /// ```
    pub fn handlers(&self) -> Handlers {
        Handlers::new(&self.shared, self.config.grace)
    }

    /// Sets the maximum timeout of a request. It limits the timeout that a request asks for, and
    /// applies to a request that asks for none.
    ///
    /// Without it, a client may ask for any timeout, and a request that asks for none has no
    /// deadline of its own. A server on a public network should set it.
    #[must_use]
    pub fn max_timeout(mut self, timeout: Duration) -> ContextLayer<M> {
        self.config_mut().max_timeout = Some(timeout);
        self
    }

    /// Sets a function that gives a request more or less time than
    /// [`max_timeout`](ContextLayer::max_timeout), by its method, path or headers: a download or a
    /// stream of events needs more. If it returns `None`, `max_timeout` applies.
    ///
    /// It is called when a request arrives. Its panic is a panic of the service.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, tower::ContextLayer};
    /// use std::time::Duration;
    ///
    /// let layer = ContextLayer::new(&Context::background())
    ///     .max_timeout(Duration::from_secs(5))
    ///     .max_timeout_with(|request| match request.uri.path() {
    ///         "/events" => Some(Duration::MAX),
    ///         path if path.starts_with("/files/") => Some(Duration::from_secs(300)),
    ///         _ => None,
    ///     });
    /// ```
    #[must_use]
    pub fn max_timeout_with<F>(mut self, of: F) -> ContextLayer<M>
    where
        F: Fn(&Parts) -> Option<Duration> + Send + Sync + 'static,
    {
        self.config_mut().max_timeout_with = Some(Arc::new(of));
        self
    }

    /// Trusts no client: ignores the timeouts that requests ask for, and does not copy `baggage`.
    ///
    /// Use it at the edge, where requests come from the internet. A client there should not choose
    /// the deadlines of the services behind, nor pass values along to them.
    /// [`max_timeout`](ContextLayer::max_timeout) still applies. The headers stay in the request.
    #[must_use]
    pub fn untrusted(mut self) -> ContextLayer<M> {
        self.config_mut().distrust();
        self
    }

    /// Reads a request's timeout from this header too, besides `grpc-timeout`. Can be called more
    /// than once. If several headers have a timeout, the shortest applies.
    ///
    /// A value is a decimal number with an optional unit (`ns`, `us`, `ms`, `s`, `m`, `h`):
    /// `250ms`, `2s`, `1.5`. A bare number is in seconds, or in milliseconds if the header's name
    /// ends in `-ms`, as in `connect-timeout-ms` and `x-envoy-expected-rq-timeout-ms`. It is the
    /// time that is *left*, not a time of day. With zero, the deadline has passed on arrival.
    ///
    /// A value in another format is ignored, for instance one with a sign, an exponent, blanks or
    /// another unit. A number that is too large for a [`Duration`] means [`Duration::MAX`]. The
    /// format of `grpc-timeout` is gRPC's: one to eight digits and one of the units `H M S m u n`.
    /// Every other value of it is ignored.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> ContextLayer<M> {
        self.config_mut().read_timeout(name);
        self
    }

    /// Copies this header of a request into the request's context, as [`Carried`](super::Carried).
    /// [`PropagateLayer`](super::PropagateLayer) adds it to the calls that are made for the
    /// request.
    ///
    /// `traceparent`, `tracestate` and `baggage` are always copied (`baggage` not by a layer that
    /// is [`untrusted`](ContextLayer::untrusted)). Use this for one more header, such as
    /// `x-request-id`.
    #[must_use]
    pub fn carry(mut self, name: HeaderName) -> ContextLayer<M> {
        self.config_mut().carry(name);
        self
    }

    fn config_mut(&mut self) -> &mut Config {
        Arc::make_mut(&mut self.config)
    }

    pub(super) fn most_lingering(&self) -> usize {
        self.config.max_lingering
    }
}

impl<M> Clone for ContextLayer<M> {
    fn clone(&self) -> Self {
        ContextLayer {
            config: self.config.clone(),
            shared: self.shared.clone(),
            mode: PhantomData,
        }
    }
}

impl<M> fmt::Debug for ContextLayer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextLayer")
            .field("config", &self.config)
            .field("handlers", &self.shared)
            .finish_non_exhaustive()
    }
}
