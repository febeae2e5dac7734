//! A [`Context`](crate::Context) for each request of a server, and its deadline on each call that
//! is made for it. Feature `tower`.
//!
//! When a client disconnects, tokio's servers drop its handler at whichever await it has reached.
//! The handler is not given a reason, and the tasks that it has spawned keep running. With
//! [`ContextLayer`], each request has a context of its own, as in Go. It is cancelled when nothing
//! waits for the response any more, it carries the reason, and it cancels everything that was
//! started with it. The handler runs on, sees that its context is done, and cleans up. With
//! [`PropagateLayer`], the calls that the handler makes belong to that context: they carry
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
//! | the handler | dropped at its await | runs on; its context is cancelled; a [`grace`] period |
//! | calls to other servers | dropped; over HTTP, that server sees a disconnect | stopped by it |
//! | tasks of `tokio::spawn` | keep running | cancelled, if they were given the context |
//! | a [`Group`](crate::Group) under the context | aborted when it is dropped | cancelled first |
//! | closures that block, SQL, child processes | keep running | interrupted with [`after_func`] |
//! | the reason | not available | [`cause`](crate::Context::cause) |
//!
//! With [`drop_on_disconnect`], the handler is dropped as without the layer, after its context was
//! cancelled.
//!
//! [`grace`]: ContextLayer::grace
//! [`drop_on_disconnect`]: ContextLayer::drop_on_disconnect
//! [`after_func`]: crate::Context::after_func
//!
//! # What a server cannot detect
//!
//! A server learns of a disconnect only from its connection. It does not detect these cases:
//!
//! - HTTP/1.1, while the connection holds bytes that hyper does not read. hyper stops reading
//!   then, so it does not reach the end of the connection. These bytes are
//!   - a request body that is not complete and that the handler does not read, of any length;
//!   - a complete one from about 40 kB, which no longer fits into hyper's buffer;
//!   - a second request that was sent before the first was answered, or anything else behind the
//!     request, even a stray line break.
//!
//!   Read or collect the body first. HTTP/2 does not have this problem.
//! - A peer that is silent but has not closed the connection: a stopped process, or a cable that
//!   was pulled. Only keep-alive pings detect that. They are set in hyper-util and in tonic; axum's
//!   `serve` has no setting for them.
//! - A handler that blocks its thread. It learns of a disconnect at its next await.
//! - A client that does not read. A body that waits to be *sent* is not polled for its next frame,
//!   so it is not cut off at the deadline but when the client reads again. Its context is done on
//!   time.
//! - An HTTP/2 upload without a `content-length` that the client resets with the code `NO_ERROR`.
//!   hyper reports that as the end of the body.
//!
//! A client that closes its half of an HTTP/1.1 connection and still reads (`shutdown(SHUT_WR)`)
//! counts as disconnected. hyper's setting `half_close` changes that, but it turns the detection
//! off.
//!
//! # Upgrades: WebSocket and CONNECT
//!
//! The request is finished when the response to an upgrade (101, or 200 to CONNECT) is handed to
//! the server, and its context is cancelled then. What runs on the upgraded connection needs a
//! context of its own: derive a child of the server's context, in the handler, and give it to the
//! task. `ctx.without_cancel().merge(&server)` keeps the values of the request, and is done when
//! the server stops:
//!
//! ```
//! use errgroup::Context;
//!
//! # async fn talk(_: Context) {}
//! async fn upgrade(ctx: Context, server: Context) {
//!     let connection = ctx.without_cancel().merge(&server);
//!     tokio::spawn(talk(connection));
//! }
//! ```
//!
//! [`Handlers::wait`] does not wait for such a task. Start it in a [`Group`](crate::Group) that the
//! shutdown waits for.
//!
//! # Events
//!
//! With feature `tracing`, these events have the target `errgroup`, the fields `method` and `path`,
//! and the span of the request, which is the span in which the layer's service was called:
//!
//! | event | level | when |
//! |---|---|---|
//! | `client disconnected` | debug | the response future or the response's body was dropped early |
//! | `request timed out` | info | the deadline has passed, before or during the response |
//! | `handler aborted` | warn | a handler was dropped half-way, with `elapsed` and `reason` |
//! | `handler panicked` | error | a handler panicked without its client, with `panic` |
//!
//! # Related items
//!
//! - A handler that observes the deadline or the server's shutdown itself: [`status_of`] and
//!   [`grpc_code_of`] convert the error into a status.
//! - Uploads: [`RequestBody`] says how to tell a complete one.
//! - Clients of reqwest, tonic and hyper-util: [`PropagateLayer`].
//! - axum: with feature `axum`, [`Context`](crate::Context) is an extractor, and
//!   [`ContextError`](crate::ContextError) is a response.
//! - tonic: use `Server::builder().layer(ContextLayer::new(&ctx))`, and
//!   `request.extensions().get::<Context>()` in the handler.

#[cfg(feature = "axum")]
mod axum;
mod body;
mod carried;
mod cause;
mod deadline;
mod error;
mod exchange;
mod future;
mod handlers;
mod header;
mod layer;
mod propagate;
mod protocol;
mod request_line;
mod respond;
mod scope;
mod service;
mod wait;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use axum::MissingContext;
pub use body::{RequestBody, ResponseBody};
pub use carried::Carried;
pub use cause::{ClientGone, RequestFinished, grpc_code_of, status_of};
pub use error::BoxError;
pub use future::{DroppingFuture, ResponseFuture};
pub use handlers::Handlers;
pub use layer::{ContextLayer, DropOnDisconnect, Linger};
pub use propagate::{CallBody, CallFuture, PropagateLayer, PropagateService};
pub use service::ContextService;
