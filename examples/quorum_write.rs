//! A write to five replicas that is safe once three have acknowledged it: `quorum`.
//!
//! ```sh
//! cargo run --example quorum_write
//! ```
//!
//! The first write succeeds, though one replica is dead and one is slow: nobody waits for the slow one, whose connection
//! is closed. The second finds three of the five dead, and fails at once: the other two, slow ones, are not waited for.
//!
//! It is a check as well: the replicas are listeners on loopback, and each says how its connection ended. A write that
//! was stopped may have happened or not; what that means is for the store to know.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use errgroup::{Context, Errors, Group, TaskHandle, fan_out};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Longer than anything here waits.
const SLOW: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out = &mut io::stdout();
    let (g, ctx) = Group::with_context(Context::background());
    three_of_five(&g, &ctx, out).await?;
    two_of_five(&g, &ctx, out).await?;
    g.cancel();
    g.wait().await
}

async fn three_of_five(
    g: &Group<anyhow::Error>,
    ctx: &Context,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let quick = |ms| Kind::AcknowledgesAfter(Duration::from_millis(ms));
    let slow = Kind::AcknowledgesAfter(SLOW);
    let replicas = start(g, ctx, [quick(90), Kind::Dead, quick(10), slow, quick(50)]).await?;

    let start = Instant::now();
    let acknowledged = write(ctx, &replicas).await?;
    let wall = start.elapsed();

    writeln!(
        out,
        "b is dead and d is slow: acknowledged by {} after {wall:.0?}",
        acknowledged.join(", ")
    )?;
    ensure!(wall < SLOW / 2, "d was waited for");
    for Replica { name, end, .. } in replicas {
        let end = match end {
            Some(end) => timeout(SLOW / 2, end).await?.context("it did not serve")?,
            None => End::Refused,
        };
        writeln!(out, "  {name}: {end:?}")?;
        ensure!(
            (end == End::ConnectionClosed) == (name == "d"),
            "it is d that was stopped"
        );
    }
    Ok(())
}

async fn two_of_five(
    g: &Group<anyhow::Error>,
    ctx: &Context,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let slow = Kind::AcknowledgesAfter(SLOW);
    let replicas = start(g, ctx, [slow, Kind::Dead, Kind::Dead, slow, Kind::Dead]).await?;

    let start = Instant::now();
    let Err(errors) = write(ctx, &replicas).await else {
        bail!("three replicas are dead, and yet three have acknowledged");
    };
    let wall = start.elapsed();

    writeln!(
        out,
        "b, c and e are dead: failed after {wall:.0?}: {errors}"
    )?;
    for error in &errors {
        let name = error.name().unwrap_or_default();
        match error.source() {
            Some(why) => writeln!(out, "  {name}: {}: {why}", error.kind())?,
            None => writeln!(out, "  {name}: {}", error.kind())?,
        }
    }
    ensure!(wall < SLOW / 2, "a and d were waited for");
    ensure!(errors.causes().count() == 3, "three have refused");
    Ok(())
}

/// Writes to all of them, and gives the names of the three that acknowledged first, in that order.
async fn write(
    ctx: &Context,
    replicas: &[Replica],
) -> Result<Vec<&'static str>, Errors<anyhow::Error>> {
    let replicas: Vec<_> = replicas.iter().map(|r| (r.name, r.address)).collect();
    fan_out(ctx, replicas, |_ctx, (name, address)| async move {
        put(address)
            .await
            .with_context(|| format!("{name} at {address}"))?;
        Ok(name)
    })
    .named("replica")
    .quorum(3)
    .await
}

async fn put(address: SocketAddr) -> anyhow::Result<()> {
    let mut replica = BufStream::new(TcpStream::connect(address).await?);
    replica.write_all(b"put balance 12.5\n").await?;
    replica.flush().await?;
    let mut answer = String::new();
    replica.read_line(&mut answer).await?;
    ensure!(answer == "ok\n", "it answered {answer:?}");
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    AcknowledgesAfter(Duration),
    Dead,
}

struct Replica {
    name: &'static str,
    address: SocketAddr,
    /// How its connection ends; the dead have none.
    end: Option<TaskHandle<End>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Acknowledged,
    ConnectionClosed,
    Refused,
    /// The program ended first.
    Unserved,
}

/// Starts them in `g`; each serves one connection.
async fn start(
    g: &Group<anyhow::Error>,
    ctx: &Context,
    kinds: [Kind; 5],
) -> io::Result<Vec<Replica>> {
    let mut replicas = Vec::new();
    let mut dead = Vec::new(); // dropped last, or the next might be given the same port
    for (name, kind) in NAMES.into_iter().zip(kinds) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let end = match kind {
            Kind::AcknowledgesAfter(latency) => {
                let ctx = ctx.clone();
                Some(g.spawn(async move {
                    let end = ctx.run(serve(listener, latency)).await;
                    end.unwrap_or(Ok(End::Unserved))
                }))
            }
            Kind::Dead => {
                dead.push(listener);
                None
            }
        };
        replicas.push(Replica { name, address, end });
    }
    Ok(replicas)
}

async fn serve(listener: TcpListener, latency: Duration) -> anyhow::Result<End> {
    let (stream, _) = listener.accept().await?;
    let mut client = BufStream::new(stream);
    client.read_line(&mut String::new()).await?;
    tokio::select! {
        () = sleep(latency) => {
            client.write_all(b"ok\n").await?;
            client.flush().await?;
            Ok(End::Acknowledged)
        }
        // The client has nothing more to say: what comes is the end of its connection.
        _ = client.read_u8() => Ok(End::ConnectionClosed),
    }
}
