//! A child process under a context, with all that it starts: asked to leave when the context ends, killed after a grace,
//! and nothing of it left, whatever becomes of the future.
//!
//! ```sh
//! cargo run --features signal --example child_process            # plays four commands, and looks at what is left
//! cargo run --features signal --example child_process -- --timeout 0.5 --grace 2 make -j8
//! ```
//!
//! The second is timeout(1) for a whole tree of processes; SIGTERM and Ctrl-C end it too.
//!
//! The demonstration is a check as well. What the commands print comes through a socket that all of their processes hold:
//! its end is the proof that none is left.
//!
//! What concerns errgroup is in `process.rs`, to be copied.

#[cfg(unix)]
mod demo;
#[cfg(unix)]
mod process;

#[cfg(unix)]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    use clap::Parser;
    let cli = cli::Cli::parse();
    if cli.command.is_empty() {
        demo::play().await
    } else {
        cli.run().await
    }
}

#[cfg(not(unix))]
fn main() {
    eprintln!("process groups are Unix's; elsewhere another means ends a tree of processes");
}

#[cfg(unix)]
mod cli {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process;
    use std::time::Duration;

    use anyhow::Context as _;
    use errgroup::Context;
    use tokio::process::Command;

    use crate::process::run;

    /// Runs a command under a context, and leaves nothing of it behind.
    #[derive(clap::Parser)]
    pub(crate) struct Cli {
        /// How long the command may take
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        timeout: Option<Duration>,

        /// How long it may take to leave once it has been asked to
        #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
        grace: Duration,

        /// The command; without one, a demonstration
        #[arg(trailing_var_arg = true)]
        pub(crate) command: Vec<String>,
    }

    impl Cli {
        pub(crate) async fn run(self) -> anyhow::Result<()> {
            let mut ctx = Context::background().with_shutdown_signals()?;
            if let Some(timeout) = self.timeout {
                ctx = ctx.with_timeout_cause(timeout, "the command has had its time");
            }
            let (name, arguments) = self.command.split_first().context("no command")?;
            let mut command = Command::new(name);
            command.args(arguments);
            let ended = run(&ctx, command, self.grace)
                .await
                .with_context(|| format!("cannot run {name}"))?;
            ctx.check()?;
            // A process that a signal has ended has no code; a shell gives it 128 and the signal's number.
            let signal = ended.status.signal().unwrap_or_default();
            process::exit(ended.status.code().unwrap_or(128 + signal))
        }
    }

    fn seconds(text: &str) -> Result<Duration, String> {
        let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
        Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
    }
}
