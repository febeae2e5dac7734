//! A server in a struct: its methods take `&self`, so the group cannot be moved into `wait`.
//! `close_and_wait` ends it through a reference.
//!
//! ```sh
//! cargo run --example server_in_a_struct
//! ```
//!
//! The server answers each line that it is sent with the same line in capital letters. It is shared
//! in an `Arc`, as servers are. The example starts one, is its client, and shuts it down twice: the
//! first caller gets the error, if there was one, and the second one gets `Ok`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use errgroup::{Context, Group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A server that runs from `start` until `stop`.
struct Server {
    addr: SocketAddr,
    /// The listener and the connections are its tasks.
    tasks: Group<io::Error>,
}

impl Server {
    async fn start(ctx: &Context) -> io::Result<Arc<Server>> {
        let (tasks, ctx) = Group::with_context(ctx);
        tasks.set_name("server");
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let connections = tasks.spawner();
        tasks.named("accept").go(async move {
            while let Ok(accepted) = ctx.run(listener.accept()).await {
                let (stream, _) = accepted?;
                connections
                    .named("connection")
                    .go(serve(ctx.clone(), stream));
            }
            Ok(())
        });
        Ok(Arc::new(Server { addr, tasks }))
    }

    /// Returns how many tasks there are: the listener, and one for each connection.
    fn tasks(&self) -> usize {
        self.tasks.running()
    }

    /// Waits until nothing is running, which does not happen while the listener is. It changes
    /// nothing.
    async fn idle(&self) {
        self.tasks.idle().await;
    }

    /// Stops the server, and waits until every connection has ended.
    async fn stop(&self) -> io::Result<()> {
        self.tasks.cancel_with("the server stops");
        self.tasks.close_and_wait().await
    }
}

async fn serve(ctx: Context, stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(line) = ctx.run(lines.next_line()).await {
        let Some(line) = line? else { return Ok(()) };
        let answer = format!("{}\n", line.to_uppercase());
        lines.get_mut().write_all(answer.as_bytes()).await?;
    }
    lines.get_mut().write_all(b"goodbye\n").await
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let server = Server::start(&Context::background()).await?;
    let mut client = BufReader::new(TcpStream::connect(server.addr).await?);
    client.get_mut().write_all(b"hello\n").await?;
    let mut answer = String::new();
    client.read_line(&mut answer).await?;
    write!(io::stdout(), "the answer: {answer}")?;

    // A timeout around `idle` aborts nothing.
    let idle = timeout(Duration::from_millis(10), server.idle()).await;
    writeln!(
        io::stdout(),
        "idle: {}, {} tasks",
        idle.is_ok(),
        server.tasks()
    )?;

    let also = server.clone();
    let (one, two) = tokio::join!(server.stop(), also.stop());
    one.and(two)?;
    let mut rest = String::new();
    client.read_to_string(&mut rest).await?;
    writeln!(
        io::stdout(),
        "at the end: {}, {} tasks",
        rest.trim_end(),
        server.tasks()
    )
}
