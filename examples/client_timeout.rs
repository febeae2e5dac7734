//! A call with a deadline of 100 ms, to a server that needs two seconds. The call returns `context
//! deadline exceeded`, and the server sees that its client has disconnected.
//!
//! ```sh
//! cargo run --example client_timeout
//! ```

#![allow(clippy::print_stdout)] // a program

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use errgroup::{Context, Group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (g, ctx) = Group::<io::Error>::with_context(Context::background());
    g.go(serve(listener));

    let start = Instant::now();
    let ctx = ctx.with_timeout(Duration::from_millis(100));
    match fetch(&ctx, address).await {
        Ok(report) => println!("client: {report}"),
        Err(error) => println!("client: {error:#}, after {:.1?}", start.elapsed()),
    }
    Ok(g.wait().await?)
}

/// Makes the whole call under the context, from the connection to the last byte. At the deadline
/// `run` drops the future at its await, which closes the connection.
async fn fetch(ctx: &Context, address: SocketAddr) -> anyhow::Result<String> {
    let call = async {
        let mut server = BufStream::new(TcpStream::connect(address).await?);
        server.write_all(b"report\n").await?;
        server.flush().await?;
        let mut report = String::new();
        server.read_to_string(&mut report).await?;
        Ok::<_, io::Error>(report)
    };
    Ok(ctx.run(call).await??)
}

/// Answers one request after two seconds, unless the client disconnects before.
async fn serve(listener: TcpListener) -> io::Result<()> {
    let (stream, _) = listener.accept().await?;
    let mut client = BufStream::new(stream);
    client.read_line(&mut String::new()).await?;
    let start = Instant::now();
    tokio::select! {
        () = sleep(Duration::from_secs(2)) => {
            client.write_all(b"the report\n").await?;
            client.flush().await?;
        }
        // The client sends nothing more, so a read returns only when it disconnects.
        _ = client.read_u8() => {
            println!("server: client disconnected, {:.1?} into the request", start.elapsed());
        }
    }
    Ok(())
}
