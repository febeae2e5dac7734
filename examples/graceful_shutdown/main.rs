//! A server that winds down on SIGTERM or Ctrl-C: it stops accepting, each worker finishes the job that it has begun,
//! and one that does not stop is aborted after a grace of 2 s, and named. A second Ctrl-C exits at once, with status 130.
//!
//! ```sh
//! cargo run --features signal --example graceful_shutdown            # a server; it prints its address and process id
//! cargo run --features signal --example graceful_shutdown -- --demo  # plays the clients too, and sends itself SIGTERM
//! ```
//!
//! A line is a job: it is answered by `started` at once, and by `finished` a moment later. The job `forever` takes an
//! hour and asks no context: that is the straggler. A worker that leaves its client in order says `bye`.
//!
//! The demonstration is a check as well: it fails if a client does not see what it should.
//!
//! What concerns errgroup is in `server.rs`, where tasks start tasks, and here, where they are waited for.

mod demo;
mod server;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use errgroup::{Context, Group, TaskError, TaskErrorKind};

/// How long the workers may go on when they have been asked to stop.
const GRACE: Duration = Duration::from_secs(2);

/// A server that winds down gracefully.
#[derive(clap::Parser)]
struct Cli {
    /// Where to listen; with port 0 the system chooses
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Play the clients too, and send SIGTERM to this process
    #[arg(long)]
    demo: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let ctx = Context::background().with_shutdown_signals()?;
    // One listener for the whole run: one that is made after the first Ctrl-C may miss the second.
    let mut interrupts = interrupts()?;
    let twice = async {
        interrupts.recv().await;
        interrupts.recv().await
    };
    tokio::select! {
        result = run(&cli, &ctx) => result,
        _ = twice => process::exit(130),
    }
}

#[cfg(unix)]
fn interrupts() -> io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
}

#[cfg(windows)]
use tokio::signal::windows::ctrl_c as interrupts;

async fn run(cli: &Cli, signals: &Context) -> anyhow::Result<()> {
    let (g, ctx) = Group::with_context(signals);
    g.set_grace(GRACE);
    let addr = server::start(&g, &ctx, cli.listen)
        .await
        .with_context(|| format!("cannot listen on {}", cli.listen))?;
    let id = process::id();
    writeln!(io::stdout(), "listening on {addr}, process {id}")?;

    if cli.demo {
        let (stragglers, ()) = tokio::try_join!(wind_down(g), demo::play(addr))?;
        demo::check(&stragglers)
    } else {
        wind_down(g).await.map(drop)
    }
}

/// Waits until the server is asked to stop, and then until it has; gives the workers that had to be aborted.
async fn wind_down(g: Group<io::Error>) -> anyhow::Result<Vec<TaskError<io::Error>>> {
    let out = &mut io::stdout();
    let why = g.context().done_owned().await;
    writeln!(out, "stopping: {:#}", anyhow::Error::from(why))?;

    let Err(errors) = g.wait_all().await else {
        writeln!(out, "stopped: everybody has finished")?;
        return Ok(Vec::new());
    };
    writeln!(out, "stopped, but for:")?;
    for error in &errors {
        writeln!(out, "  {error}; it ran {:.1?}", error.elapsed())?;
    }
    let (stragglers, failed): (Vec<_>, Vec<_>) = errors
        .into_iter()
        .partition(|error| matches!(error.kind(), TaskErrorKind::Aborted(_)));
    match failed.into_iter().next() {
        None => Ok(stragglers),
        Some(error) => bail!(error),
    }
}
