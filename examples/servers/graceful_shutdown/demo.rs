//! The demonstration: six clients, and the SIGTERM.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use axum::http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::client::{Answer, Client, Http, Reply};
use crate::server::ANSWER;
use crate::{GRACE, Stragglers};

/// When the signal arrives, one client is idle, two have a job that will finish, one has a request
/// that checks its context, one has a request that does not, and one does not read its response.
/// The last one is returned, so that it stays connected.
pub(crate) async fn play(
    server: SocketAddr,
    mut accepted: watch::Receiver<usize>,
) -> anyhow::Result<TcpStream> {
    let mut idle = Client::connect(server, Http::One).await?;
    expect(idle.get("/job").await, StatusCode::OK)?;
    let mut busy = Client::connect(server, Http::One).await?;
    let mut multiplexed = Client::connect(server, Http::Two).await?;
    let mut polite = Client::connect(server, Http::One).await?;
    let mut stuck = Client::connect(server, Http::Two).await?;
    let mut deaf = TcpStream::connect(server).await?;
    deaf.write_all(b"GET /flood HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await?;
    let mut first = [0];
    deaf.read_exact(&mut first).await?;

    let slow = tokio::spawn(async move { polite.get("/slow").await });
    let forever = tokio::spawn(async move { stuck.get("/forever").await });
    accepted.wait_for(|accepted| *accepted == 4).await?;
    let jobs = tokio::spawn(async move {
        let replies = tokio::join!(busy.get("/job"), multiplexed.get("/job"));
        (replies, busy, multiplexed)
    });
    accepted.wait_for(|accepted| *accepted == 6).await?;

    let signal = Instant::now();
    terminate_this_process()?;
    let tell = |what| writeln!(io::stdout(), "  {:>7.1?}  {what}", signal.elapsed());
    while TcpStream::connect(server).await.is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
    tell("a new client is refused")?;
    let late = expect(idle.get("/job").await, StatusCode::OK)?;
    tell("one that was idle still gets a response")?;
    let ((one, two), busy, multiplexed) = jobs.await?;
    let (one, two) = (expect(one, StatusCode::OK)?, expect(two, StatusCode::OK)?);
    ensure!(
        [&late, &one, &two].iter().all(|it| it.body == ANSWER),
        "an answer is not what it should be"
    );
    ensure!(
        late.is_last && one.is_last,
        "the server did not say that it will close the connection"
    );
    tell("the busy ones have theirs, to the last byte")?;
    idle.closed().await;
    busy.closed().await;
    multiplexed.closed().await;
    tell("their connections are closed, HTTP/2 ones too")?;
    expect(slow.await?, StatusCode::SERVICE_UNAVAILABLE)?;
    tell("the slow request has been asked to stop: 503")?;
    ensure!(signal.elapsed() >= GRACE, "the grace was cut short");
    expect(forever.await?, StatusCode::SERVICE_UNAVAILABLE)?;
    tell("the stuck request is aborted: 503")?;
    Ok(deaf)
}

fn expect(reply: Reply, status: StatusCode) -> anyhow::Result<Answer> {
    match reply {
        Reply::Whole(answer) if answer.status == status => Ok(answer),
        Reply::Whole(answer) => bail!("{} came instead of {status}", answer.status),
        Reply::NotSent => bail!("the connection was closed"),
        Reply::Lost(error) => Err(error),
    }
}

/// Fails unless exactly the stuck request and the connection of the client that does not read were
/// aborted.
pub(crate) fn check(stragglers: &Stragglers) -> anyhow::Result<()> {
    let requests: Vec<_> = stragglers
        .requests
        .iter()
        .filter_map(|it| it.name())
        .collect();
    ensure!(
        requests == ["GET /forever"],
        "the requests were {requests:?}"
    );
    let tasks: Vec<_> = stragglers.tasks.iter().filter_map(|it| it.name()).collect();
    ensure!(
        matches!(tasks[..], [name] if name.starts_with("connection ")),
        "the tasks were {tasks:?}"
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
