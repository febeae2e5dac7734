//! The server's layer: a context for each request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use http::{HeaderName, Method, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{RequestBody, ResponseBody};
use super::carried::{self, Carried};
use super::cause::{HANDLER_FAILED, TIME_OF_CLIENT_PASSED, TIME_OF_SERVER_PASSED};
use super::header::{self, GRPC_TIMEOUT};
use super::protocol::Protocol;
use super::scope::{self, Deadline, Guard, Scope};
use crate::context::{Cause, Context};
use crate::sync::Arc;

/// Gives each request of a server a [`Context`] that is cancelled when its response is no longer
/// needed.
///
/// The context is a child of the server's context. It is in the request's extensions:
/// `request.extensions().get::<Context>()` in hyper, axum and tonic. With feature `axum`, `Context`
/// is an extractor. The context is done
///
/// - when the client disconnects: the server drops the response future, or the response's body
///   before it is complete, or the request's body fails. The cause is
///   [`ClientGone`](super::ClientGone);
/// - when its deadline passes. The handler is dropped, and the client receives a timeout response;
/// - when the server's context is done, with the same cause. The handler is not dropped: it can
///   observe the context and return;
/// - when the response is complete, or has failed. The cause of a complete response is
///   [`RequestFinished`](super::RequestFinished). This cancels everything that was started with the
///   context. For work that must outlive the request, use
///   [`without_cancel`](Context::without_cancel).
///
/// The first of these events decides. At or after the deadline, it is always the deadline.
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
/// handler is dropped. The response is 504, or `grpc-status: 4` for a request whose content type is
/// `application/grpc*`. A response that the handler returns at that moment is discarded.
/// [`ResponseBody`] describes a deadline that passes during the body. A request whose deadline has
/// passed on arrival does not reach the handler.
///
/// A request with a deadline needs a tokio runtime with timers, if it has to wait.
///
/// # Where to put it
///
/// Put it outside of every layer and service that may take time, so that it receives the request
/// first and the response last. A layer outside of it that drops the response future (a timeout)
/// looks like a client that disconnects. So does a layer that makes the request's body fail (a size
/// limit). Put such layers inside of it.
///
/// A second `ContextLayer` further inside can give a route less time. If a request already has a
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
///     assert_eq!(ctx.remaining(), Some(Duration::from_millis(250)));
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
#[derive(Debug, Clone)]
pub struct ContextLayer {
    server: Context,
    config: Arc<Config>,
}

#[derive(Debug, Clone)]
struct Config {
    max_timeout: Option<Duration>,
    /// The headers with a timeout: `grpc-timeout`, and those that were added.
    headers: Vec<HeaderName>,
    /// The headers that are copied into the context. No name occurs twice.
    carried: Vec<HeaderName>,
}

impl ContextLayer {
    /// Returns a layer that derives the contexts of requests from `ctx`, the server's context.
    ///
    /// Cancel `ctx` when the server is to stop: every request that is still running is then
    /// cancelled with the same cause.
    #[must_use]
    pub fn new(ctx: &Context) -> ContextLayer {
        let config = Config {
            max_timeout: None,
            headers: vec![GRPC_TIMEOUT],
            carried: carried::DEFAULT.to_vec(),
        };
        ContextLayer {
            server: ctx.clone(),
            config: Arc::new(config),
        }
    }

    /// Sets the maximum timeout of a request. It limits the timeout that a request asks for, and
    /// applies to a request that asks for none.
    ///
    /// Without it, a client may ask for any timeout, and a request that asks for none has no
    /// deadline of its own. A server on a public network should set it.
    #[must_use]
    pub fn max_timeout(mut self, timeout: Duration) -> ContextLayer {
        Arc::make_mut(&mut self.config).max_timeout = Some(timeout);
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
    pub fn header(mut self, name: HeaderName) -> ContextLayer {
        Arc::make_mut(&mut self.config).headers.push(name);
        self
    }

    /// Copies this header of a request into the request's context, as [`Carried`].
    /// [`PropagateLayer`](super::PropagateLayer) adds it to the calls that are made for the
    /// request.
    ///
    /// `traceparent`, `tracestate` and `baggage` are always copied. Use this for one more header,
    /// such as `x-request-id`.
    #[must_use]
    pub fn carry(mut self, name: HeaderName) -> ContextLayer {
        let carried = &mut Arc::make_mut(&mut self.config).carried;
        if !carried.contains(&name) {
            carried.push(name);
        }
        self
    }

    /// Returns the server's context.
    pub(super) fn server(&self) -> &Context {
        &self.server
    }

    /// Returns the layer with another server's context.
    pub(super) fn with_server(mut self, ctx: Context) -> ContextLayer {
        self.server = ctx;
        self
    }

    /// Derives the context of a request that has arrived. Returns the request with that context and
    /// a body that detects a disconnect, and the scope that ends the context.
    pub(super) fn begin<B>(&self, request: Request<B>) -> (Request<RequestBody<B>>, Scope) {
        let (mut parts, body) = request.into_parts();
        let mut ctx = match parts.extensions.get::<Context>() {
            Some(outer) => outer.merge(&self.server),
            None => self.server.clone(),
        };
        if let Some(carried) = Carried::of(&parts.headers, &self.config.carried) {
            ctx = ctx.with_value(carried);
        }
        if let Some((timeout, cause)) = self.timeout(&parts.headers) {
            ctx = ctx.with_timeout_cause(timeout, cause);
        }
        let (ctx, guard) = ctx.with_cancel();
        let handle = guard.disarm();
        parts.extensions.insert(ctx.clone());
        let is_head = parts.method == Method::HEAD;
        let version = parts.version;
        let request = Request::from_parts(parts, RequestBody::new(handle.clone(), body));
        let scope = Scope {
            guard: Guard::new(handle),
            deadline: Deadline::new(ctx.deadline()),
            ctx,
            protocol: Protocol::of(&request).for_version(version),
            is_head,
        };
        (request, scope)
    }

    /// Returns the timeout of a request, and the cause that says who has set it: the client or the
    /// server.
    fn timeout(&self, headers: &http::HeaderMap) -> Option<(Duration, Cause)> {
        let asked = header::timeout(headers, &self.config.headers);
        match (asked, self.config.max_timeout) {
            (Some(asked), Some(max)) if max < asked => {
                Some((max, Cause::from_static(&TIME_OF_SERVER_PASSED)))
            }
            (Some(asked), _) => Some((asked, Cause::from_static(&TIME_OF_CLIENT_PASSED))),
            (None, Some(max)) => Some((max, Cause::from_static(&TIME_OF_SERVER_PASSED))),
            (None, None) => None,
        }
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that a [`ContextLayer`] returns: `S`, with a context for each request.
#[derive(Debug, Clone)]
pub struct ContextService<S> {
    inner: S,
    layer: ContextLayer,
}

impl<S, B, R> Service<Request<B>> for ContextService<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (request, mut scope) = self.layer.begin(request);
        let handler = if scope.deadline.has_passed() {
            None
        } else {
            Some(scope.guard.run(|| self.inner.call(request)))
        };
        ResponseFuture {
            scope: Some(scope),
            handler,
        }
    }
}

pin_project! {
    /// The response future of a [`ContextService`].
    ///
    /// If it is dropped before it is ready, the request's context is cancelled with
    /// [`ClientGone`](super::ClientGone).
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct ResponseFuture<F> {
        // None when the future is ready. Declared before the handler, and so dropped first: the
        // context is done when the handler's destructors run.
        scope: Option<Scope>,
        // None if the deadline had passed on arrival.
        #[pin]
        handler: Option<F>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.handler.is_none() {
            ready!(scope::poll_budget(cx));
        }
        let Some(mut scope) = this.scope.take() else {
            panic!("`ResponseFuture` polled after it resolved");
        };
        // The clock is read before and after the poll of the handler. A response that is ready at
        // the deadline is too late. Most often it is the handler's own report of the same deadline,
        // and which of the two a client received would be left to chance.
        let mut answer = None;
        if let (Some(handler), false) = (
            this.handler.as_mut().as_pin_mut(),
            scope.deadline.has_passed(),
        ) {
            match scope.guard.run(|| handler.poll(cx)) {
                Poll::Ready(ready) => answer = Some(ready),
                Poll::Pending if scope.deadline.poll(cx).is_pending() => {
                    *this.scope = Some(scope);
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
        }
        Poll::Ready(match answer {
            Some(Ok(response)) if !scope.deadline.has_passed() => Ok(scope.respond(response)),
            Some(Err(error)) if !scope.deadline.has_passed() => {
                scope.guard.fail(&HANDLER_FAILED);
                Err(error)
            }
            _ => {
                scope.expire();
                this.handler.set(None);
                Ok(scope.timed_out())
            }
        })
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
