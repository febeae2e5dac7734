//! An HTTP call that has 100 ms, to a server that takes two seconds: the call ends with `context deadline exceeded`, and the
//! server sees the client go.
//!
//! ```sh
//! cargo run --example client_timeout
//! ```
//!
//! It is a check as well: it fails if the call takes more than a second, or if the server works on for nobody.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use errgroup::{Context, Group};
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};

const SLOW: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out = &mut io::stdout();
    let (tell, mut told) = unbounded_channel();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/report", listener.local_addr()?);

    let (g, ctx) = Group::<anyhow::Error>::with_context(Context::background());
    g.go_with(|ctx| async move {
        let app = Router::new()
            .route("/report", get(report))
            .with_state(Arc::new(tell));
        axum::serve(listener, app)
            .with_graceful_shutdown(async move { drop(ctx.done().await) })
            .await?;
        Ok(())
    });

    let client = Client::builder().no_proxy().build()?;
    let start = Instant::now();
    let ctx = ctx.with_timeout(Duration::from_millis(100));
    let Err(error) = fetch(&ctx, &client, &url).await else {
        bail!("the server was to be slow");
    };
    let took = start.elapsed();
    writeln!(out, "client: {error:#}, after {took:.1?}")?;
    ensure!(took < Duration::from_secs(1), "that is late");

    let seen = timeout(SLOW + SLOW, told.recv()).await;
    match seen.context("the server says nothing")? {
        Some(End::ClientGone(after)) => {
            writeln!(
                out,
                "server: the client has gone, {after:.1?} into the request"
            )?;
            ensure!(after < Duration::from_secs(1), "that is late");
        }
        other => bail!("server: {other:?}"),
    }
    g.cancel();
    g.wait().await
}

/// The whole call, the body included: what `run` was given is dropped at its await when the time is up, and reqwest then
/// closes the connection.
async fn fetch(ctx: &Context, client: &Client, url: &str) -> anyhow::Result<String> {
    let call = async {
        let answer = client.get(url).send().await?.error_for_status()?;
        answer.text().await
    };
    Ok(ctx.run(call).await??)
}

/// How a request ended, and how long after its begin.
#[derive(Debug)]
enum End {
    Answered,
    ClientGone(Duration),
}

/// When the client goes, axum drops this future at its await.
async fn report(State(tell): State<Arc<UnboundedSender<End>>>) -> &'static str {
    let mut request = Request {
        begun: Instant::now(),
        answered: false,
        tell,
    };
    sleep(SLOW).await;
    request.answered = true;
    "ready"
}

struct Request {
    begun: Instant,
    answered: bool,
    tell: Arc<UnboundedSender<End>>,
}

impl Drop for Request {
    fn drop(&mut self) {
        let end = if self.answered {
            End::Answered
        } else {
            End::ClientGone(self.begun.elapsed())
        };
        let _ = self.tell.send(end);
    }
}
