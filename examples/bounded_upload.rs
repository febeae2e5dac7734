//! Uploads a file in chunks, several at once, with a bound on the chunks that are in memory.
//!
//! `reserve` waits for a permit *before* a chunk is read. With `go(..).await` instead, a chunk
//! would be read first and would then wait in memory for a permit.
//!
//! The file is made by the example, on disk. The server is on the loopback interface: it reads the
//! chunks slowly, adds their bytes up, and answers each with one byte.
//!
//! ```sh
//! cargo run --example bounded_upload -- 4
//! ```

#![allow(clippy::print_stdout)] // a program

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use std::{env, process};

use errgroup::{Context, Group, Ready};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 40;

static IN_MEMORY: AtomicUsize = AtomicUsize::new(0);
static RECEIVED: AtomicUsize = AtomicUsize::new(0);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let at_once = env::args().nth(1).map_or(Ok(4), |text| text.parse())?;
    let path = env::temp_dir().join(format!("bounded_upload.{}", process::id()));
    fs::write(&path, vec![7; CHUNK * CHUNKS])?;
    let file = File::open(&path)?;
    fs::remove_file(&path)?;

    let (servers, _ctx) = Group::with_context(Context::background());
    let server = servers.start(serve).await?;
    let most = upload(file, server, at_once).await?;
    servers.cancel();
    servers.wait().await?;
    println!("received {} bytes", RECEIVED.load(Relaxed));
    println!("chunks in memory: at most {most}, with a limit of {at_once}");
    Ok(())
}

/// Uploads the file, and returns how many chunks were in memory at most.
async fn upload(mut file: File, server: SocketAddr, at_once: usize) -> io::Result<usize> {
    let mut most = 0;
    let (g, _ctx) = Group::with_context(Context::background());
    g.set_limit(at_once);
    loop {
        // Fails when an upload has failed, since that cancels the context.
        let Ok(permit) = g.reserve().await else { break };
        let read = move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            (&mut file).take(CHUNK as u64).read_to_end(&mut chunk)?;
            Ok::<_, io::Error>((chunk, file))
        };
        let chunk;
        (chunk, file) = spawn_blocking(read).await??;
        if chunk.is_empty() {
            break;
        }
        most = most.max(IN_MEMORY.fetch_add(1, Relaxed) + 1);
        permit.go(async move {
            let sent = send(&chunk, server).await;
            drop(chunk);
            IN_MEMORY.fetch_sub(1, Relaxed);
            sent
        });
    }
    g.wait().await?;
    Ok(most)
}

async fn send(chunk: &[u8], server: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(chunk).await?;
    stream.shutdown().await?;
    stream.read_u8().await?;
    Ok(())
}

/// Serves until the context is done.
async fn serve(ctx: Context, ready: Ready<SocketAddr>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready.ok(listener.local_addr()?);
    let (g, ctx) = Group::with_context(&ctx);
    while let Ok(accepted) = ctx.run(listener.accept()).await {
        let (mut stream, _) = accepted?;
        g.go(async move {
            sleep(Duration::from_millis(5)).await;
            let length = stream.read_to_end(&mut Vec::new()).await?;
            RECEIVED.fetch_add(length, Relaxed);
            stream.write_u8(1).await
        });
    }
    g.wait().await
}
