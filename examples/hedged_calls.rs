//! A server whose every 20th response takes 800 ms, with `hedge`: a call that is slow is made
//! again, and the first response wins. It prints how the latencies change, and how many calls that
//! costs.
//!
//! ```sh
//! cargo run --example hedged_calls
//! ```

#![allow(clippy::print_stdout)] // a program

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use errgroup::{Context, fetch_all, hedge};
use tokio::time::sleep;

const CALLS: usize = 400;
/// Well above the time of a normal response.
const DELAY: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ctx = Context::background();
    println!("{CALLS} calls, 8 at once:");

    let server = Arc::new(Server::default());
    let calls = Arc::clone(&server);
    let times = fetch_all(&ctx, 8, 0..CALLS, move |_ctx, _| {
        let server = Arc::clone(&calls);
        async move {
            let start = Instant::now();
            server.call().await?;
            Ok::<_, anyhow::Error>(start.elapsed())
        }
    });
    show("without", times.await?, &server);

    let server = Arc::new(Server::default());
    let calls = Arc::clone(&server);
    let times = fetch_all(&ctx, 8, 0..CALLS, move |ctx, _| {
        let server = Arc::clone(&calls);
        async move {
            let start = Instant::now();
            // At most three calls, each 50 ms after the one before.
            hedge(&ctx, DELAY, 3, move |_ctx, _attempt| {
                let server = Arc::clone(&server);
                async move { server.call().await }
            })
            .await?;
            Ok::<_, anyhow::Error>(start.elapsed())
        }
    });
    show("hedged after 50 ms", times.await?, &server);
    Ok(())
}

fn show(how: &str, mut times: Vec<Duration>, server: &Server) {
    times.sort();
    let (p50, p99) = (times[CALLS / 2], times[CALLS * 99 / 100]);
    let (calls, dropped) = (&server.calls, &server.dropped);
    println!("  {how:<20} p50 {p50:>8.1?}  p99 {p99:>8.1?}  calls {calls:?}  dropped {dropped:?}");
}

#[derive(Default)]
struct Server {
    calls: AtomicUsize,
    dropped: AtomicUsize,
}

impl Server {
    async fn call(&self) -> anyhow::Result<()> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let millis = if number % 20 == 0 {
            800
        } else {
            2 + number as u64 % 5
        };
        self.dropped.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(millis)).await;
        self.dropped.fetch_sub(1, Ordering::Relaxed); // not reached if it is dropped
        Ok(())
    }
}
