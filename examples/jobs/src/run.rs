//! The demonstration: a server, a job, worker processes, one fault, and a count of the results.

use std::collections::HashMap;
use std::env;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, Context as JetStream};
use errgroup::{Context, Group};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::item::{CAUSE, ERROR, TRIED};
use crate::job::{self, DEAD, ITEMS, RESULTS, TRACE};

/// The demonstration fails if it takes longer.
const TIMEOUT: Duration = Duration::from_secs(120);
const WORKERS: usize = 3;
/// The work of an item that fails at every try.
const BROKEN: &str = "fail 5";

/// The size of the job, and the fault.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many items there are
    #[arg(long, default_value = "1000")]
    items: usize,
    /// How many milliseconds an item takes
    #[arg(long, default_value = "10")]
    pace: u64,
    /// How many milliseconds the item in the middle takes
    #[arg(long, default_value = "5000")]
    long: u64,
    /// After how many milliseconds without an answer a message is delivered again
    #[arg(long, default_value = "3000")]
    ack_wait: u64,
    /// What happens while the item in the middle runs
    #[arg(long)]
    fault: Option<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Fault {
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
    fn work(&self, number: usize) -> String {
        match (number % 100, self.fault) {
            _ if number == self.items / 2 => format!("wait {}", self.long),
            (13, Some(Fault::Fail)) => BROKEN.into(),
            (57, Some(Fault::Fail)) => "fail 2".into(),
            _ => format!("wait {}", self.pace),
        }
    }
}

/// Starts a server on loopback, does the job, and stops all processes.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let ctx = Context::background().with_shutdown_signals()?;
    let ctx = ctx.with_timeout(TIMEOUT);
    let folder = tempfile::tempdir()?;
    // With port -1 it chooses a free one, and says which.
    let mut server = Command::new("nats-server")
        .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"])
        .arg(folder.path())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("nats-server does not start; on Debian: apt-get install nats-server")?;
    let mut log = BufReader::new(server.stderr.take().context("no pipe")?).lines();
    let address = loop {
        let line = ctx.run(log.next_line()).await??;
        let line = line.context("nats-server has exited")?;
        if let Some((_, address)) = line.split_once("client connections on ") {
            break address.to_owned();
        }
    };
    println!("nats-server: {address}");
    let (g, ctx) = Group::<anyhow::Error>::with_context(&ctx);
    let outcome = ctx.run(demonstrate(&g, &ctx, &address, options)).await?;
    g.wait().await?;
    server.kill().await?;
    outcome
}

async fn demonstrate(
    g: &Group<anyhow::Error>,
    ctx: &Context,
    server: &str,
    options: &Options,
) -> Result<()> {
    let js = jetstream::new(async_nats::connect(server).await?);
    job::create(&js, Duration::from_millis(options.ack_wait)).await?;
    let items = (0..options.items).map(|number| options.work(number));
    job::produce(ctx, &js, items.collect()).await?;
    println!("published: {} items", options.items);

    let started = Instant::now();
    let (sender, mut lines) = mpsc::unbounded_channel();
    let workers = (0..WORKERS).map(|index| start(g, index, server, sender.clone()));
    let mut workers = workers.collect::<Result<Vec<_>>>()?;
    drop(sender);
    let mut fault_at = started;
    if let Some(fault) = options.fault {
        let index = loop {
            let line: Line = lines.recv().await.context("no worker is left")?;
            if line.text.contains("has begun") {
                break line.worker;
            }
        };
        println!("{fault:?}: worker {index}");
        fault_at = Instant::now();
        match fault {
            Fault::Kill => workers.remove(index).kill().await?,
            Fault::Term => terminate(&workers[index])?,
            Fault::Fail => {}
            Fault::Cancel => job::cancel(&js, "the customer has left").await?,
        }
    }
    let stream = js.get_stream(ITEMS).await?;
    while stream.get_info().await?.state.messages > 0 {
        ctx.sleep(Duration::from_millis(10)).await?;
    }
    if options.fault.is_none() {
        let per_second = options.items as f64 / started.elapsed().as_secs_f64();
        println!("{per_second:.0} items per second");
    }
    for worker in &mut workers {
        terminate(worker)?; // A second SIGTERM does nothing.
        let status = worker.wait().await?;
        ensure!(status.success(), "a worker has failed: {status}");
    }
    let mut cancelled = 0;
    while let Some(Line { worker, at, text }) = lines.recv().await {
        if text.starts_with("context cancelled: job cancelled: ") {
            cancelled += 1;
            let took = at - fault_at;
            println!("worker {worker}: its last task has ended {took:.1?} after the cancel");
        }
    }
    let are_cancelled = cancelled == WORKERS || options.fault != Some(Fault::Cancel);
    ensure!(are_cancelled, "only {cancelled} workers were cancelled");
    check(&js, options).await
}

/// Counts the results. Fails if an item is lost, is there twice, or has lost its trace.
async fn check(js: &JetStream, options: &Options) -> Result<()> {
    let (mut traces, mut again) = (HashMap::new(), 0);
    for name in [RESULTS, DEAD] {
        let stream = js.get_stream(name).await?;
        let last = stream.cached_info().state.last_sequence;
        println!("{name}: {last}");
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await?;
            let header = |name| message.headers.get(name).map_or("", |it| it.as_str());
            let [tries, error, cause] = [TRIED, ERROR, CAUSE].map(header);
            let subject = message.subject.as_str();
            if name == DEAD {
                println!("{subject}: {tries} tries: {error}: {cause}");
            }
            again += u32::from(tries != "1");
            let earlier = traces.insert(subject.to_owned(), header(TRACE).to_owned());
            ensure!(earlier.is_none(), "{subject} is there twice");
        }
    }
    println!("{again} of them not at the first try");
    if options.fault == Some(Fault::Cancel) {
        ensure!(traces.len() < options.items, "the job was not cancelled");
        return Ok(());
    }
    for number in 0..options.items {
        let is_broken = options.work(number) == BROKEN;
        let subject = format!("{}.{number}", if is_broken { DEAD } else { RESULTS });
        let trace = traces.remove(&subject);
        let is_right = trace == Some(job::trace(number));
        ensure!(is_right, "{subject} is lost, or its trace: {trace:?}");
    }
    ensure!(traces.is_empty(), "too many: {traces:?}");
    println!("all {} items are there, and none twice", options.items);
    Ok(())
}

/// What a worker has printed.
struct Line {
    worker: usize,
    at: Instant,
    text: String,
}

/// Starts a worker, whose output is printed and sent on.
fn start(
    g: &Group<anyhow::Error>,
    worker: usize,
    server: &str,
    lines: mpsc::UnboundedSender<Line>,
) -> Result<Child> {
    let mut child = Command::new(env::current_exe()?)
        .args(["worker", server])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("no pipe")?).lines();
    g.named("output").go(async move {
        while let Some(text) = output.next_line().await? {
            let at = Instant::now();
            println!("worker {worker}: {text}");
            drop(lines.send(Line { worker, at, text }));
        }
        Ok(())
    });
    Ok(child)
}

/// Asks a worker to stop: SIGTERM.
fn terminate(child: &Child) -> Result<()> {
    let id = child.id().context("the process has exited")?;
    let pid = Pid::from_raw(id.try_into()?).context("not a process id")?;
    Ok(kill_process(pid, Signal::TERM)?)
}
