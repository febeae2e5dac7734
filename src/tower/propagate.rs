//! The client's layer: the time that is left travels with the call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use http::{HeaderName, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::carried::Carried;
use super::cause::NO_TIME_LEFT;
use super::error::BoxError;
use super::header::{self, GRPC_TIMEOUT};
use super::protocol::Protocol;
use super::scope::{GRPC_DEADLINE_EXCEEDED, poll_budget};
use crate::context::ContextError;
use crate::context::{Cause, Context, DoneOwned, RunOwned};
use crate::sync::Arc;

/// Makes the calls of a client part of a [`Context`]: they carry its deadline, and end when it ends.
///
/// The context is the one in the extensions of the request, where a [`ContextLayer`](super::ContextLayer) puts it and a caller
/// can: `request.extensions_mut().insert(ctx)`. A request that has none there takes the one that was given to the layer
/// ([`context`](PropagateLayer::context)); where that is missing too, the call goes through as it is.
///
/// - **The deadline travels.** The time that is left, less the [`margin`](PropagateLayer::margin), is sent as
///   `grpc-timeout`, and in the headers that were [added](PropagateLayer::header). A shorter time that the request has there
///   already stays.
/// - **No time, no call.** If the context has ended or nothing is left, the call fails at once, and nothing is sent.
/// - **The call ends with the context**: it is dropped, which closes the HTTP/1.1 connection or resets the HTTP/2 stream, and
///   the server sees its client go. This holds to the end of the response's body, [`CallBody`].
/// - **The trace travels.** The headers that the context [carries](Carried) (`traceparent`, `tracestate`, `baggage`) are put
///   on the request, unless it has them.
///
/// Where calls are tried again, put it inside the retries: each attempt then says what is left of the time when it is made.
///
/// # Errors
///
/// [`BoxError`]: the inner service's error, or a [`ContextError`]; `error.downcast_ref::<ContextError>()` tells. An error of the
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
    ctx: Option<Context>,
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
    /// It is written as [`ContextLayer::header`](super::ContextLayer::header) reads it: `250ms`, or as a bare number of milliseconds
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
    fn prepare<B>(
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

impl<S> Layer<S> for PropagateLayer {
    type Service = PropagateService<S>;

    fn layer(&self, inner: S) -> PropagateService<S> {
        PropagateService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A client whose calls are part of a context: what a [`PropagateLayer`] makes of `S`.
#[derive(Debug, Clone)]
pub struct PropagateService<S> {
    inner: S,
    layer: PropagateLayer,
}

impl<S, B, R> Service<Request<B>> for PropagateService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<CallBody<R>>;
    type Error = BoxError;
    type Future = CallFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let ctx = request.extensions().get().or(self.layer.ctx.as_ref());
        let ctx = ctx.cloned().unwrap_or_default();
        let protocol = Protocol::of(&request);
        let call = match self.layer.prepare(&ctx, &mut request) {
            Ok(until) => Call::Sent {
                call: RunOwned::new(ctx.clone(), self.inner.call(request)),
                until,
            },
            Err(error) => Call::Refused { error: Some(error) },
        };
        CallFuture {
            call,
            ctx,
            protocol,
        }
    }
}

pin_project! {
    /// The response of a [`PropagateService`].
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct CallFuture<F> {
        #[pin]
        call: Call<F>,
        ctx: Context,
        protocol: Protocol,
    }
}

pin_project! {
    #[project = CallProjection]
    enum Call<F> {
        Sent {
            #[pin]
            call: RunOwned<F>,
            until: Option<Instant>,
        },
        Refused {
            error: Option<ContextError>,
        },
    }
}

impl<F, R, E> Future for CallFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<CallBody<R>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let error = match this.call.project() {
            CallProjection::Sent { call, until } => match ready!(call.poll(cx)) {
                Ok(Ok(response)) => {
                    let protocol = std::mem::replace(this.protocol, Protocol::Http);
                    let over = |inner| CallBody {
                        done: Some(this.ctx.done_owned()),
                        ctx: this.ctx.clone(),
                        protocol,
                        inner: Some(inner),
                    };
                    return Poll::Ready(Ok(response.map(over)));
                }
                // Some clients read the time that they send, and fail by it: tonic's `Channel`, with `Code::Cancelled`.
                Ok(Err(error)) if until.is_some_and(|until| until <= Instant::now()) => {
                    ContextError::deadline_exceeded(Some(Cause::from(error.into())))
                }
                Ok(Err(error)) => return Poll::Ready(Err(error.into())),
                Err(error) => error,
            },
            CallProjection::Refused { error } => {
                ready!(poll_budget(cx));
                match error.take() {
                    Some(error) => error,
                    None => panic!("`CallFuture` polled after it resolved"),
                }
            }
        };
        let (code, message) = grpc_status(&error);
        Poll::Ready(match this.protocol.trailers_only(code, message) {
            Some(response) => Ok(response.map(|()| CallBody {
                done: None,
                ctx: this.ctx.clone(),
                protocol: Protocol::Http,
                inner: None,
            })),
            None => Err(error.into()),
        })
    }
}

/// What ended the call from this side is the caller's own context: 1, where it was not the deadline.
fn grpc_status(error: &ContextError) -> (i32, &'static str) {
    if error.is_deadline_exceeded() {
        return GRPC_DEADLINE_EXCEEDED;
    }
    (1, "context cancelled")
}

impl<F> fmt::Debug for CallFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a response to a call that went through a [`PropagateLayer`].
    ///
    /// It is the inner body, until the context ends: then that is dropped, and this one ends with the [`ContextError`], or
    /// for gRPC with trailers that say `grpc-status: 4` or 1.
    pub struct CallBody<B> {
        // None when it is over.
        done: Option<DoneOwned>,
        ctx: Context,
        protocol: Protocol,
        #[pin]
        inner: Option<B>,
    }
}

impl<B> Body for CallBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        // What is here whole cannot end too early any more.
        if inner.is_end_stream() {
            *this.done = None;
        }
        let Some(done) = this.done else {
            return inner.poll_frame(cx).map_err(Into::into);
        };
        // The context before the body: a stream that always has a next frame would not be ended otherwise.
        let error = match this.ctx.err() {
            Some(error) => error,
            None => match inner.poll_frame(cx) {
                Poll::Ready(frame) => {
                    if !matches!(&frame, Some(Ok(frame)) if !frame.is_trailers()) {
                        *this.done = None;
                    }
                    return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
                }
                Poll::Pending => ready!(Pin::new(done).poll(cx)),
            },
        };
        *this.done = None;
        this.inner.set(None);
        let status = grpc_status(&error);
        Poll::Ready(Some(this.protocol.last_frame(status, error)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B> fmt::Debug for CallBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallBody")
            .field("is_over", &self.done.is_none())
            .finish_non_exhaustive()
    }
}
