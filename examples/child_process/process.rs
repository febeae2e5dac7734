//! The bridge: a child process, with all that it starts, under a context.

use std::fs;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use errgroup::Context;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How a process and what it started came to their end.
pub(crate) struct Ended {
    /// The process's own.
    pub(crate) status: ExitStatus,
    /// Some were there still when the grace was over.
    pub(crate) killed: bool,
}

/// Runs `command` until it ends or `ctx` does. Who is left then of what it started, the process itself or another, is asked
/// to leave (SIGTERM), and after `grace` is killed (SIGKILL): when this returns, none is left.
///
/// That the context ends meanwhile is no error of this: ask the context.
///
/// # Errors
///
/// If the context has ended before, or the process cannot be started.
///
/// # Cancel safety
///
/// When the future is dropped, all are killed, and not asked before.
pub(crate) async fn run(ctx: &Context, mut command: Command, grace: Duration) -> io::Result<Ended> {
    ctx.check()?;
    let mut child = command.process_group(0).spawn()?;
    drop(command); // and with it the files that were meant for the process
    let mut group = ProcessGroup::led_by(&child);

    // If the context ends first, the wait is dropped, and the process runs on.
    let _ = ctx.run(child.wait()).await;
    group.signal(Signal::TERM);
    let left = async {
        child.wait().await?;
        group.emptied().await;
        Ok::<_, io::Error>(())
    };
    let killed = match timeout(grace, left).await {
        Ok(left) => left.map(|()| false)?,
        Err(_elapsed) => {
            group.signal(Signal::KILL);
            child.wait().await?;
            // A signal that cannot be refused still takes its moment.
            let _ = timeout(Duration::from_secs(1), group.emptied()).await;
            true
        }
    };
    group.0 = None;
    let status = child.wait().await?;
    Ok(Ended { status, killed })
}

/// A process, and those of its descendants that have not left its group. Dropping it kills them.
///
/// The number of a group is nobody else's as long as there is a process in it, be it a zombie. It is forgotten when a signal
/// finds nobody under it, or everybody has ended.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn led_by(child: &Child) -> ProcessGroup {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        ProcessGroup(id.and_then(Pid::from_raw))
    }

    fn signal(&mut self, signal: Signal) {
        self.0 = self.0.filter(|id| kill_process_group(*id, signal).is_ok());
    }

    /// Waits until nobody is left. There is no event for that: most of them are not our children.
    async fn emptied(&self) {
        while self.0.is_some_and(lives) {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Whether a process of the group has not ended. To a signal, a zombie is there; it is one until it is reaped, and in
/// a container that may be a second or never. So Linux is asked for more.
fn lives(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    if !cfg!(target_os = "linux") {
        return true;
    }
    let Ok(processes) = fs::read_dir("/proc") else {
        return true;
    };
    let group = group.as_raw_pid().to_string();
    processes.flatten().any(|process| {
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // After the name, which may hold anything: the state, the parent, the group.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let state = fields.next();
        fields.nth(1) == Some(&group) && !matches!(state, Some("Z" | "X"))
    })
}
