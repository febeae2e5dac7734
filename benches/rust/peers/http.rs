//! Real requests over loopback, with one client for both sides: at least 20,000 for each, in slices
//! that alternate.

use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::Context as _;
use axum::Router;
use axum::routing::get;
use errgroup::{Context, fetch_all};
use reqwest::{Client, Url};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::table::{Row, Table};
use crate::workload::{Workers, each};

/// A slice is a round. It is short because the limit is tight: in a short round the machine changes
/// less, and the median is of more rounds.
const GETS: usize = 2_000;
const LEAST_ROUNDS: usize = 10;
/// How many times the time of the other rows.
const BUDGETS: u32 = 5;
const LIMIT: usize = 64;
const PAGE: &str = "the page";

pub(crate) fn rows(table: &mut Table, workers: &Workers) -> anyhow::Result<()> {
    let row = Row::new("fetch_all, HTTP GET, loopback", "JoinSet + Semaphore")
        .at_most(1.05)
        .stretch(1.00);
    if !table.wants(&row) {
        return Ok(());
    }
    let server = Server::start()?;
    let url = Url::parse(&format!("http://{}/", server.address))?;
    let client = Client::builder().no_proxy().build()?;
    table.pair_for(
        BUDGETS,
        LEAST_ROUNDS,
        row,
        || workers.run(fetched(client.clone(), url.clone())),
        || workers.run(spawned(client.clone(), url.clone())),
    )?;
    Ok(())
}

async fn fetched(client: Client, url: Url) -> f64 {
    let start = Instant::now();
    let ctx = Context::background();
    let urls = std::iter::repeat_n(url, GETS);
    let pages: anyhow::Result<Vec<usize>> = fetch_all(&ctx, LIMIT, urls, move |_ctx, url| {
        body_length(client.clone(), url)
    })
    .await;
    let each = each(start, GETS);
    assert!(pages.is_ok_and(|pages| pages.len() == GETS));
    each
}

async fn spawned(client: Client, url: Url) -> f64 {
    let start = Instant::now();
    let (mut tasks, permits) = (JoinSet::new(), Arc::new(Semaphore::new(LIMIT)));
    let mut pages = Vec::new();
    for _ in 0..GETS {
        let permit = permits.clone().acquire_owned().await;
        let page = body_length(client.clone(), url.clone());
        tasks.spawn(async move {
            let _permit = permit;
            page.await
        });
    }
    while let Some(page) = tasks.join_next().await {
        pages.extend(page.ok().and_then(Result::ok));
    }
    let each = each(start, GETS);
    assert_eq!(pages.len(), GETS);
    each
}

pub(crate) async fn body_length(client: Client, url: Url) -> anyhow::Result<usize> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await? {
        bytes += chunk.len();
    }
    Ok(bytes)
}

/// One page, served on a thread and a runtime of its own until this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _until_dropped: oneshot::Sender<()>,
}

impl Server {
    pub(crate) fn start() -> anyhow::Result<Server> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .context("cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let (until_dropped, dropped) = oneshot::channel();
        thread::spawn(move || {
            let site = Router::new().route("/", get(async || PAGE));
            runtime.block_on(async {
                tokio::select! {
                    served = axum::serve(listener, site).into_future() => served,
                    _ = dropped => io::Result::Ok(()),
                }
            })
        });
        Ok(Server {
            address,
            _until_dropped: until_dropped,
        })
    }
}
