//! Three queries at once under a deadline, each of which would run for hours. The client
//! disconnects after 50 ms, and a moment later no query is left: not here, and not in the database.
//!
//! ```sh
//! cargo run -p databases --example query_databases    # SQLite, in this process
//! cargo run -p databases --example query_databases -- --postgres postgres://me@127.0.0.1/
//! cargo run -p databases --example query_databases -- --postgres postgres://me@127.0.0.1/ --drop
//! ```
//!
//! It creates nothing in PostgreSQL. The last command only drops the futures of the queries, as a
//! timeout does: the server does not stop them.
//!
//! The functions `query` of the two other files are to be copied.

mod postgres;
mod sqlite;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use errgroup::{Context, Group};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use postgres::Postgres;
use sqlite::Sqlite;

/// Three queries at once, and a client that disconnects.
#[derive(clap::Parser)]
struct Cli {
    /// The URL of a PostgreSQL server, instead of SQLite
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,

    /// When the client disconnects
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 50)]
    leave: u64,

    /// The deadline of the queries
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 30_000)]
    deadline: u64,

    /// Leave the server alone: only drop the futures
    #[arg(long, requires = "postgres")]
    drop: bool,

    /// How often a query is stopped about when it ends, and its connection used again
    #[arg(long, value_name = "N", requires = "postgres", default_value_t = 200)]
    rounds: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let out = &mut io::stdout();
    match &cli.postgres {
        None => client_leaves(out, &cli, &Sqlite::open()?).await,
        Some(url) => {
            let database = Postgres::connect(url, cli.drop).await?;
            client_leaves(out, &cli, &database).await?;
            if !cli.drop {
                let (late, rounds) = (database.stop_late(cli.rounds).await?, cli.rounds);
                let early = database.stop_early().await?;
                writeln!(
                    out,
                    "{late} of {rounds} queries were stopped about when they ended, and no other \
                     query; so were {early} on a slow line, at odd moments"
                )?;
            }
            database.close().await
        }
    }
}

/// What three queries can be asked of.
trait Database {
    const NAME: &str;

    /// Starts each query as a task of `g`; counts in `seen` what rows there are.
    fn start(
        &self,
        g: &Group<anyhow::Error>,
        seen: &Arc<AtomicU64>,
    ) -> Vec<oneshot::Receiver<Report>>;

    /// How many of them run, as the database sees it.
    async fn running(&self) -> anyhow::Result<usize>;

    /// Asks the next query on each of their connections; gives how many answered.
    async fn next_queries(&self) -> anyhow::Result<usize>;
}

/// What has become of a query.
struct Report {
    name: &'static str,
    rows: u64,
    result: anyhow::Result<()>,
    at: Instant,
}

async fn client_leaves<D: Database>(
    out: &mut impl Write,
    cli: &Cli,
    database: &D,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(cli.deadline);
    let ctx = Context::background().with_deadline_cause(deadline, "the page is due");
    let (ctx, client) = ctx.with_cancel();
    let (g, _ctx) = Group::with_context(&ctx);
    let seen = Arc::default();
    let reports = database.start(&g, &seen);
    let queries = reports.len();

    let leave = async {
        sleep(Duration::from_millis(cli.leave)).await;
        // On a busy machine they may not have begun yet.
        while database.running().await? < queries || seen.load(Ordering::Relaxed) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        writeln!(
            out,
            "{}: {queries} queries run, and rows arrive; the client disconnects",
            D::NAME
        )?;
        client.cancel_with("client disconnected");
        Ok::<_, anyhow::Error>(Instant::now())
    };
    let end = match ctx.run(leave).await {
        Ok(left) => left?,
        Err(_deadline) => deadline,
    };
    timeout(Duration::from_secs(20), g.wait())
        .await
        .context("a query is not to be stopped")??;

    for report in reports {
        let Report {
            name,
            rows,
            result,
            at,
        } = report.await?;
        let late = at.saturating_duration_since(end);
        let why = result.map_or_else(
            |error| format!("{error:#}"),
            |()| "all are there".to_owned(),
        );
        writeln!(
            out,
            "  {name:<6} ended {late:>6.1?} later, after {rows} rows: {why}"
        )?;
    }
    // The naive one is given a second in which its queries could end.
    if cli.drop {
        sleep(Duration::from_secs(1)).await;
    }
    let (running, usable) = (database.running().await?, database.next_queries().await?);
    writeln!(
        out,
        "  {running} queries are left; {usable} of {queries} connections answer the next one"
    )?;
    Ok(())
}
