//! A request's id and its trace's id, in every call below the request and in every line that is logged there.
//!
//! ```sh
//! cargo run --example values
//! ```
//!
//! Three requests are handled at once, each by tasks that start tasks. No function takes an id as an argument: they are values
//! of the context, found by their type. A task that begins opens a span with them, and what logs inside it need not know.
//!
//! It is a check as well: it fails if a line has no ids, or another request's.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use errgroup::{Context, Group, fetch_all};
use tokio::time::sleep;
use tracing::{Instrument, Span, info, info_span};

/// Types that nobody else can name: no value of another crate is ever taken for one of these.
#[derive(Clone, Copy)]
struct RequestId(u32);

/// What came in, and goes on to the next service.
#[derive(Clone, Copy)]
struct TraceId(u128);

impl Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

const REQUESTS: [(RequestId, TraceId); 3] = [
    (RequestId(1), TraceId(0x4bf92f3577b34da6a3ce929d0e0e4736)),
    (RequestId(2), TraceId(0x0af7651916cd43dd8448eb211c80319c)),
    (RequestId(3), TraceId(0x80e1afed08e019fc1110464cfa66635c)),
];

/// One for the request, two for each of its two tasks, one for each of the three items.
const LINES: usize = 1 + 2 * 2 + 3;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_target(false)
        .without_time()
        .init();

    let (g, _ctx) = Group::<anyhow::Error>::with_context(Context::background());
    for (id, trace) in REQUESTS {
        g.go_with(move |ctx| async move {
            let ctx = ctx.with_value(id).with_value(trace);
            handle(&ctx).instrument(span(&ctx)).await
        });
    }
    g.wait().await?;
    check(&log.text())
}

/// What is logged in here bears the ids of the context.
fn span(ctx: &Context) -> Span {
    match (ctx.value::<RequestId>(), ctx.value::<TraceId>()) {
        (Some(id), Some(trace)) => info_span!("request", id = id.0, %trace),
        _ => Span::none(),
    }
}

async fn handle(ctx: &Context) -> anyhow::Result<()> {
    info!("begins");
    let (g, _ctx) = Group::<anyhow::Error>::with_context(ctx);
    // A task is on nobody's stack: it opens the span itself. The group's context has the values of its parent.
    g.go_with(|ctx| async move {
        let span = span(&ctx);
        stock(&ctx).instrument(span).await
    });
    g.go_with(|ctx| async move {
        let span = span(&ctx);
        price(&ctx).instrument(span).await
    });
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
    let header = traceparent(ctx).context("the trace is lost")?;
    info!(header, "calls the next service");
    sleep(Duration::from_millis(5)).await;
    info!("has the price");
    Ok(())
}

/// The header in which the trace's id goes on, as W3C's Trace Context writes it.
fn traceparent(ctx: &Context) -> Option<String> {
    let trace = ctx.value::<TraceId>()?;
    let parent = ctx.value::<RequestId>()?.0;
    Some(format!("00-{trace}-{parent:016x}-01"))
}

fn check(log: &str) -> anyhow::Result<()> {
    for (id, trace) in REQUESTS {
        let ids = format!("request{{id={} trace={trace}}}", id.0);
        let lines = log.lines().filter(|line| line.contains(&ids)).count();
        ensure!(lines == LINES, "{lines} lines have {ids}");
    }
    let lines = log.lines().count();
    ensure!(lines == REQUESTS.len() * LINES, "{lines} lines in all");
    Ok(())
}

/// Prints what is logged, and keeps it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(line);
        io::stdout().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
