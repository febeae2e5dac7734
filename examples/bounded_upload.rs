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

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use errgroup::{Context, Group, Ready};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 40;

#[tokio::main]
async fn main() -> io::Result<()> {
    let at_once = std::env::args().nth(1);
    let at_once = at_once.map_or(Ok(4), |text| text.parse().map_err(io::Error::other))?;
    let path = std::env::temp_dir().join(format!("bounded_upload.{}", std::process::id()));
    std::fs::write(&path, vec![7; CHUNK * CHUNKS])?;

    let (servers, _ctx) = Group::with_context(Context::background());
    let received = Arc::new(AtomicUsize::new(0));
    let counts = received.clone();
    let server = servers
        .start(move |ctx, ready| serve(ctx, ready, counts))
        .await?;
    let uploaded = upload_file(std::fs::File::open(&path)?, server, at_once).await;
    std::fs::remove_file(&path)?;
    servers.cancel();
    servers.wait().await?;
    let most = uploaded?;
    let received = received.load(Ordering::SeqCst);
    let mut out = io::stdout().lock();
    writeln!(out, "uploaded {CHUNKS} chunks, {received} bytes")?;
    writeln!(
        out,
        "chunks in memory: at most {most}, with a limit of {at_once}"
    )?;
    if received != CHUNK * CHUNKS || most > at_once {
        return Err(io::Error::other("bytes are missing, or too many were read"));
    }
    Ok(())
}

/// Uploads the file, and returns how many chunks were in memory at most.
async fn upload_file(
    mut file: std::fs::File,
    server: SocketAddr,
    at_once: usize,
) -> io::Result<usize> {
    let (now, mut most) = (Arc::new(AtomicUsize::new(0)), 0);
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
        (chunk, file) = tokio::task::spawn_blocking(read).await??;
        if chunk.is_empty() {
            break;
        }
        most = most.max(now.fetch_add(1, Ordering::SeqCst) + 1);
        let now = now.clone();
        permit.go(async move {
            let sent = send(&chunk, server).await;
            drop(chunk);
            now.fetch_sub(1, Ordering::SeqCst);
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
async fn serve(
    ctx: Context,
    ready: Ready<SocketAddr>,
    received: Arc<AtomicUsize>,
) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready.ok(listener.local_addr()?);
    let (g, ctx) = Group::with_context(&ctx);
    while let Ok(accepted) = ctx.run(listener.accept()).await {
        let ((mut stream, _), received) = (accepted?, received.clone());
        g.go(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mut chunk = Vec::new();
            let length = stream.read_to_end(&mut chunk).await?;
            received.fetch_add(length, Ordering::SeqCst);
            stream.write_u8(1).await
        });
    }
    g.wait().await
}
