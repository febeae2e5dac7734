//! Accepting, and HTTP/1.1 and HTTP/2 on what was accepted.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use errgroup::{Context, Group};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use crate::GRACE;

/// How often an HTTP/2 client gets a ping: a client that was stopped does not close its connection.
const PING: Duration = Duration::from_secs(2);

/// How long it may take to say so.
const PONG: Duration = Duration::from_secs(4);

/// Serves until the context is done. Then it waits for the connections, for twice the time that
/// handlers have.
pub(crate) async fn serve(ctx: &Context, listener: TcpListener, app: Router) -> anyhow::Result<()> {
    let (g, ctx) = Group::<io::Error>::with_context(ctx);
    g.set_grace(GRACE * 2);
    while let Ok(accepted) = ctx.run(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(ctx.clone(), stream, app.clone());
                g.named(format!("connection of {peer}")).go(connection);
            }
            // A client that disconnected again, or too many open files: this is temporary.
            Err(error) => {
                eprintln!("cannot accept: {error}");
                drop(ctx.sleep(Duration::from_millis(100)).await);
            }
        }
    }
    drop(listener);
    if let Err(errors) = g.wait_all().await {
        for error in &errors {
            eprintln!("{error}");
        }
    }
    Ok(())
}

/// A disconnect is not a failure of the server. The context of the request has it as its cause.
async fn connection(ctx: Context, stream: TcpStream, app: Router) -> io::Result<()> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    let service = TowerToHyperService::new(app);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    if ctx.run(connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        drop(connection.await);
    }
    Ok(())
}
