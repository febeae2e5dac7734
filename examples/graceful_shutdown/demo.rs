//! The demonstration: three clients, and the SIGTERM.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use errgroup::TaskError;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::GRACE;

/// One client has nothing to do, one a job to be finished, and one the job that never is, when the signal comes.
pub(crate) async fn play(server: SocketAddr) -> anyhow::Result<()> {
    let mut idle = Client::connect(server).await?;
    idle.send("one").await?;
    idle.expect("started one").await?;
    idle.expect("finished one").await?;
    let mut busy = Client::connect(server).await?;
    busy.send("two").await?;
    busy.expect("started two").await?;
    let mut stuck = Client::connect(server).await?;
    stuck.send("forever").await?;
    stuck.expect("started forever").await?;

    let signal = Instant::now();
    terminate_this_process()?;
    let tell = |what| writeln!(io::stdout(), "  {:>7.1?}  {what}", signal.elapsed());
    idle.expect("bye").await?;
    tell("the idle client is left")?;
    busy.expect("finished two").await?;
    busy.expect("bye").await?;
    tell("the busy client has its job finished, and is left")?;
    ensure!(
        TcpStream::connect(server).await.is_err(),
        "a client was accepted after the signal"
    );
    tell("a new client is refused")?;
    stuck.expect_cut_off().await?;
    tell("the stuck client is cut off")?;
    ensure!(signal.elapsed() >= GRACE, "the grace was cut short");
    Ok(())
}

/// Whether it is the stuck client's worker, and nobody else's, that had to be aborted.
pub(crate) fn check(stragglers: &[TaskError<io::Error>]) -> anyhow::Result<()> {
    let names: Vec<_> = stragglers.iter().filter_map(TaskError::name).collect();
    ensure!(
        matches!(names[..], [name] if name.starts_with("worker 3 ")),
        "the stragglers were {names:?}"
    );
    Ok(())
}

/// The shell has `kill` built in, and this process is its parent.
fn terminate_this_process() -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-c", "kill -TERM $PPID"]).status();
    let status = status.context("cannot run sh")?;
    ensure!(status.success(), "kill: {status}");
    Ok(())
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(server: SocketAddr) -> io::Result<Client> {
        Ok(Client(BufReader::new(TcpStream::connect(server).await?)))
    }

    async fn send(&mut self, job: &str) -> io::Result<()> {
        self.0.write_all(format!("{job}\n").as_bytes()).await
    }

    async fn expect(&mut self, answer: &str) -> anyhow::Result<()> {
        let line = self.line().await?;
        ensure!(
            line == format!("{answer}\n"),
            "{line:?} came instead of {answer:?}"
        );
        Ok(())
    }

    /// Nothing comes any more, not even `bye`.
    async fn expect_cut_off(&mut self) -> anyhow::Result<()> {
        let line = self.line().await?;
        ensure!(line.is_empty(), "{line:?} came instead of the end");
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        Ok(line)
    }
}
