//! The server: one task accepts, and starts a worker for each connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use errgroup::{Context, Group, Ready, Spawner};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Starts the server in `g`, and gives the address that it is bound to.
pub(crate) async fn start(
    g: &Group<io::Error>,
    ctx: &Context,
    listen: SocketAddr,
) -> io::Result<SocketAddr> {
    let (ctx, spawner) = (ctx.clone(), g.spawner());
    g.named("accept")
        .start(move |ready| accept(ctx, spawner, listen, ready))
        .await
}

/// Accepts until the context ends. The listener goes with it, so that who comes later is refused.
async fn accept(
    ctx: Context,
    spawner: Spawner<io::Error>,
    listen: SocketAddr,
    ready: Ready<SocketAddr>,
) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    ready.ok(listener.local_addr()?);
    let mut number = 0;
    while let Ok(accepted) = ctx.run(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                number += 1;
                spawner
                    .named(format!("worker {number} of {peer}"))
                    .go(work(ctx.clone(), stream));
            }
            // A client that has gone again, or too many open files: that passes.
            Err(error) => {
                eprintln!("cannot accept: {error}");
                drop(ctx.sleep(Duration::from_millis(100)).await);
            }
        }
    }
    Ok(())
}

/// Serves one client. That it goes away is no failure of the server, whose other clients know nothing of it.
async fn work(ctx: Context, stream: TcpStream) -> io::Result<()> {
    if let Err(error) = serve(&ctx, stream).await {
        eprintln!("a connection broke: {error}");
    }
    Ok(())
}

/// Does the client's jobs, one after another. It is between two of them that the context is asked: what was started is
/// finished.
async fn serve(ctx: &Context, mut stream: TcpStream) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut jobs = BufReader::new(reader).lines();
    while let Ok(job) = ctx.run(jobs.next_line()).await {
        let Some(job) = job? else {
            return Ok(());
        };
        writer
            .write_all(format!("started {job}\n").as_bytes())
            .await?;
        perform(&job).await;
        writer
            .write_all(format!("finished {job}\n").as_bytes())
            .await?;
    }
    writer.write_all(b"bye\n").await
}

async fn perform(job: &str) {
    sleep(match job {
        "forever" => Duration::from_secs(3600),
        _ => Duration::from_millis(300),
    })
    .await;
}
