//! The main function of a service: it serves until SIGTERM or Ctrl-C. Then it lets requests finish,
//! cancels the ones that take too long, and aborts what ignores that, all within 15 seconds.
//!
//! ```sh
//! cargo run -p servers --example axum_service 127.0.0.1:8080
//! ```

use std::env;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use errgroup::tower::ContextLayer;
use errgroup::{Context, ContextError, Group, Spawner};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// How long requests may go on after the signal.
const FINISH: Duration = Duration::from_secs(10);
/// How long a handler may clean up after its context was cancelled.
const GRACE: Duration = Duration::from_secs(4);
/// How long the last responses may take on their way to the clients.
const FLUSH: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let signal = Context::background().with_shutdown_signals()?;
    let (server, stop) = Context::background().with_cancel();
    let (sockets, _) = Group::<anyhow::Error>::with_context(&signal);
    sockets.set_grace(GRACE);
    let layer = ContextLayer::new(&server)
        .max_timeout(Duration::from_secs(30))
        .grace(GRACE);
    let handlers = layer.handlers();
    let app = Router::new()
        .route("/", get(hello))
        .route("/ws", get(chat))
        .with_state(sockets.spawner())
        .layer(layer);

    let address = env::args().nth(1).context("usage: axum_service ADDRESS")?;
    let listener = TcpListener::bind(address).await?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    let end = signal.done_owned();
    let serve = axum::serve(listener, app).with_graceful_shutdown(async { drop(end.await) });
    let budget = async {
        signal.done().await;
        sleep(FINISH).await;
        stop.cancel_with("the server shuts down");
        sleep(GRACE + FLUSH).await;
    };
    tokio::select! {
        served = serve => served?, // every connection is closed
        () = budget => {}
    }

    // Waits for the handlers whose clients have disconnected.
    for request in handlers.wait().await.aborted() {
        eprintln!("aborted: {request}");
    }
    sockets.wait().await
}

async fn hello(ctx: Context) -> Result<&'static str, ContextError> {
    ctx.run(sleep(Duration::from_secs(2))).await?;
    Ok("hello\n")
}

/// The context of the request ends with its response. A connection that outlives it belongs to a
/// group of the server.
async fn chat(
    upgrade: WebSocketUpgrade,
    State(sockets): State<Spawner<anyhow::Error>>,
) -> Response {
    upgrade.on_upgrade(async move |socket| {
        let connection = async move |ctx| {
            if let Err(error) = echo(ctx, socket).await {
                eprintln!("web socket: {error:#}"); // an `Err` would cancel the other sockets
            }
            Ok(())
        };
        sockets.go_with(connection).await;
    })
}

async fn echo(ctx: Context, mut socket: WebSocket) -> anyhow::Result<()> {
    while let Ok(Some(message)) = ctx.run(socket.recv()).await {
        socket.send(message?).await?;
    }
    Ok(socket.send(Message::Close(None)).await?)
}
