//! The demonstration: a server, a producer, worker processes, and one fault.

use std::env;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use async_nats::jetstream;
use errgroup::{Context, Group};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::check::{self, Seen};
use crate::server::{Server, terminate};
use crate::{cancel, producer, streams};

/// The demonstration fails if it takes longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The size of the job, and the fault.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many items there are
    #[arg(long, default_value = "1000")]
    pub(crate) items: usize,
    /// How many worker processes there are
    #[arg(long, default_value = "3")]
    workers: usize,
    /// How many milliseconds an item takes
    #[arg(long, default_value = "10")]
    pace: u64,
    /// How many milliseconds the item in the middle takes
    #[arg(long, default_value = "5000")]
    long: u64,
    /// After how many milliseconds without an answer a message is delivered again
    #[arg(long, default_value = "2000")]
    ack_wait: u64,
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

impl Options {
    /// The item that takes long.
    pub(crate) fn middle(&self) -> usize {
        self.items / 2
    }

    /// With the fault `fail`: the items that always fail.
    pub(crate) fn is_broken(&self, number: usize) -> bool {
        self.fault == Some(Fault::Fail) && number % 100 == 13
    }

    /// With the fault `fail`: the items that succeed the third time.
    pub(crate) fn is_flaky(&self, number: usize) -> bool {
        self.fault == Some(Fault::Fail) && number % 100 == 57
    }

    fn work(&self, number: usize) -> String {
        if self.is_broken(number) {
            "fail".into()
        } else if self.is_flaky(number) {
            "fail until 3".into()
        } else if number == self.middle() {
            format!("wait {}", self.long)
        } else {
            format!("wait {}", self.pace)
        }
    }
}

/// Runs the job, and stops all processes.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let ctx = Context::background().with_timeout(TIMEOUT);
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

    let (sender, mut lines) = mpsc::unbounded_channel();
    let mut seen = Seen {
        started: SystemTime::now(),
        at: None,
        statuses: Vec::new(),
        lines: Vec::new(),
    };
    let workers = (0..options.workers).map(|index| start(g, index, server, sender.clone()));
    let mut workers = workers.collect::<anyhow::Result<Vec<_>>>()?;
    drop(sender);
    if let Some(fault) = options.fault {
        let index = loop {
            let (index, line) = lines.recv().await.context("no worker is left")?;
            if line.contains("has begun") {
                break index;
            }
        };
        let worker = &mut workers[index];
        println!("{fault:?}: worker {index}");
        match fault {
            Fault::Kill => worker.kill().await?,
            Fault::Term => terminate(worker)?,
            Fault::Fail => {}
            Fault::Cancel => cancel::cancel(&js, "the customer has left").await?,
        }
        seen.at = Some(index);
    }
    let stream = js.get_stream(streams::ITEMS).await?;
    while stream.get_info().await?.state.messages > 0 {
        ctx.sleep(Duration::from_millis(10)).await?;
    }
    if options.fault != Some(Fault::Cancel) {
        for worker in workers.iter().filter(|worker| worker.id().is_some()) {
            terminate(worker)?;
        }
    }
    for worker in &mut workers {
        seen.statuses.push(worker.wait().await?);
    }
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
    lines: mpsc::UnboundedSender<(usize, String)>,
) -> anyhow::Result<Child> {
    let mut child = Command::new(env::current_exe()?)
        .args(["worker", "--server", server])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("no pipe")?).lines();
    g.named("output").go(async move {
        while let Some(line) = output.next_line().await? {
            println!("worker {index}: {line}");
            drop(lines.send((index, line)));
        }
        Ok(())
    });
    Ok(child)
}
