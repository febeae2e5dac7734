//! 200 pages over HTTP, 8 at a time. Then the same again, but one page fails and the rest stop.
//!
//! ```sh
//! cargo run --example fetch_all                                  # with a server of its own
//! cargo run --example fetch_all -- --limit 64 --pages 5000       # the same, larger
//! cargo run --example fetch_all -- --timeout 5 http://HOST/ ...  # a small tool, for plain HTTP
//! cargo run --example fetch_all -- --file urls.txt
//! ```

#![allow(clippy::print_stdout)] // a program

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use errgroup::{Context, Group, Spawner, fetch_all};
use indicatif::{HumanBytes, ProgressBar};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Fetches each URL, `limit` at a time. The results have the order of the URLs. When one request
/// fails, the others are dropped at their await, and `fetch_all` returns the error.
async fn fetch_pages(
    ctx: &Context,
    limit: NonZeroUsize,
    urls: Vec<String>,
    counter: Counter,
) -> anyhow::Result<Vec<Page>> {
    let bar = ProgressBar::new(urls.len() as u64);
    let per_page = bar.clone();
    let pages = fetch_all(ctx, limit.get(), urls, move |_ctx, url| {
        let (bar, request) = (per_page.clone(), counter.begin());
        async move {
            let start = Instant::now();
            let body = request.end(get(&url).await);
            let bytes = body.with_context(|| format!("GET {url}"))?.len() as u64;
            bar.inc(1);
            let took = start.elapsed();
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

/// Fetches pages over plain HTTP, a few at a time, and stops at the first that fails.
#[derive(Parser)]
struct Cli {
    /// The pages to fetch; without any, a demonstration
    #[arg(value_name = "URL", value_parser = url)]
    urls: Vec<String>,
    /// A file with one URL on each line
    #[arg(long, value_name = "PATH", conflicts_with = "urls")]
    file: Option<PathBuf>,
    /// How many to fetch at once
    #[arg(long, value_name = "N", default_value = "8")]
    limit: NonZeroUsize,
    /// The time for all of them
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// The number of pages of the demonstration
    #[arg(long, value_name = "N", default_value = "200")]
    pages: NonZeroUsize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli {
        mut urls,
        file,
        limit,
        timeout,
        pages,
    } = Cli::parse();
    let mut ctx = Context::background();
    if let Some(seconds) = timeout {
        ctx = ctx.with_timeout(Duration::try_from_secs_f64(seconds)?);
    }
    if let Some(path) = &file {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        urls = lines.map(url).collect::<anyhow::Result<_>>()?;
        ensure!(!urls.is_empty(), "{}: no URL in it", path.display());
    }
    if urls.is_empty() {
        return demonstrate(&ctx, limit, pages.get()).await;
    }
    let start = Instant::now();
    let pages = fetch_pages(&ctx, limit, urls, Counter::default()).await?;
    for Page { url, bytes, took } in &pages {
        println!("{:>12} {took:>9.1?}  {url}", HumanBytes(*bytes).to_string());
    }
    summary(&pages, start.elapsed());
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

async fn demonstrate(ctx: &Context, limit: NonZeroUsize, pages: usize) -> anyhow::Result<()> {
    println!("Round one: {pages} pages, {limit} at a time.");
    let g = Group::new();
    let site = Site::start(&g, usize::MAX, 0).await?;
    let start = Instant::now();
    let fetched = fetch_pages(ctx, limit, site.urls(pages), Counter::default()).await?;
    summary(&fetched, start.elapsed());

    println!("\nRound two: the same, but one page answers 500.");
    let in_flight = limit.get().min(pages);
    let bad = (pages / 5 * 3).clamp(1, pages - in_flight + 1);
    let g = Group::new();
    let site = Site::start(&g, bad, bad - 1 + in_flight).await?;
    let counter = Counter::default();
    let start = Instant::now();
    let Err(error) = fetch_pages(ctx, limit, site.urls(pages), counter.clone()).await else {
        bail!("no page has failed");
    };
    let (wall, client) = (start.elapsed(), *counter.0.borrow());
    let server = site.counter.idle().await; // it sees a disconnect a moment later
    println!("  failed       {error:#}");
    println!("  wall time    {wall:.1?}");
    println!("                       client  server");
    println!(
        "  started            {:>8} {:>7}",
        client.started, server.started
    );
    println!(
        "  finished           {:>8} {:>7}",
        client.finished, server.finished
    );
    println!(
        "  failed             {:>8} {:>7}",
        client.failed, server.failed
    );
    println!(
        "  dropped in flight  {:>8} {:>7}",
        client.dropped, server.dropped
    );
    println!("  never started      {:>8}", pages - client.started);
    Ok(())
}

fn url(text: &str) -> anyhow::Result<String> {
    ensure!(
        text.starts_with("http://"),
        "{text}: not a URL that starts with http://"
    );
    Ok(text.to_owned())
}

/// Sends a GET request. A real program uses a library, such as reqwest, which takes ten times as
/// long to compile as all of this.
async fn get(url: &str) -> anyhow::Result<Vec<u8>> {
    let url = url.trim_start_matches("http://");
    let (host, path) = url.split_once('/').unwrap_or((url, ""));
    let port = if host.contains(':') { "" } else { ":80" };
    let mut stream = TcpStream::connect(format!("{host}{port}")).await?;
    let request = format!("GET /{path} HTTP/1.0\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    let head = response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let body = response.split_off(head.context("the response is cut off")? + 4);
    let head = String::from_utf8_lossy(&response);
    let status = head.lines().next().unwrap_or_default();
    ensure!(
        status.split(' ').nth(1) == Some("200"),
        "the server answered {status}"
    );
    Ok(body)
}

/// Counts the requests that started, and how each ended.
#[derive(Clone, Default)]
struct Counter(watch::Sender<Counts>);

#[derive(Clone, Copy, Default)]
struct Counts {
    started: usize,
    finished: usize,
    failed: usize,
    dropped: usize,
}

impl Counter {
    fn begin(&self) -> Request {
        self.0.send_modify(|counts| counts.started += 1);
        Request {
            counter: self.clone(),
            end: |counts| counts.dropped += 1,
        }
    }

    async fn idle(&self) -> Counts {
        let is_idle = |c: &Counts| c.started == c.finished + c.failed + c.dropped;
        self.0
            .subscribe()
            .wait_for(is_idle)
            .await
            .map_or_else(|_| Counts::default(), |c| *c)
    }
}

/// A request in flight. If it is dropped before `end`, it counts as dropped.
struct Request {
    counter: Counter,
    end: fn(&mut Counts),
}

impl Request {
    fn end<T>(mut self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        self.end = match result {
            Ok(_) => |counts| counts.finished += 1,
            Err(_) => |counts| counts.failed += 1,
        };
        result
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.counter.0.send_modify(self.end);
    }
}

/// A server on loopback. Page `bad` answers 500 once this many requests have `started`. The pages
/// after it do not answer.
#[derive(Clone)]
struct Site {
    address: String,
    bad: usize,
    started: usize,
    counter: Counter,
}

impl Site {
    /// Starts it in `g`. It stops when `g` is dropped.
    async fn start(g: &Group<anyhow::Error>, bad: usize, started: usize) -> anyhow::Result<Site> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let site = Site {
            address,
            bad,
            started,
            counter: Counter::default(),
        };
        g.go(site.clone().accept(listener, g.spawner()));
        Ok(site)
    }

    async fn accept(self, listener: TcpListener, g: Spawner<anyhow::Error>) -> anyhow::Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            g.go(self.clone().serve(stream));
        }
    }

    async fn serve(self, mut stream: TcpStream) -> anyhow::Result<()> {
        let request = self.counter.begin();
        let mut head = [0; 1024];
        let count = stream.read(&mut head).await?;
        let head = String::from_utf8_lossy(&head[..count]);
        let page = head.split(['/', ' ']).nth(2).context("no path")?.parse()?;
        tokio::select! {
            page = self.page(page) => {
                let (status, body) = match request.end(page) {
                    Ok(size) => ("200 OK", vec![b'.'; size]),
                    Err(_) => ("500 Internal Server Error", Vec::new()),
                };
                let head = format!("HTTP/1.0 {status}\r\n\r\n");
                stream.write_all(&[head.as_bytes(), &body].concat()).await?;
            }
            _ = stream.read_u8() => {} // the client has closed its connection
        }
        Ok(())
    }

    /// The size of a page, after 2 to 38 ms.
    async fn page(&self, number: usize) -> anyhow::Result<usize> {
        if number == self.bad {
            let mut counts = self.counter.0.subscribe();
            counts
                .wait_for(|counts| counts.started >= self.started)
                .await?;
            bail!("a bad page");
        }
        let step = number as u64 * 13 % 20;
        let millis = if number > self.bad {
            60_000
        } else {
            2 + step * step / 10
        };
        sleep(Duration::from_millis(millis)).await;
        Ok((number * 37 % 64 + 1) * 1024)
    }

    fn urls(&self, pages: usize) -> Vec<String> {
        (1..=pages)
            .map(|page| format!("http://{}/{page}", self.address))
            .collect()
    }
}
