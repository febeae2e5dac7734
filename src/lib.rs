//! errgroup
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod context;
mod error;
mod fan_out;
mod group;
mod panic;
mod sync;

pub use context::{AfterFunc, CancelGuard, CancelHandle, Cause, Context, Done, DoneOwned, Run};
pub use error::{ContextError, TryGoError};
pub use fan_out::fetch_all;
pub use group::{Admission, Admitted, Group, Spawner};
