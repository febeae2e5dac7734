//! What is running now, as a tree: groups, scopes, fan-outs and their tasks.
//!
//! The question of each shutdown that hangs is which task does not stop, since when, and where it
//! was started. With feature `inspect`, [`snapshot`] answers it:
//!
//! ```
//! # #[cfg(feature = "inspect")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use errgroup::{Context, Group, inspect};
//!
//! let (g, ctx) = Group::<std::io::Error>::with_context(Context::background());
//! g.set_name("ingest");
//! g.named("deaf").go(async {
//!     inspect::waiting("the printer", std::future::pending::<()>()).await;
//!     Ok(())
//! });
//! tokio::task::yield_now().await;
//! g.cancel_with("shutting down");
//!
//! let snapshot = inspect::snapshot();
//! let text = snapshot.to_string();
//! assert!(text.contains(r#"group "ingest""#));
//! assert!(text.contains("shutting down"));
//! assert!(text.contains(r#"waits for "the printer""#));
//! let stragglers = snapshot.stragglers();
//! assert_eq!(stragglers[0].task.name.as_deref(), Some("deaf"));
//! # }
//! # #[cfg(not(feature = "inspect"))]
//! # fn main() {}
//! ```
//!
//! A group that is made inside a task of another group, scope or fan-out is shown below that task.
//!
//! A snapshot shows one moment. [`record`] keeps what has happened since, as a timeline.
//!
//! # What it costs
//!
//! Without the feature, nothing: [`waiting`] is its future, and the rest does not exist. With it, a
//! task has an entry of 64 bytes in a table, which is written when the task is submitted, when it
//! starts and when it ends. No future is polled to look at it. A snapshot takes the lock of one
//! table or of one group at a time, so it can be taken while the program is stuck. Without a
//! [`Recorder`], an event costs one load of a static more.
//!
//! # Safety of the pages
//!
//! A snapshot and a timeline contain the names of tasks, the causes of cancellations and paths of
//! source files. Do not serve them on a public port: bind them to loopback, or put them behind the
//! authentication of your administrators.

#[cfg(feature = "inspect")]
mod chrome;
#[cfg(feature = "inspect")]
mod html;
#[cfg(feature = "inspect")]
mod read;
#[cfg(feature = "inspect")]
mod record;
#[cfg(feature = "inspect")]
mod snapshot;
#[cfg(feature = "inspect")]
mod suspects;
#[cfg(feature = "inspect")]
mod text;
#[cfg(feature = "inspect")]
mod timeline;
mod waiting;
#[cfg(feature = "inspect")]
mod warn;

pub use waiting::{Waiting, waiting};
#[cfg(feature = "inspect")]
pub(crate) use warn::warn_stragglers;

#[cfg(feature = "inspect")]
#[cfg_attr(docsrs, doc(cfg(feature = "inspect")))]
pub use self::{
    read::{snapshot, task_id},
    record::{Recorder, record},
    snapshot::{
        EndSnapshot, GroupKind, GroupSnapshot, Snapshot, Straggler, TaskId, TaskKind, TaskSnapshot,
        TaskState, WaitSnapshot,
    },
    suspects::{Suspect, SuspectKind},
};
