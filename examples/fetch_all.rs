//! 200 pages over HTTP, 8 at a time. Then the same again, but one page fails and the rest stop.
//!
//! ```sh
//! cargo run --example fetch_all
//! cargo run --example fetch_all -- --limit 64 --pages 5000
//! ```

#![allow(clippy::print_stdout)] // a program

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use errgroup::{Context, Group, fetch_all};
use indicatif::{HumanBytes, ProgressBar};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Fetches each URL, `limit` at a time. The results have the order of the URLs. When one request
/// fails, the others are dropped at their await, and `fetch_all` returns the error.
async fn fetch_pages(limit: usize, urls: Vec<String>) -> anyhow::Result<Vec<Page>> {
    let bar = ProgressBar::new(urls.len() as u64);
    let per_page = bar.clone();
    let pages = fetch_all(&Context::background(), limit, urls, move |_ctx, url| {
        let bar = per_page.clone();
        async move {
            let start = Instant::now();
            let body = get(&url).await.with_context(|| format!("GET {url}"))?;
            bar.inc(1);
            let (bytes, took) = (body.len() as u64, start.elapsed());
            Ok(Page { url, bytes, took })
        }
    })
    .await;
    bar.finish_and_clear();
    pages
}

struct Page {
    url: String,
    bytes: u64,
    took: Duration,
}

/// Fetches pages from a server of its own.
#[derive(Parser)]
struct Cli {
    /// How many to fetch at once
    #[arg(long, value_name = "N", default_value = "8")]
    limit: NonZeroUsize,
    /// The number of pages
    #[arg(long, value_name = "N", default_value = "200")]
    pages: NonZeroUsize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let (limit, pages) = (cli.limit.get(), cli.pages.get());
    println!("Round one: {pages} pages, {limit} at a time.");
    round(limit, pages, usize::MAX).await?;
    println!("\nRound two: the same, but one page answers 500.");
    let last = pages - limit.min(pages) + 1; // with a full limit from there on
    round(limit, pages, (pages / 5 * 3).clamp(1, last)).await
}

/// Fetches all pages from a server of its own, whose page `bad` fails.
async fn round(limit: usize, pages: usize, bad: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let urls = (1..=pages).map(|page| format!("http://{address}/{page}"));
    let full = (bad - 1).saturating_add(limit.min(pages));
    let server = Arc::new(Server {
        bad,
        full,
        ..Server::default()
    });
    let g = Group::<anyhow::Error>::new();
    let (accepting, connections) = (server.clone(), g.spawner());
    g.task().background().go_cancellable(async move {
        loop {
            let (stream, _) = listener.accept().await?;
            connections.go(accepting.clone().serve(stream));
        }
    });

    let start = Instant::now();
    let (result, wall) = (fetch_pages(limit, urls.collect()).await, start.elapsed());
    g.wait().await?; // the server sees a moment later that clients have disconnected
    match result {
        Ok(pages) => summary(&pages, wall),
        Err(error) => {
            let started = server.started.load(Relaxed);
            println!("  failed       {error:#}");
            println!("  wall time    {wall:.1?}");
            println!("The server has seen, of {pages} requests:");
            println!("  started            {started:>5}");
            println!("  finished           {:>5?}", server.finished);
            println!("  failed             {:>5?}", server.failed);
            println!("  dropped in flight  {:>5?}", server.dropped);
            println!("  never started      {:>5}", pages - started);
        }
    }
    Ok(())
}

fn summary(pages: &[Page], wall: Duration) {
    let bytes = pages.iter().map(|page| page.bytes).sum();
    let one_by_one: Duration = pages.iter().map(|page| page.took).sum();
    let ratio = one_by_one.div_duration_f64(wall);
    println!("  pages        {}", pages.len());
    println!("  bytes        {}", HumanBytes(bytes));
    println!("  wall time    {wall:.1?}");
    println!("  one by one   {one_by_one:.1?} (the sum of the times), {ratio:.1} times as long");
    if let Some(Page { url, took, .. }) = pages.iter().max_by_key(|page| page.took) {
        println!("  slowest      {took:.1?}, {url}");
    }
}

/// Sends a GET request. A real program uses a library, such as reqwest, which takes ten times as
/// long to compile as all of this.
async fn get(url: &str) -> anyhow::Result<String> {
    let (host, path) = url["http://".len()..].split_once('/').context("no path")?;
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET /{path} HTTP/1.0\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let (head, body) = response.split_once("\r\n\r\n").context("cut off")?;
    ensure!(head == "HTTP/1.0 200 OK", "the server answered {head}");
    Ok(body.to_owned())
}

/// A server, and how many requests started and ended. Page `bad` answers 500 when `full` requests
/// have started, and the pages after it do not answer: so each slot of the limit is in use then.
#[derive(Default)]
struct Server {
    bad: usize,
    full: usize,
    started: AtomicUsize,
    finished: AtomicUsize,
    failed: AtomicUsize,
    dropped: AtomicUsize,
}

impl Server {
    async fn serve(self: Arc<Server>, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut head = [0; 1024];
        let count = stream.read(&mut head).await?;
        let head = String::from_utf8_lossy(&head[..count]);
        let page = head.split(['/', ' ']).nth(2).context("no path")?.parse()?;
        self.started.fetch_add(1, Relaxed);
        tokio::select! {
            page = self.page(page) => {
                let (outcome, response) = match page {
                    Ok(body) => (&self.finished, format!("200 OK\r\n\r\n{body}")),
                    Err(error) => (&self.failed, format!("500 {error}\r\n\r\n")),
                };
                outcome.fetch_add(1, Relaxed);
                stream.write_all(format!("HTTP/1.0 {response}").as_bytes()).await?;
            }
            // The client has disconnected.
            _ = stream.read_u8() => { self.dropped.fetch_add(1, Relaxed); }
        }
        Ok(())
    }

    /// A page, after 2 to 38 ms.
    async fn page(&self, number: usize) -> anyhow::Result<String> {
        if number == self.bad {
            while self.started.load(Relaxed) < self.full {
                sleep(Duration::from_millis(1)).await;
            }
            bail!("Internal Server Error");
        }
        let step = number as u64 * 13 % 20;
        let late = if number > self.bad { 60_000 } else { 0 };
        sleep(Duration::from_millis(2 + step * step / 10 + late)).await;
        Ok(".".repeat((number * 37 % 64 + 1) * 1024))
    }
}
