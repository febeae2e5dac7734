//! The client: `fetch_all` around reqwest.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use errgroup::{Context, fetch_all};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, StatusCode, Url};

use crate::ledger::Ledger;

pub(crate) const PLAIN_ONLY: &str = "this example speaks plain HTTP only";

pub(crate) struct Page {
    pub(crate) url: Url,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}

/// Fetches every page, at most `limit` at once, and keeps the ledger. The first failure stops the others.
pub(crate) async fn fetch_pages(
    ctx: &Context,
    client: Client,
    limit: usize,
    urls: impl Iterator<Item = Url> + Send + 'static,
    ledger: Ledger,
) -> anyhow::Result<Vec<Page>> {
    fetch_all(ctx, limit, urls, move |_ctx, url| {
        fetch(client.clone(), ledger.clone(), url)
    })
    .await
}

/// Needs no context: where it waits when the others fail, there `fetch_all` drops it.
async fn fetch(client: Client, ledger: Ledger, url: Url) -> anyhow::Result<Page> {
    let entry = ledger.begin();
    let start = Instant::now();
    let bytes = body_length(&client, url.clone()).await;
    entry.close(&bytes);
    Ok(Page {
        bytes: bytes
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("GET {url}"))?,
        url,
        took: start.elapsed(),
    })
}

async fn body_length(client: &Client, url: Url) -> reqwest::Result<u64> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await? {
        bytes += chunk.len() as u64;
    }
    Ok(bytes)
}

pub(crate) fn builder() -> ClientBuilder {
    let redirects = Policy::custom(|attempt| match attempt.url().scheme() {
        "http" => Policy::default().redirect(attempt),
        _ => {
            let message = format!("{}: {PLAIN_ONLY}", attempt.url());
            attempt.error(message)
        }
    });
    Client::builder().redirect(redirects)
}

/// The status that a server answered, if that is the error.
pub(crate) fn status(error: &anyhow::Error) -> Option<StatusCode> {
    error.downcast_ref::<reqwest::Error>()?.status()
}
