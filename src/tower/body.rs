//! The bodies of a request and of its response. They detect that the client has disconnected, and
//! that the response is complete.

mod request;
mod response;

pub use request::RequestBody;
pub use response::ResponseBody;
