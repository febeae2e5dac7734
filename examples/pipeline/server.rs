//! The other end: a server on loopback that gives a record for each key, a line for a line, over connections that stay.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use errgroup::{Context, Group, Spawner};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Starts it in `g`; it stops when `ctx` ends.
pub(crate) async fn start(g: &Group<anyhow::Error>, ctx: &Context) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    g.go(accept(ctx.clone(), g.spawner(), listener));
    Ok(address)
}

async fn accept(
    ctx: Context,
    spawner: Spawner<anyhow::Error>,
    listener: TcpListener,
) -> anyhow::Result<()> {
    while let Ok(accepted) = ctx.run(listener.accept()).await {
        let (stream, _) = accepted?;
        let ctx = ctx.clone();
        spawner.go(async move { ctx.run(serve(stream)).await.unwrap_or(Ok(())) });
    }
    Ok(())
}

/// Serves one client until it hangs up.
async fn serve(stream: TcpStream) -> anyhow::Result<()> {
    let mut client = BufStream::new(stream);
    let mut line = String::new();
    while client.read_line(&mut line).await? > 0 {
        let key = line.trim_end().parse()?;
        sleep(Duration::from_millis(1)).await;
        client.write_all(record(key).as_bytes()).await?;
        client.flush().await?;
        line.clear();
    }
    Ok(())
}

/// The line for a key: the key and 128 hexadecimal digits that look random.
pub(crate) fn record(key: u64) -> String {
    let mut state = key;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut line = key.to_string();
    line.push(' ');
    for _ in 0..8 {
        line.push_str(&format!("{:016x}", next()));
    }
    line.push('\n');
    line
}
