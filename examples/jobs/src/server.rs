//! A NATS server with JetStream, on loopback and a free port, which ends with this value.

use std::env;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use std::{fs, process};

use anyhow::{Context as _, bail};
use errgroup::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// A server that runs. Dropping it kills it.
pub(crate) struct Server {
    /// `127.0.0.1` and its port.
    pub(crate) address: String,
    child: Child,
    folder: Folder,
    /// Kept open: the server writes its log here.
    _log: Lines<BufReader<ChildStderr>>,
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
        let log = child.stderr.take().context("no pipe")?;
        let mut log = BufReader::new(log).lines();
        let mut address = None;
        let ready = async {
            while let Some(line) = log.next_line().await? {
                if let Some((_, found)) = line.split_once("client connections on ") {
                    address = Some(found.to_owned());
                }
                if line.ends_with("Server is ready") {
                    return address.context("the server has no address");
                }
            }
            bail!("the server has exited: {:?}", child.wait().await?)
        };
        let address = ctx.run(ready).await??;
        Ok(Server {
            address,
            child,
            folder,
            _log: log,
        })
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        terminate(&self.child)?;
        let ended = tokio::time::timeout(Duration::from_secs(5), self.child.wait());
        ended.await.context("the server does not stop")??;
        drop(self.folder);
        Ok(())
    }
}

/// Sends SIGTERM to a child that runs.
pub(crate) fn terminate(child: &Child) -> anyhow::Result<()> {
    let id = child.id().context("the process has exited")?;
    let pid = Pid::from_raw(id.try_into()?).context("not a process id")?;
    Ok(kill_process(pid, Signal::TERM)?)
}
