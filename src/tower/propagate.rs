//! The client's layer: the time that is left travels with the call.

mod body;
mod future;
mod layer;
mod service;

pub use body::CallBody;
pub use future::CallFuture;
pub use layer::PropagateLayer;
pub use service::PropagateService;
