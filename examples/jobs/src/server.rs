//! A NATS server with JetStream, on loopback and a free port.

use std::path::PathBuf;
use std::process::Stdio;
use std::{env, fs, process};

use anyhow::{Context as _, bail};
use errgroup::Context;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// A server that runs. Dropping it kills it.
pub(crate) struct Server {
    /// `127.0.0.1` and its port.
    pub(crate) address: String,
    child: Child,
    /// Kept open: the server writes its log here.
    _log: Lines<BufReader<ChildStderr>>,
    _folder: Folder,
}

/// The folder of its streams, which is deleted in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Server {
    /// Starts one, and waits until it is ready.
    pub(crate) async fn start(ctx: &Context) -> anyhow::Result<Server> {
        let folder = Folder(env::temp_dir().join(format!("errgroup-jobs-{}", process::id())));
        fs::create_dir(&folder.0)?;
        // With port -1 it chooses a free one, and says which.
        let mut child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"])
            .arg(&folder.0)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("nats-server does not start; on Debian: apt-get install nats-server")?;
        let mut log = BufReader::new(child.stderr.take().context("no pipe")?).lines();
        let mut address = None;
        while let Some(line) = ctx.run(log.next_line()).await?? {
            if let Some((_, found)) = line.split_once("client connections on ") {
                address = Some(found.to_owned());
            }
            if line.ends_with("Server is ready") {
                return Ok(Server {
                    address: address.context("the server has no address")?,
                    child,
                    _log: log,
                    _folder: folder,
                });
            }
        }
        bail!("the server has exited: {}", child.wait().await?)
    }

    /// Stops it, and waits until it has exited.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}
