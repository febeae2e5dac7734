//! A handler that works for two seconds, and stops when its client disconnects.
//!
//! ```sh
//! cargo run -p servers --example request_cancelled
//! curl localhost:8000 # and press Ctrl-C
//! ```

use axum::{Router, routing::get};
use errgroup::{Context, tower::ContextLayer};
use std::time::Duration;

async fn hello(ctx: Context) -> &'static str {
    eprintln!("processing the request");
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(2)) => "request processed",
        ended = ctx.done() => {
            eprintln!("request stopped: {:#}", anyhow::Error::new(ended));
            ""
        }
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let server = Context::background();
    let app = Router::new()
        .route("/", get(hello))
        .layer(ContextLayer::new(&server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    axum::serve(listener, app).await
}
