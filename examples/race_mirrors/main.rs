//! The same file from three mirrors at once, the first sound answer wins: `first_ok`. And a server of which every 20th
//! answer hangs, asked again where it is slow: `hedge`, and what that does to the tail of the latencies.
//!
//! ```sh
//! cargo run --example race_mirrors
//! ```
//!
//! It is a check as well: when `first_ok` and `hedge` return, those that lost are gone here, and a moment later each
//! server has seen their connections closed. The 99th percentile with hedging must be less than half of that without.

mod server;

use std::future::Future;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use axum::http::StatusCode;
use errgroup::{Context, Group, fan_out, fetch_all, hedge};
use reqwest::{Client, Url};

use server::{Plan, Server};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out = &mut io::stdout();
    let client = Client::builder().no_proxy().build()?;
    let (g, ctx) = Group::<anyhow::Error>::with_context(Context::background());
    race(&g, &ctx, &client, out).await?;
    writeln!(out)?;
    cut_the_tail(&g, &ctx, &client, out).await?;
    drop(client); // and with it the connections that it keeps
    g.cancel();
    g.wait().await
}

const MIRRORS: [(&str, Plan); 3] = [
    ("eu", |_| (Duration::from_secs(10), StatusCode::OK)),
    ("us", |_| (Duration::ZERO, StatusCode::SERVICE_UNAVAILABLE)),
    ("ap", |_| (Duration::from_millis(150), StatusCode::OK)),
];

async fn race(
    g: &Group<anyhow::Error>,
    ctx: &Context,
    client: &Client,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut mirrors = Vec::new();
    for (name, plan) in MIRRORS {
        mirrors.push((name, Server::start(g, ctx, plan).await?));
    }
    let urls: Vec<_> = mirrors
        .iter()
        .map(|(name, m)| (*name, m.url.clone()))
        .collect();

    // Every request holds a clone of this for as long as it lives.
    let alive = Arc::new(());
    let start = Instant::now();
    let (winner, bytes) = fan_out(ctx, urls, {
        let (client, alive) = (client.clone(), Arc::clone(&alive));
        move |_ctx, (name, url)| {
            let (client, alive) = (client.clone(), Arc::clone(&alive));
            async move {
                let bytes = get(&client, url).await?;
                drop(alive);
                Ok::<_, anyhow::Error>((name, bytes))
            }
        }
    })
    .named("mirror")
    .first_ok()
    .await?;
    let (wall, left) = (start.elapsed(), Arc::strong_count(&alive) - 1);

    writeln!(
        out,
        "Three mirrors: {winner} wins with {bytes} bytes after {wall:.0?}; {left} requests are left."
    )?;
    ensure!(
        winner == "ap" && left == 0,
        "eu hangs, us fails, and none may be left"
    );
    for (name, mirror) in &mirrors {
        let seen = mirror.seen().await?;
        let fate = match (seen.requests, seen.cut_off) {
            (1, 0) => "answered its request",
            (1, 1) => "saw the connection closed before it had an answer",
            _ => bail!("{name} saw {} requests", seen.requests),
        };
        writeln!(out, "  {name} {fate}")?;
        ensure!(
            seen.cut_off == usize::from(*name == "eu"),
            "it is eu that hangs"
        );
    }
    Ok(())
}

const CALLS: usize = 400;
/// Well above what an answer takes that does not hang.
const DELAY: Duration = Duration::from_millis(50);

/// 2 to 6 ms; every 20th hangs.
const TAIL: Plan = |number| {
    let ms = if number % 20 == 0 {
        800
    } else {
        2 + number * 7 % 5
    };
    (Duration::from_millis(ms as u64), StatusCode::OK)
};

async fn cut_the_tail(
    g: &Group<anyhow::Error>,
    ctx: &Context,
    client: &Client,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let server = Server::start(g, ctx, TAIL).await?;
    let (to, url) = (client.clone(), server.url.clone());
    let plain = times(ctx, move |_ctx| {
        let (client, url) = (to.clone(), url.clone());
        async move { get(&client, url).await }
    })
    .await?;

    let hedged_server = Server::start(g, ctx, TAIL).await?;
    let (to, url) = (client.clone(), hedged_server.url.clone());
    let hedged = times(ctx, move |ctx| {
        let (client, url) = (to.clone(), url.clone());
        async move {
            let bytes = hedge(&ctx, DELAY, 3, move |_ctx, _attempt| {
                let (client, url) = (client.clone(), url.clone());
                async move { get(&client, url).await }
            });
            Ok(bytes.await?)
        }
    })
    .await?;

    writeln!(
        out,
        "{CALLS} calls, 8 at once, of a server of which every 20th answer hangs:"
    )?;
    writeln!(
        out,
        "  {:<22} {:>8} {:>8} {:>9} {:>8}",
        "", "p50", "p99", "requests", "cut off"
    )?;
    for (what, times, server) in [
        ("without", &plain, &server),
        ("hedged after 50 ms", &hedged, &hedged_server),
    ] {
        let seen = server.seen().await?;
        let (p50, p99) = (percentile(times, 50), percentile(times, 99));
        writeln!(
            out,
            "  {what:<22} {p50:>8.1?} {p99:>8.1?} {:>9} {:>8}",
            seen.requests, seen.cut_off
        )?;
    }
    let seen = hedged_server.seen().await?;
    let extra = seen.requests - CALLS;
    let percent = extra as f64 * 100.0 / CALLS as f64;
    writeln!(out, "  The price: {extra} extra requests, {percent:.1} %.")?;
    ensure!(
        seen.cut_off > 0,
        "what hung was not stopped when a later attempt had won"
    );
    ensure!(
        percentile(&hedged, 99) < percentile(&plain, 99) / 2,
        "the tail is as long as before"
    );
    Ok(())
}

/// How long each call takes, sorted.
async fn times<F, Fut>(ctx: &Context, call: F) -> anyhow::Result<Vec<Duration>>
where
    F: Fn(Context) -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<u64>> + Send + 'static,
{
    let mut times = fetch_all(ctx, 8, 0..CALLS, move |ctx, _| {
        let call = call(ctx);
        async move {
            let start = Instant::now();
            call.await?;
            Ok::<_, anyhow::Error>(start.elapsed())
        }
    })
    .await?;
    times.sort();
    Ok(times)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// The length of what is there.
async fn get(client: &Client, url: Url) -> anyhow::Result<u64> {
    let response = client.get(url).send().await?.error_for_status()?;
    Ok(response.bytes().await?.len() as u64)
}
