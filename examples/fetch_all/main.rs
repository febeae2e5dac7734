//! Fetches many pages, a few at a time, with `fetch_all`, and shows what becomes of the others when one fails.
//!
//! ```sh
//! cargo run --example fetch_all                                    # the demonstration, on a server of its own
//! cargo run --example fetch_all -- --limit 64 --pages 5000         # the same, larger
//! cargo run --example fetch_all -- --limit 16 --timeout 5s URL...  # a small tool, for plain HTTP
//! cargo run --example fetch_all -- --file urls.txt
//! ```
//!
//! The demonstration is a check as well. In its second round one page answers 500, and what the client counts must be
//! what the server sees: so many requests answered, so many given up by the client before their answer, and not one
//! begun after the failure. Where they differ, the program fails.
//!
//! What concerns errgroup is in `client.rs`, one call, and in `server.rs`, where a `Group` holds the server.

mod cli;
mod client;
mod ledger;
mod report;
mod round;
mod server;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Parser;
use errgroup::Context;
use reqwest::Url;

use cli::Cli;
use ledger::Counts;
use round::Round;
use server::{Server, Site};

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nobody reads on, as after `fetch_all | head`: then there is nobody to tell, either.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let urls = cli.urls()?;
    let ctx = match cli.timeout {
        Some(timeout) => {
            Context::background().with_timeout_cause(timeout, format!("--timeout {timeout:?}"))
        }
        None => Context::background(),
    };
    match urls {
        Some(urls) => fetch_listed(&ctx, cli.limit, urls).await,
        None => demonstrate(&ctx, cli.limit, cli.pages).await,
    }
}

async fn fetch_listed(ctx: &Context, limit: usize, urls: Vec<Url>) -> anyhow::Result<()> {
    let client = client::builder().build()?;
    let round = round::run(ctx, client, limit, urls.into_iter()).await?;

    let out = &mut io::stdout();
    match round.outcome {
        Ok(pages) => {
            report::listing(out, &pages)?;
            report::summary(out, &pages, round.wall)?;
            Ok(())
        }
        Err(error) => {
            report::ends(out, round.total, round.counts)?;
            Err(error)
        }
    }
}

async fn demonstrate(ctx: &Context, limit: usize, pages: usize) -> anyhow::Result<()> {
    let out = &mut io::stdout();
    writeln!(out, "Round one: {pages} pages, {limit} at a time.")?;
    round_one(ctx, limit, Site::sound(pages), out).await?;
    writeln!(out)?;
    writeln!(out, "Round two: the same, but one page answers 500.")?;
    round_two(ctx, limit, Site::faulty(pages, limit), out).await
}

async fn round_one(
    ctx: &Context,
    limit: usize,
    site: Site,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (round, seen) = visit(ctx, limit, site).await?;
    report::summary(out, &round.outcome?, round.wall)?;
    check(site, round.counts, seen)
}

async fn round_two(
    ctx: &Context,
    limit: usize,
    site: Site,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (round, seen) = visit(ctx, limit, site).await?;
    let error = match round.outcome {
        Err(error) if client::status(&error).is_some() => error,
        Err(error) => return Err(error),
        Ok(_) => bail!("a page answered 500, and yet every page was fetched"),
    };
    writeln!(out, "  failed       {error:#}")?;
    writeln!(out, "  wall time    {:.1?}", round.wall)?;
    report::both_sides(out, round.total, round.counts, seen)?;
    check(site, round.counts, seen)?;
    writeln!(out, "  Both sides agree: what was cut off is gone.")?;
    Ok(())
}

/// Fetches a whole site, and says too what its server saw.
async fn visit(ctx: &Context, limit: usize, site: Site) -> anyhow::Result<(Round, Counts)> {
    let client = client::builder().no_proxy().build()?;
    let server = Server::start(site).await?;
    let round = round::run(ctx, client, limit, server.urls()).await?;
    let seen = server.settled().await;
    server.stop().await?;
    Ok((round, seen))
}

fn check(site: Site, client: Counts, server: Counts) -> anyhow::Result<()> {
    let expected = site.expected();
    ensure!(
        client == expected,
        "the client counted {client:?}, and not {expected:?}"
    );
    ensure!(
        server == expected,
        "the server counted {server:?}, and not {expected:?}"
    );
    Ok(())
}
