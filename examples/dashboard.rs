//! Three services under one deadline: what has come by then is shown, and what has not says why. `settle`.
//!
//! ```sh
//! cargo run --example dashboard
//! ```
//!
//! The services are HTTP servers on loopback. One answers, one hangs, and one fails with an error of its own; neither of
//! these two keeps the page from being there in time.
//!
//! It is a check as well: each panel must come out as it should, and the page must not wait for the one that hangs.

use std::future;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get};
use errgroup::{Context, ContextError, Group, fan_out};
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::time::sleep;

const DEADLINE: Duration = Duration::from_millis(400);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (g, ctx) = Group::<anyhow::Error>::with_context(Context::background());
    let services = [
        ("orders", start(&g, &ctx, get(orders)).await?),
        ("stock", start(&g, &ctx, get(stock)).await?),
        ("weather", start(&g, &ctx, get(weather)).await?),
    ];
    let names = services.each_ref().map(|(name, _)| *name);

    let start = Instant::now();
    let panels = load(&ctx, services).await?;
    let wall = start.elapsed();

    show(&mut io::stdout(), &names, &panels, wall)?;
    let [Ok(_), Err(stock), Err(weather)] = &panels[..] else {
        bail!("orders should have come, and the others not");
    };
    ensure!(is_late(stock), "stock hangs: {stock:#}");
    ensure!(!is_late(weather), "weather fails in time: {weather:#}");
    ensure!(wall < 10 * DEADLINE, "that is late");
    g.cancel();
    g.wait().await
}

/// Asks all of them, and gives for each its answer or the reason why there is none, by the deadline.
async fn load(
    ctx: &Context,
    services: [(&'static str, String); 3],
) -> anyhow::Result<Vec<anyhow::Result<String>>> {
    let client = Client::builder().no_proxy().build()?;
    let ctx = ctx.with_timeout_cause(DEADLINE, "the page is due");
    let panels = fan_out(&ctx, services, move |_ctx, (_, url)| {
        let request = client.get(url);
        async move {
            let response = request.send().await?.error_for_status();
            Ok(response
                .map_err(reqwest::Error::without_url)?
                .text()
                .await?)
        }
    });
    Ok(panels.settle().await)
}

fn show(
    out: &mut impl Write,
    names: &[&str],
    panels: &[anyhow::Result<String>],
    wall: Duration,
) -> io::Result<()> {
    writeln!(out, "The page is there after {wall:.0?}:")?;
    for (name, panel) in names.iter().zip(panels) {
        match panel {
            Ok(text) => writeln!(out, "  {name:<8} {text}")?,
            Err(error) if is_late(error) => writeln!(out, "  {name:<8} (too slow: {error:#})")?,
            Err(error) => writeln!(out, "  {name:<8} (failed: {error:#})")?,
        }
    }
    Ok(())
}

/// Whether it is the deadline that kept the answer from coming.
fn is_late(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ContextError>()
        .is_some_and(ContextError::is_deadline_exceeded)
}

/// Starts a service in `g`, which stops when `ctx` ends, and gives its address.
async fn start(
    g: &Group<anyhow::Error>,
    ctx: &Context,
    service: MethodRouter,
) -> io::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let (app, ctx) = (Router::new().route("/", service), ctx.clone());
    g.go(async move {
        axum::serve(listener, app)
            .with_graceful_shutdown(async move { drop(ctx.done().await) })
            .await?;
        Ok(())
    });
    Ok(url)
}

async fn orders() -> &'static str {
    sleep(Duration::from_millis(20)).await;
    "17 open, 3 of them since yesterday"
}

/// Is dropped here when the client hangs up.
async fn stock() -> &'static str {
    future::pending().await
}

async fn weather() -> StatusCode {
    sleep(Duration::from_millis(50)).await;
    StatusCode::SERVICE_UNAVAILABLE
}
