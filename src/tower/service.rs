//! The server's service: it calls the inner service with a request that has a context.

use std::future::Future;
use std::task::{self, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{RequestBody, ResponseBody};
use super::future::{DroppingFuture, ResponseFuture};
use super::handlers::Answer;
use super::layer::{ContextLayer, DropOnDisconnect, Linger};
use crate::sync::Arc;

impl<S, M> Layer<S> for ContextLayer<M> {
    type Service = ContextService<S, M>;

    fn layer(&self, inner: S) -> ContextService<S, M> {
        ContextService {
            inner,
            layer: Arc::new(self.clone()),
        }
    }
}

/// The service that a [`ContextLayer`] returns: `S`, with a context for each request.
#[derive(Debug)]
pub struct ContextService<S, M = Linger> {
    inner: S,
    /// Shared, because axum clones a service for each request.
    layer: Arc<ContextLayer<M>>,
}

impl<S: Clone, M> Clone for ContextService<S, M> {
    fn clone(&self) -> Self {
        ContextService {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S, B, R, E, F> Service<Request<B>> for ContextService<S, Linger>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>, Error = E, Future = F>,
    F: Future<Output = Result<Response<R>, E>> + Send + 'static,
    B: Body,
    R: Body,
{
    type Response = Response<ResponseBody<R>>;
    type Error = E;
    type Future = ResponseFuture<F>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), E>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let (mut scope, in_flight) = self.layer.arrive(&mut parts);
        let Some(in_flight) = in_flight else {
            return ResponseFuture::refused(scope);
        };
        let body = RequestBody::new(&scope.ctx, body);
        let request = Request::from_parts(parts, body);
        let handler = in_flight.run(&mut scope, || Box::pin(self.inner.call(request)));
        let most = self.layer.most_lingering();
        ResponseFuture::new(scope, handler, Answer::of, in_flight, most)
    }
}

impl<S, B, R> Service<Request<B>> for ContextService<S, DropOnDisconnect>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    B: Body,
    R: Body,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = DroppingFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let (mut scope, in_flight) = self.layer.arrive(&mut parts);
        let Some(in_flight) = in_flight else {
            return DroppingFuture::refused(scope);
        };
        let body = RequestBody::new(&scope.ctx, body);
        let request = Request::from_parts(parts, body);
        let handler = in_flight.run(&mut scope, || self.inner.call(request));
        DroppingFuture::new(scope, handler, in_flight)
    }
}
