//! A job of a thousand items, done by several processes: a fan-out over gRPC, and in each process
//! another fan-out.
//!
//! ```sh
//! cargo run -p distributed -- run                  # starts three workers itself
//! cargo run -p distributed -- run --fault fail     # one item fails, and the rest stops
//! cargo run -p distributed -- run --fault kill     # a worker is killed: others do its items
//! cargo run -p distributed -- run --fault stop     # a worker stops answering: the same
//! cargo run -p distributed -- run --deadline 100ms # the deadline ends all
//!
//! # On each of several machines. It has no password, so keep it inside.
//! cargo run -p distributed -- worker --listen 0.0.0.0:7000
//! cargo run -p distributed -- run --worker 10.0.0.1:7000 --worker 10.0.0.2:7000
//! ```
//!
//! `coordinator.rs` sends batches to the workers, and `worker.rs` does their items. When the
//! program exits, the last task of each worker has ended, and no process is left.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use distributed::coordinator::{self, Job};
use distributed::fault::{self, Fault};
use distributed::fleet::Fleet;
use distributed::proto::Answer;
use distributed::spawned::Spawned;
use distributed::{report, worker};
use errgroup::Context;

/// How long the workers may take to say what has become of their items.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// A fan-out over several processes.
#[derive(Parser)]
enum Cli {
    /// Do items for other processes
    Worker(worker::Options),
    /// Have a job done by workers
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    job: Job,

    /// A worker that is there already
    #[arg(long = "worker", value_name = "ADDRESS")]
    workers: Vec<SocketAddr>,

    /// How many workers to start, and to stop in the end
    #[arg(
        long,
        value_name = "N",
        default_value = "3",
        conflicts_with = "workers"
    )]
    spawn: NonZeroUsize,

    /// How long an item waits on the workers that are started
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10ms",
        conflicts_with = "workers",
        value_parser = humantime::parse_duration
    )]
    pace: Duration,

    /// When to give up, all in all
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,

    /// How long a worker may be silent before it gets a ping. If it does not answer for three times
    /// as long, it is lost
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "500ms",
        value_parser = humantime::parse_duration
    )]
    keep_alive: Duration,

    /// What to try on one of the workers that are started, when half of the answers are there
    #[arg(long, conflicts_with = "workers")]
    fault: Option<Fault>,

    /// Print how many answers are there, each time that there is one more
    #[arg(long)]
    progress: bool,

    /// Print every answer
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Worker(options) => worker::run(&options).await,
        Cli::Run(run) => run.run().await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Run {
    /// Whatever becomes of the job, the workers that were started are stopped, and waited for.
    async fn run(&self) -> anyhow::Result<()> {
        let mut ctx = Context::background().with_shutdown_signals()?;
        if let Some(deadline) = self.deadline {
            ctx = ctx.with_timeout_cause(deadline, format!("--deadline {deadline:?}"));
        }
        let mut spawned = Vec::new();
        if self.workers.is_empty() {
            let pace = humantime::format_duration(self.pace);
            let keep_alive = humantime::format_duration(self.keep_alive);
            let args = [
                format!("--pace={pace}"),
                format!("--keep-alive={keep_alive}"),
            ];
            spawned = Spawned::start(&ctx, self.spawn.get(), &args).await?;
        }
        let outcome = self.report(&ctx, &mut spawned).await;
        let stopped = Spawned::stop_all(spawned).await;
        outcome.and(stopped.context("a worker does not stop"))
    }

    async fn report(&self, ctx: &Context, spawned: &mut [Spawned]) -> anyhow::Result<()> {
        let out = &mut io::stdout();
        for (index, worker) in spawned.iter().enumerate() {
            writeln!(
                out,
                "worker {index}: process {}, {}",
                worker.id, worker.addr
            )?;
        }
        let mut addrs = self.workers.clone();
        addrs.extend(spawned.iter().map(|worker| worker.addr));
        let fleet = Arc::new(Fleet::connect(ctx, addrs, self.keep_alive).await?);

        let began = Instant::now();
        let outcome = self.work(ctx, &fleet, spawned).await;
        let returned = Instant::now();
        match &outcome {
            Ok(answers) => {
                if self.list {
                    report::list(out, answers)?;
                }
                report::summary(out, answers, returned - began)?;
            }
            Err(error) => {
                writeln!(out, "failed after {:.1?}: {error:#}", returned - began)?;
            }
        }
        report::fleet(out, &fleet)?;
        // The job's own time may be up, and they are to answer all the same.
        let ctx = ctx.without_cancel().with_timeout(SETTLE_TIMEOUT);
        let settled = match fleet.settle(&ctx).await {
            Ok(accounts) => Ok(report::settled(out, &accounts, returned)?),
            Err(error) => Err(error.context("a worker does not settle")),
        };
        outcome.and(settled)
    }

    /// The job, with what goes on beside it.
    async fn work(
        &self,
        ctx: &Context,
        fleet: &Arc<Fleet>,
        spawned: &mut [Spawned],
    ) -> anyhow::Result<Vec<Answer>> {
        tokio::select! {
            answers = coordinator::run(ctx, fleet, &self.job) => Ok(answers?),
            Err(error) = self.inject(fleet, spawned) => Err(error),
            Err(error) = self.print_progress(fleet) => Err(error.into()),
            else => unreachable!("the job has an end, whatever the others do"),
        }
    }

    async fn inject(&self, fleet: &Fleet, spawned: &mut [Spawned]) -> anyhow::Result<()> {
        if let Some(fault) = self.fault {
            let worker = fault::inject(fault, fleet, self.job.items, spawned).await?;
            writeln!(io::stdout(), "{fault:?}: worker {worker}")?;
        }
        Ok(())
    }

    async fn print_progress(&self, fleet: &Fleet) -> io::Result<()> {
        let mut answers = fleet.answers();
        while self.progress && answers.changed().await.is_ok() {
            let answers = *answers.borrow_and_update();
            writeln!(io::stdout(), "{answers} of {} items", self.job.items)?;
        }
        Ok(())
    }
}
