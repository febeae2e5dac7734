//! Workers that the coordinator starts itself, and does not leave behind.

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use errgroup::{Context, fan_out};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a worker may take to end when it has been asked to.
const GRACE: Duration = Duration::from_secs(2);

/// A worker that is a child of this process.
///
/// Dropping it kills it. If this process is killed itself, the system closes the pipe, and the
/// worker stops. A worker that is stopped by a signal does not see that. The system sends it
/// SIGHUP, because it leads a process group that has lost its parent.
#[derive(Debug)]
pub struct Spawned {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its process id.
    pub id: u32,
    child: Child,
    pipe: ChildStdin,
    _stdout: BufReader<ChildStdout>,
}

impl Spawned {
    /// Starts `count` workers of this program, with these additional arguments, and waits until all
    /// of them listen.
    ///
    /// # Errors
    ///
    /// If one of them does not start, or the context ends; then none is left.
    pub async fn start(ctx: &Context, count: usize, args: &[String]) -> anyhow::Result<Vec<Self>> {
        let args = args.to_owned();
        fan_out(ctx, 0..count, move |_ctx, _| {
            Spawned::start_one(args.clone())
        })
        .all()
        .await
    }

    async fn start_one(args: Vec<String>) -> anyhow::Result<Spawned> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["worker", "--parent-pipe"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (Some(pipe), Some(stdout), Some(id)) =
            (child.stdin.take(), child.stdout.take(), child.id())
        else {
            bail!("a worker was started without its pipes");
        };
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).await?;
        let addr = line
            .strip_prefix("listening on ")
            .and_then(|addr| addr.trim_end().parse().ok())
            .with_context(|| format!("a worker began with {line:?}"))?;
        Ok(Spawned {
            addr,
            id,
            child,
            pipe,
            _stdout: stdout,
        })
    }

    /// Has one of its items fail.
    ///
    /// # Errors
    ///
    /// If it has exited.
    pub async fn fail(&mut self) -> io::Result<()> {
        self.pipe.write_all(b"fail\n").await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// If it has exited.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.id)?;
        signal::kill(Pid::from_raw(id), signal).with_context(|| format!("process {id}"))
    }

    /// Closes its pipe, and kills it if it does not exit.
    async fn stop(self, ctx: Context) -> io::Result<()> {
        let Spawned {
            mut child, pipe, ..
        } = self;
        drop(pipe);
        match ctx.run(child.wait()).await {
            Ok(status) => status.map(drop),
            Err(_) => child.kill().await,
        }
    }

    /// Stops all of them, whatever has become of the job. When it returns, none is left.
    ///
    /// # Errors
    ///
    /// If one of them can be neither waited for nor killed.
    pub async fn stop_all(workers: Vec<Spawned>) -> io::Result<()> {
        let grace = Context::background().with_timeout(GRACE);
        // Its own deadline is each one's to deal with, and so not the fan-out's.
        let outcomes = fan_out(&Context::background(), workers, move |_ctx, worker| {
            worker.stop(grace.clone())
        })
        .settle()
        .await;
        outcomes.into_iter().collect()
    }
}
