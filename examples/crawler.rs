//! A crawler, whose tasks start tasks through a `Spawner`, under one limit.
//!
//! ```sh
//! cargo run --example crawler
//! ```
//!
//! It crawls a site twice: with a limit of 8, where each task starts the tasks of its links and
//! ends, and with a limit of 1, where each task also waits until they have started. The second does
//! not deadlock, because a task that waits for an admission lends its permit.

#![allow(clippy::print_stdout)] // a program

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use errgroup::{Admission, Context, Group, Spawner};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    crawl(8, Wait::No).await?;
    crawl(1, Wait::UntilStarted).await
}

#[derive(Clone, Copy, Default)]
enum Wait {
    #[default]
    No,
    UntilStarted,
}

async fn crawl(limit: usize, wait: Wait) -> anyhow::Result<()> {
    let (g, _ctx) = Group::with_context(Context::background());
    g.set_limit(limit);
    let crawler = Arc::new(Crawler {
        wait,
        ..Crawler::default()
    });
    let start = Instant::now();
    crawler.open(HOME, &g.spawner());
    g.wait().await?;
    let (pages, most) = (crawler.seen.lock().unwrap().len(), &crawler.most);
    println!(
        "limit {limit}: {pages} pages, {most:?} at once, {:.1?}",
        start.elapsed()
    );
    Ok(())
}

#[derive(Default)]
struct Crawler {
    wait: Wait,
    seen: Mutex<BTreeSet<Page>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Crawler {
    /// Starts a task for a page that is new.
    fn open(self: &Arc<Self>, page: Page, g: &Spawner<anyhow::Error>) -> Option<Admission> {
        let is_new = self.seen.lock().unwrap().insert(page);
        is_new.then(|| g.go(self.clone().visit(page, g.clone())))
    }

    async fn visit(self: Arc<Self>, page: Page, g: Spawner<anyhow::Error>) -> anyhow::Result<()> {
        for link in self.fetch(page).await? {
            let admission = self.open(link, &g);
            if let (Wait::UntilStarted, Some(admission)) = (self.wait, admission) {
                admission.await;
            }
        }
        Ok(())
    }

    /// Returns the links of a page, after 2 to 8 ms.
    async fn fetch(&self, (row, column): Page) -> anyhow::Result<Vec<Page>> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        sleep(Duration::from_millis(
            2 + (row * ROWS + column) as u64 * 5 % 7,
        ))
        .await;
        self.now.fetch_sub(1, Ordering::Relaxed);
        Ok(match row + 1 {
            ROWS => vec![HOME],
            below => vec![(below, column), (below, column + 1), HOME],
        })
    }
}

/// The site is a triangle: each page links to the two below it, and to the first.
type Page = (usize, usize);
const ROWS: usize = 20;
const HOME: Page = (0, 0);
