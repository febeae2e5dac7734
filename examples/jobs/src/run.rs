//! The demonstration: a server, a producer, worker processes, and one fault.

use std::env;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use async_nats::jetstream;
use errgroup::{Context, Group};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::check::{self, Line, Seen};
use crate::server::Server;
use crate::{cancel, producer, streams};

/// The demonstration fails if it takes longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The size of the job, and the fault.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many items there are
    #[arg(long, default_value = "1000")]
    pub(crate) items: usize,
    /// How many milliseconds an item takes
    #[arg(long, default_value = "10")]
    pace: u64,
    /// How many milliseconds the item in the middle takes
    #[arg(long, default_value = "5000")]
    long: u64,
    /// After how many milliseconds without an answer a message is delivered again
    #[arg(long, default_value = "3000")]
    pub(crate) ack_wait: u64,
    /// What happens while the item in the middle runs
    #[arg(long)]
    pub(crate) fault: Option<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// Its worker is killed: SIGKILL
    Kill,
    /// Its worker is asked to stop: SIGTERM
    Term,
    /// One item in a hundred always fails, and one fails twice
    Fail,
    /// The job is cancelled
    Cancel,
}

/// What is special about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Short,
    Long,
    Broken,
    Flaky,
}

impl Options {
    pub(crate) fn kind(&self, number: usize) -> Kind {
        match (number % 100, self.fault) {
            _ if number == self.items / 2 => Kind::Long,
            (13, Some(Fault::Fail)) => Kind::Broken,
            (57, Some(Fault::Fail)) => Kind::Flaky,
            _ => Kind::Short,
        }
    }

    fn work(&self, number: usize) -> String {
        match self.kind(number) {
            Kind::Short => format!("wait {}", self.pace),
            Kind::Long => format!("wait {}", self.long),
            Kind::Broken => "fail".into(),
            Kind::Flaky => "fail until 3".into(),
        }
    }
}

/// Runs the job, and stops all processes.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let ctx = Context::background().with_shutdown_signals()?;
    let ctx = ctx.with_timeout(TIMEOUT);
    let server = Server::start(&ctx).await?;
    println!("nats-server: {}", server.address);
    let (g, ctx) = Group::<anyhow::Error>::with_context(&ctx);
    let outcome = ctx.run(job(&g, &ctx, &server.address, options)).await?;
    g.wait().await?;
    server.stop().await?;
    outcome
}

async fn job(
    g: &Group<anyhow::Error>,
    ctx: &Context,
    server: &str,
    options: &Options,
) -> anyhow::Result<()> {
    let js = jetstream::new(async_nats::connect(server).await?);
    streams::create(&js, Duration::from_millis(options.ack_wait)).await?;
    let items = (0..options.items).map(|number| options.work(number));
    producer::produce(ctx, &js, items.collect()).await?;
    println!("published: {} items", options.items);

    let started = SystemTime::now();
    let (sender, mut lines) = mpsc::unbounded_channel();
    let workers = (0..3).map(|index| start(g, index, server, sender.clone()));
    let mut workers = workers.collect::<anyhow::Result<Vec<_>>>()?;
    drop(sender);
    let mut at = None;
    if let Some(fault) = options.fault {
        let index = loop {
            let line = lines.recv().await.context("no worker is left")?;
            if line.text.contains("has begun") {
                break line.worker;
            }
        };
        println!("{fault:?}: worker {index}");
        match fault {
            Fault::Kill => signal(&workers[index], Signal::KILL)?,
            Fault::Term => signal(&workers[index], Signal::TERM)?,
            Fault::Fail => {}
            Fault::Cancel => cancel::cancel(&js, "the customer has left").await?,
        }
        at = Some(index);
    }
    let stream = js.get_stream(streams::ITEMS).await?;
    while stream.get_info().await?.state.messages > 0 {
        ctx.sleep(Duration::from_millis(10)).await?;
    }
    for (index, worker) in workers.iter_mut().enumerate() {
        let ends_by_itself = match options.fault {
            Some(Fault::Kill | Fault::Term) => at == Some(index),
            Some(Fault::Cancel) => true,
            _ => false,
        };
        if !ends_by_itself {
            signal(worker, Signal::TERM)?;
        }
        let status = worker.wait().await?;
        let is_killed = options.fault == Some(Fault::Kill) && at == Some(index);
        ensure!(status.success() != is_killed, "worker {index}: {status}");
    }
    let mut seen = Seen {
        started,
        at,
        lines: Vec::new(),
    };
    while let Some(line) = lines.recv().await {
        seen.lines.push(line);
    }
    check::check(ctx, &js, options, &seen).await
}

/// Starts a worker, whose output is printed and sent on.
fn start(
    g: &Group<anyhow::Error>,
    index: usize,
    server: &str,
    lines: mpsc::UnboundedSender<Line>,
) -> anyhow::Result<Child> {
    let mut child = Command::new(env::current_exe()?)
        .args(["worker", "--server", server])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("no pipe")?).lines();
    g.named("output").go(async move {
        while let Some(text) = output.next_line().await? {
            println!("worker {index}: {text}");
            let (at, worker) = (Instant::now(), index);
            drop(lines.send(Line { at, worker, text }));
        }
        Ok(())
    });
    Ok(child)
}

fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let id = child.id().context("the process has exited")?;
    let pid = Pid::from_raw(id.try_into()?).context("not a process id")?;
    Ok(kill_process(pid, signal)?)
}
