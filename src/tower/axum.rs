//! axum: `Context` as an extractor, and `ContextError` as a response. Feature `axum`.

use std::convert::Infallible;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use super::cause::status_of;
use crate::context::Context;
use crate::context::ContextError;

/// Extracts the request's context, which a [`ContextLayer`](crate::tower::ContextLayer) around the
/// router has inserted into the request's extensions.
///
/// # Errors
///
/// [`MissingContext`], if there is no such layer around the router.
///
/// # Examples
///
#[cfg_attr(not(doctest), doc = include_str!("extractor.md"))] // a doctest of tests/http/docs.rs
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = MissingContext;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Context, MissingContext> {
        parts.extensions.get().cloned().ok_or(MissingContext)
    }
}

/// Extracts the request's context, or `None` if no [`ContextLayer`](crate::tower::ContextLayer) is
/// around the router.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<S: Sync> OptionalFromRequestParts<S> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Context>, Infallible> {
        Ok(parts.extensions.get().cloned())
    }
}

/// The rejection of a handler that extracts a [`Context`] when no layer has inserted one. Its
/// status is 500.
///
/// Its text says how to add the layer.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request has no Context: add `.layer(errgroup::tower::ContextLayer::new(&ctx))` \
     to the Router, after its routes"
)]
pub struct MissingContext;

impl IntoResponse for MissingContext {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

/// A response with the status that [`status_of`] returns and the text of the error. It leaves out
/// the cause, which may name internals.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for ContextError {
    fn into_response(self) -> Response {
        (status_of(&self), self.to_string()).into_response()
    }
}
