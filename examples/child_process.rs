//! Runs a command under a context, like timeout(1) but for all processes that the command starts.
//! At the end of the context they get SIGTERM, and after a grace period SIGKILL. None is left.
//!
//! ```sh
//! cargo run --features signal --example child_process -- --timeout 0.5 --grace 2 make -j8
//! cargo run --features signal --example child_process -- sleep 600    # and press Ctrl-C
//! ```
//!
//! `run` is to be copied. `--drop-after` shows what happens if its future is dropped.

#[cfg(not(unix))]
fn main() {
    eprintln!("process groups exist only on Unix");
}

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    unix::main()
}

#[cfg(unix)]
mod unix {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{self, ExitStatus};
    use std::time::Duration;
    use std::{fs, io};

    use anyhow::Context as _;
    use clap::Parser;
    use errgroup::Context;
    use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
    use tokio::process::Command;
    use tokio::time::{sleep, timeout};

    /// Runs a command under a context, and leaves none of its processes behind.
    #[derive(Parser)]
    struct Cli {
        /// The time for the command
        #[arg(long, value_name = "SECONDS", default_value = "86400")]
        timeout: f64,
        /// The time between SIGTERM and SIGKILL
        #[arg(long, value_name = "SECONDS", default_value = "1")]
        grace: f64,
        /// Drop the future after this time
        #[arg(long, value_name = "SECONDS", default_value = "86400")]
        drop_after: f64,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    }

    #[tokio::main]
    pub(crate) async fn main() -> anyhow::Result<()> {
        let cli = Cli::parse();
        let seconds = Duration::try_from_secs_f64;
        let ctx = Context::background().with_shutdown_signals()?;
        let ctx = ctx.with_timeout_cause(seconds(cli.timeout)?, "the command took too long");
        let mut command = Command::new(&cli.command[0]);
        command.args(&cli.command[1..]);

        let run = run(&ctx, command, seconds(cli.grace)?);
        let ended = timeout(seconds(cli.drop_after)?, run).await;
        let ended = ended.context("the future was dropped")?;
        let (status, killed) = ended.with_context(|| format!("cannot run {}", cli.command[0]))?;
        if killed {
            eprintln!("processes were left after the grace period, and were killed");
        }
        ctx.check()?;
        // A process that was ended by a signal has no code. A shell reports 128 + the signal.
        let signal = status.signal().unwrap_or_default();
        process::exit(status.code().unwrap_or(128 + signal))
    }

    /// The status of the process itself, and whether a process was left after the grace period and
    /// was killed.
    type Ended = (ExitStatus, bool);

    /// Runs `command` until it ends or `ctx` is done. Then the processes that are left of it get
    /// SIGTERM, and after `grace` SIGKILL. When this returns, none is left.
    ///
    /// # Errors
    ///
    /// If the context is done before the start, or if the process cannot be started. That the
    /// context is done later is not an error: check the context.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, all processes are killed at once.
    async fn run(ctx: &Context, mut command: Command, grace: Duration) -> io::Result<Ended> {
        ctx.check()?;
        let mut child = command.process_group(0).spawn()?;
        drop(command); // and the files that were meant for the process
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let mut group = ProcessGroup(id.and_then(Pid::from_raw));

        // If the context is done first, the wait is dropped, and the process goes on.
        let _ = ctx.run(child.wait()).await;
        group.signal(Signal::TERM);
        let left = async { (child.wait().await, group.emptied().await) };
        let killed = timeout(grace, left).await.is_err();
        if killed {
            group.signal(Signal::KILL);
            child.wait().await?;
            // The processes need a moment to end.
            let _ = timeout(Duration::from_secs(1), group.emptied()).await;
        }
        let status = child.wait().await?;
        group.0 = None;
        Ok((status, killed))
    }

    /// A process and its descendants that have not left its group. It kills them when it is
    /// dropped.
    ///
    /// The id of a group is not used again while a process is in it, even a zombie. It is set to
    /// `None` when a signal finds no process in the group, or when all have ended.
    struct ProcessGroup(Option<Pid>);

    impl ProcessGroup {
        fn signal(&mut self, signal: Signal) {
            self.0 = self.0.filter(|id| kill_process_group(*id, signal).is_ok());
        }

        /// Waits until the group is empty. It polls, because most of the processes are not our
        /// children.
        async fn emptied(&self) {
            while self.0.is_some_and(is_running) {
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    impl Drop for ProcessGroup {
        fn drop(&mut self) {
            self.signal(Signal::KILL);
        }
    }

    /// Whether a process of the group is running. A signal also finds zombies, which may stay for
    /// long in a container, so on Linux this reads the state of the processes.
    fn is_running(group: Pid) -> bool {
        let exists = test_kill_process_group(group).is_ok();
        if !exists || !cfg!(target_os = "linux") {
            return exists;
        }
        let group = group.as_raw_pid().to_string();
        fs::read_dir("/proc").map_or(true, |processes| {
            processes.flatten().any(|process| {
                let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
                // After the name, which may contain anything: the state, the parent, the group.
                let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
                let state = fields.next();
                fields.nth(1) == Some(&group) && !matches!(state, Some("Z" | "X"))
            })
        })
    }
}
