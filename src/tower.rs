//! A [`Context`](crate::Context) for each request of a server, and its deadline on each call that is made for it. Feature
//! `tower`.
//!
//! Tokio's servers drop a handler when its client goes: at whatever await it stands, without a reason, and without stopping what it
//! has spawned. With [`ContextLayer`] a request has a scope: a context that ends when nobody waits for the answer any more, says
//! why, and ends what was started with it. With [`PropagateLayer`] the calls that the handler makes are part of that scope, and so are
//! the servers behind them. Both are tower layers on `http`'s types, and know nothing of hyper, axum, tonic or reqwest, which all
//! take them.
//!
//! ```text
//!     client            hyper                   ContextLayer                    handler
//!       │                 │                          │                             │
//!       ├── request ─────►├─── call ────────────────►│ a child of the server's     │
//!       │                 │                          │ context; its deadline ─────►│
//!       ├── body ────────►├─── RequestBody ──────────┼────────────────────────────►│
//!       │                 │    it breaks off: GONE   │                             │ calls, groups, tasks:
//!       │                 ├─── ResponseFuture ───────┤◄──────────── response ──────┤ all with the context
//!       │                 │    dropped: GONE         │ the deadline: LATE, 504     │
//!       │◄── headers ─────┤                          │                             │
//!       │◄── body ────────┤◄── ResponseBody ─────────┤                             │
//!       │                 │    dropped half-way: GONE│ the deadline: LATE          │
//!       │                 │    at its end: FINISHED  │                             │
//!
//!     GONE       context cancelled: client disconnected                 ClientGone
//!     LATE       context deadline exceeded                              is_deadline_exceeded()
//!     FINISHED   context cancelled: the request is finished             RequestFinished
//!     and at any time, when the server's context ends, as that did; the first end wins
//! ```
//!
//! # What a drop stops, and what the context does
//!
//! | when the client goes | without the layer | with it |
//! |---|---|---|
//! | the handler's own awaits | dropped, with what they own | the same; [`detached`](ContextLayer::detached): asked, with a grace |
//! | calls to other servers, made in the handler | dropped; over HTTP the server there sees its client go | the same |
//! | what was spawned with `tokio::spawn` | runs on, for nobody | is told, through the context that it was given |
//! | a [`Group`](crate::Group) under the context | aborted, when it is dropped in the handler | told first, and why |
//! | a blocking closure, a statement in a database, a child process | runs on | is told: [`after_func`](crate::Context::after_func) interrupts it |
//! | who asks why | nobody can say | [`cause`](crate::Context::cause) |
//!
//! # What a server cannot see
//!
//! That the client has gone is what the server sees of its connection, and it does not see all:
//!
//! - on HTTP/1.1, behind a request body of 64 kB or more that the handler has not read, and behind a second request that was sent before
//!   the first was answered: hyper reads no further, and so not to the end of the connection. Read or collect the body first;
//!   on HTTP/2 there are no such gaps;
//! - a peer that is silent without having closed: a stopped process, a cable that was pulled. Only keep-alive pings find that
//!   out, which are hyper-util's and tonic's to set and not axum's `serve`;
//! - a handler that blocks its thread is dropped at its next await;
//! - a client that does not read: a body that waits to be *sent* is not asked for its next frame, and so is not cut at the deadline
//!   but when the client goes on. Its context has ended on time.
//!
//! And a client that closes its half of an HTTP/1.1 connection and reads on (`shutdown(SHUT_WR)`) counts as gone, unless hyper's
//! `half_close` is set, which switches the detection off.
//!
//! After an upgrade (a WebSocket) the request is finished and its context has ended: what goes on from there takes a child of the
//! server's.
//!
//! # What else is where
//!
//! - A deadline, or the server's end, seen by the handler itself: [`status_of`] and [`grpc_code_of`] make an answer of the error.
//! - Handlers that must not be dropped: [`ContextLayer::detached`].
//! - reqwest, tonic and hyper-util clients: [`PropagateLayer`].
//! - axum: with feature `axum`, [`Context`](crate::Context) is an extractor, and
//!   [`ContextError`](crate::ContextError) a response.
//! - tonic: `Server::builder().layer(ContextLayer::new(&ctx))`, and `request.extensions().get::<Context>()` in the handler. A
//!   stream that the client cancelled ends there with `Ok(None)`, as if it were whole; `ClientGone::ended(&ctx)` tells.

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
