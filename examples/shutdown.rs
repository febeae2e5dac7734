//! A shutdown in one time budget: first the server, then its workers, then the journal that both
//! use. The first SIGTERM or Ctrl-C begins it, a second one aborts what is left, and the report
//! says what became of each task.
//!
//! ```sh
//! # prints its address; each line that it is sent is a job
//! cargo run --features signal --example shutdown
//! # is its own client, and sends itself SIGTERM
//! cargo run --features signal --example shutdown -- --demo
//! ```
//!
//! With feature `inspect` as well, it prints what still runs when half of the budget is over.
//!
//! The order is what matters. The connections end first, because they make jobs. The workers finish
//! the jobs that are queued. The journal is last, so that the last job finds it.

#![allow(clippy::print_stdout)] // a program

use std::io;
use std::process::{self, Command};
use std::time::Duration;

use errgroup::{Context, Drain, Group, Spawner};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

const BUDGET: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let signal = Context::background().with_shutdown_signals()?;
    // The contexts of the groups are not below that of the signal: the drain decides when each is
    // cancelled.
    let (server, ctx) = Group::with_context(Context::background());
    let (workers, _) = Group::with_context(Context::background());
    let (journal, _) = Group::<io::Error>::with_context(Context::background());
    workers.set_limit(2);

    let (entries, mut written) = mpsc::channel(16);
    // It ends when nothing that could send an entry is left.
    journal.named("writer").go(async move {
        while let Some(entry) = written.recv().await {
            println!("done: {entry}");
        }
        Ok(())
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    println!("listening on {addr}, process {}", process::id());
    let (connections, jobs) = (server.spawner(), workers.spawner());
    let accept = accept(ctx, listener, connections, jobs, entries);
    server.named("accept").go(accept);

    if std::env::args().any(|arg| arg == "--demo") {
        let mut client = TcpStream::connect(addr).await?;
        client.write_all(b"one\ntwo\nthree\n").await?;
        client.read_exact(&mut [0; "accepted\n".len() * 3]).await?;
        let me = process::id().to_string();
        Command::new("kill").args(["-TERM", &me]).status()?;
    }
    signal.done().await;
    let second = Context::background().with_shutdown_signals()?;

    let drain = Drain::within(BUDGET)
        .phase("server", server)
        .finish_for(Duration::ZERO) // connections end when they are cancelled, and not before
        .phase("workers", workers)
        .phase("journal", journal)
        .abort_on(second.until_done())
        .run();
    #[cfg(feature = "inspect")]
    let drain = tell_what_hangs(drain);
    println!("{:#}", drain.await);
    Ok(())
}

/// Awaits the drain, and prints the tree of the live tasks if it takes long.
#[cfg(feature = "inspect")]
async fn tell_what_hangs<T>(drain: impl Future<Output = T>) -> T {
    let mut drain = std::pin::pin!(drain);
    if let Ok(report) = tokio::time::timeout(BUDGET / 2, &mut drain).await {
        return report;
    }
    eprint!("{}", errgroup::inspect::snapshot());
    drain.await
}

/// Accepts connections until it is cancelled. Each line of a connection is a job for the workers.
async fn accept(
    ctx: Context,
    listener: TcpListener,
    connections: Spawner<io::Error>,
    jobs: Spawner<anyhow::Error>,
    entries: mpsc::Sender<String>,
) -> io::Result<()> {
    while let Ok(accepted) = ctx.run(listener.accept()).await {
        let (stream, peer) = accepted?;
        let (ctx, jobs, entries) = (ctx.clone(), jobs.clone(), entries.clone());
        let name = format!("connection {peer}");
        connections.named(name).go(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = ctx.run(lines.next_line()).await? {
                lines.get_mut().write_all(b"accepted\n").await?;
                let entries = entries.clone();
                jobs.named(format!("job {line}")).go(async move {
                    sleep(Duration::from_millis(200)).await; // the work
                    Ok(entries.send(line).await?)
                });
            }
            Ok(())
        });
    }
    Ok(())
}
