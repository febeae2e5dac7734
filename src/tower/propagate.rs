//! The client's layer. It sends the deadline of a context with each call, and drops the call when
//! the context is done.

mod body;
mod future;
mod layer;
mod service;

pub use body::CallBody;
pub use future::CallFuture;
pub use layer::PropagateLayer;
pub use service::PropagateService;
