//! One round: a list of URLs, fetched while its progress is shown.

use std::io;
use std::time::{Duration, Instant};

use errgroup::Context;
use reqwest::{Client, Url};

use crate::client::{self, Page};
use crate::ledger::{Counts, Ledger};
use crate::report::Progress;

/// What came of it. `wall` is the time from the first request to the last page, or to the failure.
pub(crate) struct Round {
    pub(crate) outcome: anyhow::Result<Vec<Page>>,
    pub(crate) total: usize,
    pub(crate) counts: Counts,
    pub(crate) wall: Duration,
}

/// Fetches every page, at most `limit` at once. An error means that the progress cannot be shown.
pub(crate) async fn run(
    ctx: &Context,
    client: Client,
    limit: usize,
    urls: impl ExactSizeIterator<Item = Url> + Send + 'static,
) -> io::Result<Round> {
    let total = urls.len();
    let ledger = Ledger::default();
    let mut progress = Progress::new(total);

    let start = Instant::now();
    let outcome = tokio::select! {
        outcome = client::fetch_pages(ctx, client, limit, urls, ledger.clone()) => outcome,
        Err(error) = progress.follow(ledger.watch()) => return Err(error),
    };
    let wall = start.elapsed();

    let counts = ledger.counts();
    progress.finish(counts.finished)?;
    Ok(Round {
        outcome,
        total,
        counts,
        wall,
    })
}
