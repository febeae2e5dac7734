//! An HTTP server that stops on SIGTERM or Ctrl-C, under load: no request that reached it is lost.
//! A second signal exits at once, with status 130.
//!
//! ```sh
//! cargo run -p servers --example graceful_shutdown    # a server; it prints its address
//! cargo run -p servers --example graceful_shutdown -- --load 127.0.0.1:PORT   # 64 clients
//! cargo run -p servers --example graceful_shutdown -- --demo    # both, with a SIGTERM
//! ```
//!
//! | after SIGTERM | |
//! |---|---|
//! | 0 s | connections are not accepted any more; responses say `connection: close` |
//! | 1 s | idle connections are closed; HTTP/2 connections get GOAWAY |
//! | 2 s | the contexts of the requests are cancelled; a handler may respond with 503 |
//! | 2.5 s | handlers that are left are aborted, and named |
//! | 3 s | connections that are left are aborted, and named |
//!
//! It exits as soon as there is nothing left to wait for. `/job` takes 300 ms and `/quick` no time.
//! `/slow` takes an hour and sees that its context is done. `/forever` takes an hour and does not
//! check its context. `/flood` is for clients that do not read.
//!
//! With `--naive` the server exits on the signal and waits for nothing. Then the clients of
//! `--load` count the requests that were lost.
//!
//! `server.rs` has the tasks that start tasks; `wind_down` in this file waits for them.

mod client;
mod demo;
mod load;
mod server;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::process;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use errgroup::{CancelGuard, Context, DrainedTask, Group, TaskError, TaskErrorKind};
use tokio::time::timeout;

use server::Server;

/// How long what has begun may take to finish.
const GRACE: Duration = Duration::from_secs(2);

/// How long a handler may take after its context was cancelled, and how long connections may take
/// to send the last responses after that.
const LAST_CALL: Duration = Duration::from_millis(500);

/// A server that winds down gracefully.
#[derive(clap::Parser)]
struct Cli {
    /// Where to listen; with port 0 the system chooses
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Play the clients too, and send SIGTERM to this process
    #[arg(long, conflicts_with_all = ["load", "naive"])]
    demo: bool,

    /// Exit on the signal without waiting
    #[arg(long)]
    naive: bool,

    /// Be the clients instead: request one job after another from this server until it exits, and
    /// count
    #[arg(long, value_name = "ADDRESS")]
    load: Option<SocketAddr>,

    /// How many clients there are, half of them with HTTP/2
    #[arg(long, value_name = "N", default_value_t = 64, requires = "load")]
    clients: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let Some(addr) = cli.load {
        return load::run(addr, cli.clients).await;
    }
    let stopping = Context::background().with_shutdown_signals()?;
    // One listener for the whole run: one that is made after the first signal may miss the second.
    let twice = twice()?;
    tokio::select! {
        result = run(&cli, &stopping) => result,
        () = twice => process::exit(130),
    }
}

/// Resolves at the second signal.
#[cfg(unix)]
fn twice() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    Ok(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
        }
    })
}

#[cfg(windows)]
fn twice() -> io::Result<impl Future<Output = ()>> {
    let mut interrupts = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupts.recv().await;
        interrupts.recv().await;
    })
}

/// The signal cancels `stopping`: the server does not accept connections any more, and each
/// connection takes no new requests. `ctx`, the context of the group and of each request, is
/// cancelled when the grace period is over.
async fn run(cli: &Cli, stopping: &Context) -> anyhow::Result<()> {
    let (ctx, grace) = stopping.without_cancel().with_cancel();
    let (g, ctx) = Group::with_context(ctx);
    g.set_grace(LAST_CALL * 2);
    let server = server::start(&g, &ctx, stopping, cli.listen)
        .await
        .with_context(|| format!("cannot listen on {}", cli.listen))?;
    let (addr, id) = (server.addr, process::id());
    writeln!(io::stdout(), "listening on {addr}, process {id}")?;

    if cli.demo {
        let accepted = server.accepted.subscribe();
        let (stragglers, _deaf) = tokio::try_join!(
            wind_down(g, grace, server, stopping),
            demo::play(addr, accepted)
        )?;
        demo::check(&stragglers)
    } else if cli.naive {
        stopping.done().await;
        writeln!(io::stdout(), "stopping: without waiting")?;
        let accepted = *server.accepted.borrow();
        writeln!(io::stdout(), "{accepted} requests accepted")?;
        Ok(())
    } else {
        wind_down(g, grace, server, stopping).await.map(drop)
    }
}

/// Waits until the server is asked to stop, and then until it has.
async fn wind_down(
    g: Group<io::Error>,
    grace: CancelGuard,
    server: Server,
    stopping: &Context,
) -> anyhow::Result<Stragglers> {
    let out = &mut io::stdout();
    let why = stopping.done().await;
    writeln!(out, "stopping: {:#}", anyhow::Error::from(why))?;

    let mut connections = pin!(g.wait_all());
    let in_time = timeout(GRACE, connections.as_mut()).await;
    grace.cancel_with("the grace is over");
    // Also when no connection is left: a handler may be running whose client disconnected.
    let drained = server.handlers.wait().await;
    let errors = match in_time {
        Ok(result) => result,
        Err(_) => connections.await,
    };
    let stragglers = Stragglers {
        requests: drained.aborted().cloned().collect(),
        tasks: errors.err().into_iter().flatten().collect(),
    };
    stragglers.say(out)?;
    let accepted = *server.accepted.borrow();
    writeln!(out, "{accepted} requests accepted")?;
    stragglers.into_result()
}

/// What had to be aborted.
struct Stragglers {
    requests: Vec<DrainedTask>,
    tasks: Vec<TaskError<io::Error>>,
}

impl Stragglers {
    fn say(&self, out: &mut impl Write) -> io::Result<()> {
        if self.requests.is_empty() && self.tasks.is_empty() {
            return writeln!(out, "stopped: all have finished");
        }
        writeln!(out, "stopped, but for:")?;
        for request in &self.requests {
            writeln!(out, "  request {request}")?;
        }
        for task in &self.tasks {
            writeln!(out, "  {task}; it ran {:.1?}", task.elapsed())?;
        }
        Ok(())
    }

    /// A task that failed by itself is no straggler.
    fn into_result(mut self) -> anyhow::Result<Stragglers> {
        let is_aborted = |task: &TaskError<_>| matches!(task.kind(), TaskErrorKind::Aborted(_));
        match self.tasks.iter().position(|task| !is_aborted(task)) {
            None => Ok(self),
            Some(index) => bail!(self.tasks.swap_remove(index)),
        }
    }
}
