//! An axum service whose handler calls three upstreams over HTTP under a deadline.
//!
//! The service runs on the workers. The upstream and the clients have a thread each, and are the
//! same for both sides of a row.

use std::future::IntoFuture;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use errgroup::tower::ContextLayer;
use errgroup::{Context, fan_out, fetch_all};
use futures::future::try_join_all;
use reqwest::{Client, Url};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::go::Go;
use crate::http::{Server, body_length};
use crate::table::{Row, Table};
use crate::workload::{Workers, each};

/// Requests per round.
const REQUESTS: usize = 2_000;
const LEAST_ROUNDS: usize = 10;
/// How many times the time that other rows have.
const BUDGETS: u32 = 5;
/// Connections of the clients, each with one request at a time.
const CLIENTS: usize = 32;
const DEADLINE: Duration = Duration::from_secs(2);
/// The expected response: the sum of three pages of 8 bytes.
const EXPECTED: &str = "24";

pub(crate) fn rows(table: &mut Table, workers: &Workers) -> anyhow::Result<()> {
    // The rows compare the times per request; the limits are those of the throughput, inverted.
    let by_hand = Row::new(
        "axum, 3 calls: ContextLayer, fetch_all",
        "timeout, try_join!",
    )
    .at_most(1.0 / 0.95)
    .stretch(1.0);
    let go = Row::new(
        "axum, 3 calls: ContextLayer, fetch_all",
        "Go: net/http, errgroup",
    )
    .at_most(1.0 / 1.5);
    // For information: what of it is the layer, and what is a task for each call.
    let local = Row::new(
        "axum, 3 calls: ContextLayer, .local()",
        "timeout, try_join!",
    );
    let spawned = Row::new(
        "axum, 3 calls: ContextLayer, fetch_all",
        "timeout, tokio::spawn of each",
    );
    let rows = [&by_hand, &go, &local, &spawned];
    if !rows.into_iter().any(|row| table.wants(row)) {
        return Ok(());
    }

    let upstream = Server::start()?;
    let upstream = Upstream {
        client: Client::builder().no_proxy().build()?,
        url: Url::parse(&format!("http://{}/", upstream.address))?,
        _server: Arc::new(upstream),
    };
    let clients = Clients::new()?;
    let ours = workers.run(serve(with_layer(upstream.clone())))?;
    let ours_local = workers.run(serve(with_layer_and_local(upstream.clone())))?;
    let theirs = workers.run(serve(written_by_hand(upstream.clone())))?;
    let theirs_spawned = workers.run(serve(spawned_by_hand(upstream.clone())))?;
    for (row, ours, theirs) in [
        (by_hand, ours, theirs),
        (local, ours_local, theirs),
        (spawned, ours, theirs_spawned),
    ] {
        table.pair_for(
            BUDGETS,
            LEAST_ROUNDS,
            row,
            || clients.ask(ours),
            || clients.ask(theirs),
        )?;
    }

    let Some(program) = Go::wanted(table, &[&go])? else {
        return Ok(());
    };
    let port = program.ask(&format!("gateway {}", upstream.url)) as u16;
    let theirs = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    table.pair_for(
        BUDGETS,
        LEAST_ROUNDS,
        go,
        || clients.ask(ours),
        || clients.ask(theirs),
    )?;
    program.finish()
}

/// What a handler calls, and the client that it calls it with.
#[derive(Clone)]
struct Upstream {
    client: Client,
    url: Url,
    _server: Arc<Server>,
}

impl Upstream {
    async fn length(self) -> anyhow::Result<usize> {
        body_length(self.client, self.url).await
    }
}

fn layer() -> ContextLayer {
    ContextLayer::new(&Context::background()).max_timeout(DEADLINE)
}

fn response(lengths: anyhow::Result<Vec<usize>>) -> Result<String, StatusCode> {
    match lengths {
        Ok(lengths) => Ok(lengths.iter().sum::<usize>().to_string()),
        Err(_) => Err(StatusCode::BAD_GATEWAY),
    }
}

/// The service as it is written with this crate.
fn with_layer(upstream: Upstream) -> Router {
    async fn handler(State(upstream): State<Upstream>, ctx: Context) -> Result<String, StatusCode> {
        let calls = [upstream.clone(), upstream.clone(), upstream];
        let lengths: anyhow::Result<Vec<usize>> =
            fetch_all(&ctx, 3, calls, |_ctx, upstream| upstream.length()).await;
        response(lengths)
    }
    let routes = Router::new().route("/", get(handler)).with_state(upstream);
    routes.layer(layer())
}

/// The same, with the calls on the handler's own task.
fn with_layer_and_local(upstream: Upstream) -> Router {
    async fn handler(State(upstream): State<Upstream>, ctx: Context) -> Result<String, StatusCode> {
        let calls = [upstream.clone(), upstream.clone(), upstream];
        let lengths: anyhow::Result<Vec<usize>> =
            fan_out(&ctx, calls, |_ctx, upstream: Upstream| upstream.length())
                .local()
                .all()
                .await;
        response(lengths)
    }
    let routes = Router::new().route("/", get(handler)).with_state(upstream);
    routes.layer(layer())
}

/// The service as it is written without it.
fn written_by_hand(upstream: Upstream) -> Router {
    async fn handler(State(upstream): State<Upstream>) -> Result<String, StatusCode> {
        let (a, b, c) = (upstream.clone(), upstream.clone(), upstream);
        let lengths = async { tokio::try_join!(a.length(), b.length(), c.length()) };
        match timeout(DEADLINE, lengths).await {
            Ok(Ok((a, b, c))) => Ok((a + b + c).to_string()),
            Ok(Err(_)) => Err(StatusCode::BAD_GATEWAY),
            Err(_) => Err(StatusCode::GATEWAY_TIMEOUT),
        }
    }
    Router::new().route("/", get(handler)).with_state(upstream)
}

/// The same, with a task for each call.
fn spawned_by_hand(upstream: Upstream) -> Router {
    async fn handler(State(upstream): State<Upstream>) -> Result<String, StatusCode> {
        let calls = [upstream.clone(), upstream.clone(), upstream];
        let tasks = calls.map(|upstream| tokio::spawn(upstream.length()));
        match timeout(DEADLINE, try_join_all(tasks)).await {
            Ok(Ok(lengths)) => response(lengths.into_iter().collect()),
            Ok(Err(_)) => Err(StatusCode::INTERNAL_SERVER_ERROR),
            Err(_) => Err(StatusCode::GATEWAY_TIMEOUT),
        }
    }
    Router::new().route("/", get(handler)).with_state(upstream)
}

/// Serves until the runtime is dropped.
async fn serve(service: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("cannot listen on loopback")?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, service).into_future());
    Ok(address)
}

/// The clients, on a runtime and a thread of their own.
struct Clients {
    runtime: Runtime,
    client: Client,
}

impl Clients {
    fn new() -> anyhow::Result<Clients> {
        Ok(Clients {
            runtime: Builder::new_current_thread().enable_all().build()?,
            client: Client::builder().no_proxy().build()?,
        })
    }

    /// Sends the requests of one round and returns the nanoseconds for each.
    fn ask(&self, address: SocketAddr) -> f64 {
        let url = format!("http://{address}/");
        let one_connection = || async {
            for _ in 0..REQUESTS / CLIENTS {
                let response = self.client.get(&url).send().await?;
                let body = response.error_for_status()?.text().await?;
                ensure!(body == EXPECTED, "the service answered {body}");
            }
            Ok(())
        };
        let start = Instant::now();
        let asked = self
            .runtime
            .block_on(try_join_all((0..CLIENTS).map(|_| one_connection())));
        match asked {
            Ok(_) => each(start, REQUESTS / CLIENTS * CLIENTS),
            Err(error) => panic!("a request failed: {error:#}"),
        }
    }
}
