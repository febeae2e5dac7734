//! An HTTP server that works for two seconds on a request, and stops this work when the client
//! disconnects, at a deadline, and when the server stops. HTTP/1.1 and HTTP/2 on one port.
//!
//! ```sh
//! cargo run -p servers --example http_server -- --port 8080
//!
//! curl http://127.0.0.1:8080/                  # request processed
//! curl --max-time 1 http://127.0.0.1:8080/     # request cancelled: client disconnected
//! curl --max-time 1 --http2-prior-knowledge http://127.0.0.1:8080/
//! curl -i -H 'x-request-timeout: 500ms' http://127.0.0.1:8080/     # 504; request out of time
//! curl -i -H 'grpc-timeout: 500m' http://127.0.0.1:8080/
//! curl --max-time 1 http://127.0.0.1:8080/rows # disconnects in the middle of the body
//! curl http://127.0.0.1:8080/alive             # how many pieces of work are alive
//! ```
//!
//! With `--naive` it is the same server without the layer. After a disconnect, hyper drops the
//! handler at its await, and the tasks that it has spawned continue. The headers have no effect.
//!
//! The layer is in `handlers.rs`, and the work in `work.rs`. `server.rs` accepts connections, and
//! `client.rs` is a client for systems without curl.

mod client;
mod handlers;
mod naive;
mod server;
mod work;

use std::fmt;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::{HeaderName, Uri};
use clap::Parser;
use errgroup::Context;
use errgroup::tower::ContextLayer;
use tokio::net::TcpListener;

use work::Site;

/// The most that a request may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a handler may go on when it has been asked to stop.
const GRACE: Duration = Duration::from_secs(1);

/// A server that stops the work of requests that no client waits for.
#[derive(clap::Parser)]
struct Cli {
    /// Where to listen, on 127.0.0.1; with 0 the system chooses
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,

    /// How long the work for a request takes
    #[arg(long, value_name = "N", default_value_t = 2)]
    seconds: u64,

    /// The header in which a client says how much time there is, besides grpc-timeout
    #[arg(long, value_name = "NAME", default_value = "x-request-timeout")]
    timeout_header: HeaderName,

    /// Leave out the layer
    #[arg(long)]
    naive: bool,

    /// Be a client instead: ask for this, and print the status of the answer
    #[arg(long, value_name = "URL")]
    get: Option<Uri>,

    /// As a client: HTTP/2 with prior knowledge
    #[arg(long, requires = "get")]
    http2: bool,

    /// As a client: a header to send, as `name: value`
    #[arg(long, value_name = "HEADER", requires = "get")]
    header: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let Some(uri) = cli.get {
        let status = client::get(uri, cli.http2, cli.header.as_deref()).await?;
        writeln!(io::stdout(), "{}", status.as_u16())?;
        return Ok(());
    }

    let ctx = Context::background().with_shutdown_signals()?;
    let site = Site::new(Duration::from_secs(cli.seconds));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, cli.port))
        .await
        .with_context(|| format!("cannot listen on port {}", cli.port))?;
    say(format_args!("listening on {}", listener.local_addr()?));
    if cli.naive {
        return server::serve(&ctx, listener, naive::routes(site)).await;
    }

    let layer = ContextLayer::new(&ctx)
        .header(cli.timeout_header)
        .max_timeout(MAX_TIMEOUT)
        .grace(GRACE);
    let handlers = layer.handlers();
    server::serve(&ctx, listener, handlers::routes(site, layer)).await?;
    for request in handlers.wait().await.aborted() {
        say(format_args!("aborted: {request}"));
    }
    Ok(())
}

/// Prints a line. It is not an error if standard output is closed.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}
