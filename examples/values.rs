//! A request id and a trace id in each call of a request, and in each line that is logged there.
//!
//! ```sh
//! cargo run --example values
//! ```
//!
//! No function takes an id as an argument: they are values of the context, found by their type. A
//! task opens a span with them. With the feature `tracing`, its tasks would inherit the span.

use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::Context as _;
use errgroup::{Context, Group, fetch_all};
use tracing::{Instrument, Span, info, info_span};

/// A private type, so the value of another crate is never taken for one of these.
#[derive(Clone, Copy)]
struct RequestId(u32);

/// The trace that a caller sent. It is passed on to the next service.
#[derive(Clone, Copy)]
struct TraceId(u128);

impl Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .init();
    let (g, _ctx) = Group::<anyhow::Error>::with_context(Context::background());
    for id in 1..=3 {
        g.go_with(move |ctx| async move {
            let trace = TraceId(0x4bf92f3577b34da6a3ce929d0e0e4735 + u128::from(id));
            let ctx = ctx.with_value(RequestId(id)).with_value(trace);
            handle(&ctx).instrument(span(&ctx)).await
        });
    }
    g.wait().await
}

/// A span with the ids of the context.
fn span(ctx: &Context) -> Span {
    match (ctx.value::<RequestId>(), ctx.value::<TraceId>()) {
        (Some(id), Some(trace)) => info_span!("request", id = id.0, %trace),
        _ => Span::none(),
    }
}

async fn handle(ctx: &Context) -> anyhow::Result<()> {
    info!("begins");
    let (g, _ctx) = Group::<anyhow::Error>::with_context(ctx); // has the values of its parent
    g.go_with(|ctx| async move { stock(&ctx).instrument(span(&ctx)).await });
    g.go_with(|ctx| async move { price(&ctx).instrument(span(&ctx)).await });
    g.wait().await
}

async fn stock(ctx: &Context) -> anyhow::Result<()> {
    info!("asks for the stock");
    fetch_all(ctx, 2, ["here", "near", "far"], |ctx, store| {
        let span = span(&ctx);
        ask(ctx, store).instrument(span)
    })
    .await?;
    info!("has the stock");
    Ok(())
}

async fn ask(ctx: Context, store: &str) -> anyhow::Result<()> {
    ctx.sleep(Duration::from_millis(3)).await?;
    info!(store, "has answered");
    Ok(())
}

async fn price(ctx: &Context) -> anyhow::Result<()> {
    let header = traceparent(ctx).context("the context has no trace")?;
    info!(header, "calls the next service");
    ctx.sleep(Duration::from_millis(5)).await?;
    info!("has the price");
    Ok(())
}

/// The header that passes the trace on, as in W3C Trace Context.
fn traceparent(ctx: &Context) -> Option<String> {
    let trace = ctx.value::<TraceId>()?;
    let parent = ctx.value::<RequestId>()?.0;
    Some(format!("00-{trace}-{parent:016x}-01"))
}
