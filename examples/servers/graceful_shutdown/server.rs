//! The server: one task accepts, and starts one for each connection, in which its handlers run.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use errgroup::tower::{ContextLayer, Handlers};
use errgroup::{Context, ContextError, Group, Ready, Spawner};
use futures::FutureExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::LAST_CALL;

/// How long a connection stays open after the signal. Its responses say that they are the last
/// ones. On a graceful shutdown, hyper at once closes a connection that is idle, whose client may
/// be about to send the next request, and one that is new, whose request may have arrived and has
/// not been read.
const LINGER: Duration = Duration::from_secs(1);

/// What `/job` and `/quick` answer: enough to be cut off in the middle.
pub(crate) const ANSWER: &[u8] = &[b'.'; 32 * 1024];

/// More than the system takes in for a client that does not read.
const FLOOD: usize = 64 * 1024 * 1024;

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    /// What the shutdown waits for the handlers with.
    pub(crate) handlers: Handlers,
    /// How many requests have come to a handler, or would have.
    pub(crate) accepted: Arc<watch::Sender<usize>>,
}

/// Starts the server in `g`. It begins to stop when `stopping` is done. `ctx` cancels the handlers.
pub(crate) async fn start(
    g: &Group<io::Error>,
    ctx: &Context,
    stopping: &Context,
    listen: SocketAddr,
) -> io::Result<Server> {
    let layer = ContextLayer::new(ctx).grace(LAST_CALL);
    let handlers = layer.handlers();
    let accepted = Arc::new(watch::Sender::new(0));
    let gate = Gate {
        stopping: stopping.clone(),
        accepted: Arc::clone(&accepted),
    };
    let app = Router::new()
        .route("/job", get(job))
        .route("/quick", get(async || ANSWER))
        .route("/slow", get(slow))
        .route("/forever", get(forever))
        .route("/flood", get(flood))
        .layer(layer)
        .layer(middleware::from_fn_with_state(gate.clone(), pass))
        .route("/accepted", get(count))
        .with_state(gate);

    let (stopping, spawner) = (stopping.clone(), g.spawner());
    let addr = g
        .named("accept")
        .start(move |_, ready| accept(stopping, spawner, listen, app, ready))
        .await?;
    Ok(Server {
        addr,
        handlers,
        accepted,
    })
}

/// Accepts until the server stops. The listener goes with it, so that who comes later is refused.
async fn accept(
    stopping: Context,
    spawner: Spawner<io::Error>,
    listen: SocketAddr,
    app: Router,
    ready: Ready<SocketAddr>,
) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    ready.ok(listener.local_addr()?);
    let mut number = 0;
    let mut welcome = |(stream, peer): (TcpStream, SocketAddr)| {
        number += 1;
        spawner
            .named(format!("connection {number} of {peer}"))
            .go(connection(stopping.clone(), stream, app.clone()));
    };
    while let Ok(accepted) = stopping.run(listener.accept()).await {
        match accepted {
            Ok(accepted) => welcome(accepted),
            // A client that disconnected again, or too many open files: this is temporary.
            Err(error) => {
                eprintln!("cannot accept: {error}");
                drop(stopping.sleep(Duration::from_millis(100)).await);
            }
        }
    }
    // The clients in the queue of the system are connected from their own point of view, and may
    // have sent a request. Tokio sees them only after its driver has run, so this asks the system.
    let listener = listener.into_std()?;
    while let Ok((stream, peer)) = listener.accept() {
        stream.set_nonblocking(true)?;
        welcome((TcpStream::from_std(stream)?, peer));
    }
    Ok(())
}

/// Serves one client. A disconnect is not a failure of the server, and neither is a
/// panic of a handler, which the panic hook has printed.
async fn connection(stopping: Context, stream: TcpStream, app: Router) -> io::Result<()> {
    drop(
        AssertUnwindSafe(serve(stopping, stream, app))
            .catch_unwind()
            .await,
    );
    Ok(())
}

async fn serve(stopping: Context, stream: TcpStream, app: Router) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    let service = TowerToHyperService::new(app);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    if stopping.run(connection.as_mut()).await.is_ok() {
        return;
    }
    if timeout(LINGER, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        drop(connection.await);
    }
}

/// What every request goes through first.
#[derive(Clone)]
struct Gate {
    stopping: Context,
    accepted: Arc<watch::Sender<usize>>,
}

/// Counts the request. If the server stops, it makes the response the last one of its connection.
/// HTTP/2 has GOAWAY for that, and hyper removes the header.
async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    gate.accepted.send_modify(|accepted| *accepted += 1);
    let mut response = next.run(request).await;
    if gate.stopping.is_done() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

async fn count(State(gate): State<Gate>) -> String {
    format!("{} accepted\n", *gate.accepted.borrow())
}

async fn job(ctx: Context) -> Result<&'static [u8], ContextError> {
    ctx.sleep(Duration::from_millis(300)).await?;
    Ok(ANSWER)
}

async fn slow(ctx: Context) -> Result<(), ContextError> {
    ctx.sleep(Duration::from_secs(3600)).await
}

async fn forever() {
    sleep(Duration::from_secs(3600)).await;
}

async fn flood() -> Vec<u8> {
    vec![b'.'; FLOOD]
}
