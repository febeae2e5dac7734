//! A [`Context`](crate::Context) for each request of a server, and its deadline on each call that is made for it. Feature
//! `tower`.

#[cfg(feature = "axum")]
mod axum;
mod body;
mod carried;
mod cause;
mod detached;
mod header;
mod layer;
mod propagate;
mod protocol;
mod scope;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use axum::MissingContext;
pub use body::{BoxError, RequestBody, ResponseBody};
pub use carried::Carried;
pub use cause::{ClientGone, RequestFinished, grpc_code_of, status_of};
pub use detached::{Aborted, DetachedFuture, DetachedLayer, DetachedService, Drained, Handlers};
pub use layer::{ContextLayer, ContextService, ResponseFuture};
pub use propagate::{CallBody, CallFuture, PropagateLayer, PropagateService};
