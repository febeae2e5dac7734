//! The response futures of the server's service.

mod dropping;
mod lingering;

pub use dropping::DroppingFuture;
pub use lingering::ResponseFuture;
