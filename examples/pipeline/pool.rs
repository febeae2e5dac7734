//! Connections to the server, kept for the next request.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

pub(crate) struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<BufStream<TcpStream>>>,
    opened: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(address: SocketAddr) -> Pool {
        Pool {
            address,
            idle: Mutex::default(),
            opened: AtomicUsize::new(0),
        }
    }

    /// The line that the server has for a key. Dropped half-way, it takes its connection along, on which the answer would
    /// still come: no other request can mistake it for its own.
    pub(crate) async fn fetch(&self, key: u64) -> anyhow::Result<String> {
        let idle = self.idle.lock().unwrap().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.open().await?,
        };
        connection.write_all(format!("{key}\n").as_bytes()).await?;
        connection.flush().await?;
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        ensure!(line.ends_with('\n'), "the server hung up");
        self.idle.lock().unwrap().push(connection);
        Ok(line)
    }

    async fn open(&self) -> anyhow::Result<BufStream<TcpStream>> {
        let connection = TcpStream::connect(self.address).await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(BufStream::new(connection))
    }

    /// How many connections it has opened.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}
