//! The same file from three mirrors at once, with `first_ok`: the first good response wins, and the
//! other requests are dropped.
//!
//! ```sh
//! cargo run --example race_mirrors
//! ```

#![allow(clippy::print_stdout)] // a program

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use errgroup::{Context, Group, fan_out};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (g, ctx) = Group::<io::Error>::with_context(Context::background());
    let mut mirrors = Vec::new();
    for mirror in [
        Mirror {
            name: "eu",
            response: "200 a file",
            after: Duration::from_secs(10),
        },
        Mirror {
            name: "us",
            response: "503 overloaded",
            after: Duration::ZERO,
        },
        Mirror {
            name: "ap",
            response: "200 a file",
            after: Duration::from_millis(150),
        },
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        mirrors.push((mirror.name, listener.local_addr()?));
        g.go(mirror.serve(listener));
    }

    let start = Instant::now();
    let (winner, file) = fan_out(&ctx, mirrors, |_ctx, (name, address)| async move {
        let stream = TcpStream::connect(address).await?;
        let file = download(stream).await.context(name)?;
        Ok::<_, anyhow::Error>((name, file))
    })
    .named("mirror")
    .first_ok()
    .await?; // the other requests have been dropped
    println!("{winner} wins with {file:?} after {:.0?}", start.elapsed());
    Ok(g.wait().await?)
}

async fn download(mut stream: TcpStream) -> anyhow::Result<String> {
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    match response.split_once(' ') {
        Some(("200", file)) => Ok(file.to_owned()),
        _ => bail!("the mirror answered {response:?}"),
    }
}

/// A server that responds to one client, after a while.
struct Mirror {
    name: &'static str,
    response: &'static str,
    after: Duration,
}

impl Mirror {
    async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let (mut client, _) = listener.accept().await?;
        tokio::select! {
            () = sleep(self.after) => {
                client.write_all(self.response.as_bytes()).await?;
                println!("  {} answered", self.name);
            }
            // The client sends nothing, so a read returns only when it disconnects.
            _ = client.read_u8() => println!("  {} saw its client disconnect", self.name),
        }
        Ok(())
    }
}
