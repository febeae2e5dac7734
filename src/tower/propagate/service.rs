//! The service. It sends a call with its context, or refuses the call if no time is left.

use std::task::{self, Poll};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::body::CallBody;
use super::future::CallFuture;
use super::layer::PropagateLayer;
use crate::context::RunOwned;
use crate::tower::error::BoxError;
use crate::tower::protocol::Protocol;

impl<S> Layer<S> for PropagateLayer {
    type Service = PropagateService<S>;

    fn layer(&self, inner: S) -> PropagateService<S> {
        PropagateService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that a [`PropagateLayer`] returns: `S`, with calls that are part of a context.
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
        let protocol = Protocol::of(request.headers());
        match self.layer.prepare(&ctx, &mut request) {
            Ok(until) => {
                let call = RunOwned::new(ctx.clone(), self.inner.call(request));
                CallFuture::sent(call, until, ctx, protocol)
            }
            Err(error) => CallFuture::refused(error, ctx, protocol),
        }
    }
}
