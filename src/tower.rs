//! A [`Context`](crate::Context) for each request of a server, and its deadline on each call that
//! is made for it. Feature `tower`.
//!
//! When a client disconnects, tokio's servers drop its handler at whichever await it has reached.
//! The handler is not given a reason, and the tasks that it has spawned keep running. With
//! [`ContextLayer`], each request has a context of its own. It is cancelled when nothing waits for
//! the response any more, it carries the reason, and it cancels everything that was started with
//! it. With [`PropagateLayer`], the calls that the handler makes belong to that context: they carry
//! its deadline to the next server, and are dropped when the context is done. Both are tower layers
//! on the types of the `http` crate. They do not depend on hyper, axum, tonic or reqwest, and they
//! work with each of them.
//!
//! ```text
//!     client            hyper                   ContextLayer                    handler
//!       │                 │                          │                             │
//!       ├── request ─────►├─── call ────────────────►│ a child of the server's     │
//!       │                 │                          │ context; its deadline ─────►│
//!       ├── body ────────►├─── RequestBody ──────────┼────────────────────────────►│
//!       │                 │    fails: GONE           │                             │ calls, tasks,
//!       │                 ├─── ResponseFuture ───────┤◄──────────── response ──────┤ groups with
//!       │                 │    dropped: GONE         │ deadline: LATE, 504         │ the context
//!       │◄── headers ─────┤                          │                             │
//!       │◄── body ────────┤◄── ResponseBody ─────────┤                             │
//!       │                 │    dropped early: GONE   │ deadline: LATE              │
//!       │                 │    complete: FINISHED    │                             │
//!
//!     GONE       context cancelled: client disconnected        its cause is ClientGone
//!     LATE       context deadline exceeded                     is_deadline_exceeded() is true
//!     FINISHED   context cancelled: the request is finished    its cause is RequestFinished
//! ```
//!
//! When the server's context is done, the request's context is done too, with the same kind and
//! cause. The first of these events decides, and the later ones change nothing.
//!
//! # What happens when the client disconnects
//!
//! | | without the layer | with the layer |
//! |---|---|---|
//! | the handler | dropped at its await | the same; [`detached`]: cancelled, with a grace period |
//! | calls to other servers | dropped; over HTTP, that server sees a disconnect | the same |
//! | tasks of `tokio::spawn` | keep running | cancelled, if they were given the context |
//! | a [`Group`](crate::Group) under the context | aborted when it is dropped | cancelled first |
//! | closures that block, SQL, child processes | keep running | interrupted with [`after_func`] |
//! | the reason | not available | [`cause`](crate::Context::cause) |
//!
//! [`detached`]: ContextLayer::detached
//! [`after_func`]: crate::Context::after_func
//!
//! # What a server cannot detect
//!
//! A server learns of a disconnect only from its connection. It does not detect these cases:
//!
//! - HTTP/1.1, while a request body of 64 kB or more has not been read by the handler, or while a
//!   second request that was sent before the first was answered is waiting. hyper stops reading
//!   then, so it does not reach the end of the connection. Read or collect the body first. HTTP/2
//!   does not have this problem.
//! - A peer that is silent but has not closed the connection: a stopped process, or a cable that
//!   was pulled. Only keep-alive pings detect that. They are set in hyper-util and in tonic; axum's
//!   `serve` has no setting for them.
//! - A handler that blocks its thread. It is dropped at its next await.
//! - A client that does not read. A body that waits to be *sent* is not polled for its next frame,
//!   so it is not cut off at the deadline but when the client reads again. Its context is done on
//!   time.
//!
//! A client that closes its half of an HTTP/1.1 connection and still reads (`shutdown(SHUT_WR)`)
//! counts as disconnected. hyper's setting `half_close` changes that, but it turns the detection
//! off.
//!
//! After an upgrade (a WebSocket, for instance) the request is finished and its context is
//! cancelled. Derive a child of the server's context for what runs on the upgraded connection.
//!
//! # Related items
//!
//! - A handler that observes the deadline or the server's shutdown itself: [`status_of`] and
//!   [`grpc_code_of`] convert the error into a status.
//! - Handlers that must not be dropped: [`ContextLayer::detached`].
//! - Clients of reqwest, tonic and hyper-util: [`PropagateLayer`].
//! - axum: with feature `axum`, [`Context`](crate::Context) is an extractor, and
//!   [`ContextError`](crate::ContextError) is a response.
//! - tonic: use `Server::builder().layer(ContextLayer::new(&ctx))`, and
//!   `request.extensions().get::<Context>()` in the handler. When the client cancels a stream,
//!   tonic returns `Ok(None)`, the same as at a normal end. `ClientGone::ended(&ctx)` tells them
//!   apart.

#[cfg(feature = "axum")]
mod axum;
mod body;
mod carried;
mod cause;
mod detached;
mod error;
mod header;
mod layer;
mod propagate;
mod protocol;
mod respond;
mod scope;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use axum::MissingContext;
pub use body::{RequestBody, ResponseBody};
pub use carried::Carried;
pub use cause::{ClientGone, RequestFinished, grpc_code_of, status_of};
pub use detached::{Aborted, DetachedFuture, DetachedLayer, DetachedService, Drained, Handlers};
pub use error::BoxError;
pub use layer::{ContextLayer, ContextService, ResponseFuture};
pub use propagate::{CallBody, CallFuture, PropagateLayer, PropagateService};
