//! A crawler: tasks that start tasks, through a `Spawner`, never more than eight at once.
//!
//! ```sh
//! cargo run --example crawler
//! ```
//!
//! It crawls a small site of its own twice. First with eight places, and each task starts those of its page's links and
//! ends. Then with one place, and each task waits until those of its links have started. That could be a deadlock: the
//! only place is taken by the one who waits for it. But a task that waits for a sibling's start lends its place.
//!
//! It is a check as well: both must find every page, at the same depth, within the limit.

use std::collections::btree_map::{BTreeMap, Entry};
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use errgroup::{Admission, Context, Group, Spawner};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out = &mut io::stdout();
    writeln!(out, "Eight places; each task starts its links:")?;
    let eight = crawl(8, Links::Start, out).await?;
    writeln!(
        out,
        "One place; each task waits until its links have started:"
    )?;
    let one = crawl(1, Links::StartAndWait, out).await?;
    ensure!(eight == one, "the two did not find the same");
    ensure!(
        eight.len() == ROWS * (ROWS + 1) / 2,
        "not every page was found"
    );
    Ok(())
}

/// Crawls the whole site, and gives every page with the number of links that lead to it.
async fn crawl(
    limit: usize,
    links: Links,
    out: &mut impl Write,
) -> anyhow::Result<BTreeMap<Page, usize>> {
    let (g, _ctx) = Group::with_context(Context::background());
    g.set_limit(limit);
    let crawler = Arc::new(Crawler {
        spawner: g.spawner(),
        links,
        site: Site::default(),
        seen: Mutex::default(),
    });

    let start = Instant::now();
    crawler.open(HOME, 0);
    g.wait().await?;
    let wall = start.elapsed();

    let seen = std::mem::take(&mut *crawler.seen.lock().unwrap());
    let (pages, depth) = (seen.len(), seen.values().max().unwrap_or(&0));
    let most = crawler.site.most.load(Ordering::Relaxed);
    writeln!(
        out,
        "  {pages} pages, {depth} links deep, {most} at once at most, {wall:.1?}"
    )?;
    ensure!(most <= limit, "{most} at once, and the limit was {limit}");
    Ok(seen)
}

/// What a task does about the links of its page.
#[derive(Clone, Copy)]
enum Links {
    Start,
    StartAndWait,
}

struct Crawler {
    spawner: Spawner<anyhow::Error>,
    links: Links,
    site: Site,
    /// How deep each page was found.
    seen: Mutex<BTreeMap<Page, usize>>,
}

impl Crawler {
    /// Starts a task for the page, unless that has been done.
    fn open(self: &Arc<Self>, page: Page, depth: usize) -> Option<Admission> {
        match self.seen.lock().unwrap().entry(page) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(new) => new.insert(depth),
        };
        Some(self.spawner.go(Arc::clone(self).visit(page, depth)))
    }

    async fn visit(self: Arc<Self>, page: Page, depth: usize) -> anyhow::Result<()> {
        for link in self.site.fetch(page).await? {
            let admission = self.open(link, depth + 1);
            if let (Links::StartAndWait, Some(admission)) = (self.links, admission) {
                admission.await;
            }
        }
        Ok(())
    }
}

const ROWS: usize = 20;
const HOME: Page = Page { row: 0, column: 0 };

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Page {
    row: usize,
    column: usize,
}

/// A triangle of pages. Each links to the two below it, and home. So there are many ways to most, all equally long.
#[derive(Default)]
struct Site {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Site {
    /// The links of a page, after 2 to 8 ms.
    async fn fetch(&self, Page { row, column }: Page) -> anyhow::Result<Vec<Page>> {
        ensure!(
            row < ROWS && column <= row,
            "there is no page {row}/{column}"
        );
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let number = (row * ROWS + column) as u64;
        sleep(Duration::from_millis(2 + number * 5 % 7)).await;
        self.now.fetch_sub(1, Ordering::Relaxed);

        if row + 1 == ROWS {
            return Ok(vec![HOME]);
        }
        let below = |column| Page {
            row: row + 1,
            column,
        };
        Ok(vec![below(column), below(column + 1), HOME])
    }
}
