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

/// Gives each request of a server a [`Context`], which ends when nobody waits for the answer any more.
///
/// The context is a child of the server's, and is in the request's extensions: `request.extensions().get::<Context>()`, in
/// hyper, axum and tonic alike; with feature `axum`, `Context` is an extractor. It ends
///
/// - when the client has gone: the response future or the response's body was dropped before its end, or the request's
///   body broke off. Its cause is then [`ClientGone`](super::ClientGone);
/// - when its deadline has passed: the handler is dropped, and the client is told;
/// - when the server's context ends, with the cause of that. The handler is asked to stop, and not dropped;
/// - when the request has been answered whole, with [`RequestFinished`](super::RequestFinished): what was started with the
///   context stops then too. What is to outlive the request takes
///   [`without_cancel`](Context::without_cancel).
///
/// The first of these wins, but at or after the deadline it is always the deadline.
///
/// # The deadline
///
/// The earliest of: now and what the request's headers allow, now and [`max_timeout`](ContextLayer::max_timeout), the
/// deadline of the server's context. It holds to the end of the response's *body*. When it passes before there is a response, the
/// handler is dropped, and the answer is 504, or `grpc-status: 4` for a request whose content type is `application/grpc*`;
/// whatever the handler may have answered at that moment is discarded. When it passes in the middle of the body, see
/// [`ResponseBody`]. A request whose time is up on arrival does not reach the handler. Where a request with a deadline has
/// to wait, it takes a timer, and so a tokio runtime that has one.
///
/// # Where to put it
///
/// Outside of what may answer late, so that it sees the request first and the response last. A layer further out that drops the
/// response future on its own account (a timeout) looks to it like a client that went, and so does one that fails the
/// request's body (a size limit): put these inside.
///
/// It can be used again further in, for a route that has less time. A request that has a context in its extensions already gets
/// one below that, which ends with the server's too.
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
    /// `grpc-timeout`, and what was added.
    headers: Vec<HeaderName>,
    carried: Vec<HeaderName>,
}

impl ContextLayer {
    /// A layer that derives the contexts of requests from `ctx`: the server's, which ends when the server is to stop.
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

    /// Gives every request at most this long: a cap on what it asks for, and the time of one that asks for nothing.
    ///
    /// Without it, a client may ask for as long as it likes, and one that asks for nothing has no deadline. A server that
    /// anybody can reach wants one.
    #[must_use]
    pub fn max_timeout(mut self, timeout: Duration) -> ContextLayer {
        Arc::make_mut(&mut self.config).max_timeout = Some(timeout);
        self
    }

    /// Reads the time that a request allows from this header too, besides `grpc-timeout`. May be called more than once; of
    /// several times, the shortest holds.
    ///
    /// A value is a decimal number with an optional unit (`ns`, `us`, `ms`, `s`, `m`, `h`): `250ms`, `2s`, `1.5`. A
    /// bare number is in seconds, or in milliseconds if the header's name ends in `-ms`, as `connect-timeout-ms` and
    /// `x-envoy-expected-rq-timeout-ms` do. It is the time that is *left*, not a time of day. Zero is an end on arrival.
    ///
    /// What does not have this form is ignored, as if the header were not there: a sign, an exponent, blanks, another unit.
    /// A number beyond what a [`Duration`] holds stands for the longest. `grpc-timeout` is read as gRPC has it, one to
    /// eight digits and one of `H M S m u n`; anything else is ignored.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> ContextLayer {
        Arc::make_mut(&mut self.config).headers.push(name);
        self
    }

    /// Carries this header of a request in its context, as [`Carried`], from where
    /// [`PropagateLayer`](super::PropagateLayer) puts it on the calls that are made for the request.
    ///
    /// `traceparent`, `tracestate` and `baggage` are carried in any case; this is for one more, `x-request-id` say.
    #[must_use]
    pub fn carry(mut self, name: HeaderName) -> ContextLayer {
        let carried = &mut Arc::make_mut(&mut self.config).carried;
        if !carried.contains(&name) {
            carried.push(name);
        }
        self
    }

    /// The server's context.
    pub(super) fn server(&self) -> &Context {
        &self.server
    }

    pub(super) fn with_server(mut self, ctx: Context) -> ContextLayer {
        self.server = ctx;
        self
    }

    /// What begins with the arrival of a request.
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

    fn timeout(&self, headers: &http::HeaderMap) -> Option<(Duration, Cause)> {
        let asked = header::timeout(headers, &self.config.headers);
        match (asked, self.config.max_timeout) {
            (Some(asked), Some(max)) if max < asked => {
                Some((max, Cause::note(&TIME_OF_SERVER_PASSED)))
            }
            (Some(asked), _) => Some((asked, Cause::note(&TIME_OF_CLIENT_PASSED))),
            (None, Some(max)) => Some((max, Cause::note(&TIME_OF_SERVER_PASSED))),
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

/// A service whose requests have a context: what a [`ContextLayer`] makes of `S`.
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
        let handler = match scope.deadline.has_passed() {
            true => None,
            false => Some(scope.guard.run(|| self.inner.call(request))),
        };
        ResponseFuture {
            scope: Some(scope),
            handler,
        }
    }
}

pin_project! {
    /// The response of a [`ContextService`].
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct ResponseFuture<F> {
        // None once it has resolved. Before the handler, so that the context has ended by the time that is dropped.
        scope: Option<Scope>,
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
        // The clock before the handler and after it: an answer that comes at the deadline comes too late, and is mostly the
        // handler's own account of the same deadline.
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
