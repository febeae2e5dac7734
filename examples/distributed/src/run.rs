//! The demonstration: the processes of the tree, one call, and one fault.

use std::env;
use std::ops::Range;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use errgroup::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::{self, Client, PONG};
use crate::proto::{CountRequest, Counts, FailRequest};
use crate::tally::now;

/// The demonstration fails if it takes longer.
const TIMEOUT: Duration = Duration::from_secs(200);
/// The gateway, three services, and 8 calls of each of these.
const CALLS: u64 = 1 + 3 + 3 * 8;
/// Where it is in the tree, after two shards and three services.
const GATEWAY: usize = 5;
/// The call that fails.
const BROKEN: &str = "gateway/1/3";
/// How long a call of a shard takes that is to succeed.
const QUICK: Duration = Duration::from_millis(100);
/// How long a call of a shard takes if nothing ends it: longer than any limit that is checked.
const LONG: Duration = Duration::from_secs(60);
/// The deadline that is to pass, unless the machine needs more time to start all calls.
const SHORT: Duration = Duration::from_millis(500);
/// The time until the deadline when all levels but one are stopped. It is less than `PONG`, so that
/// the deadline passes before a ping times out.
const ALONE: Duration = Duration::from_millis(1500);
/// How long the program waits between two looks at the counts.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What happens while the calls run
    #[arg(long)]
    fault: Option<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Fault {
    /// One call of a shard fails
    Fail,
    /// The client is killed: SIGKILL
    Kill,
    /// The client stops answering: SIGSTOP
    Stop,
    /// The deadline of the client passes
    Deadline,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let ctx = Context::background().with_shutdown_signals()?;
    let ctx = ctx.with_timeout(TIMEOUT);
    let all = async {
        demonstrate(&ctx, options.fault).await?;
        if options.fault == Some(Fault::Deadline) {
            stop_all_but_one_level(&ctx).await?;
        }
        Ok(())
    };
    ctx.run(all).await?
}

/// Shows that the deadline reaches every process. Where the processes above and below are stopped,
/// there is no disconnect and no status, so only a timer of its own can end a call.
async fn stop_all_but_one_level(ctx: &Context) -> anyhow::Result<()> {
    let mut timeout = ALONE;
    for (level, nodes, calls) in [
        ("gateway", 5..6, 1),
        ("services", 2..5, 3),
        ("shards", 0..2, 24),
    ] {
        let mut stopped = stop_all_but(ctx, &nodes, timeout).await?;
        // A timeout that was too short is not tried again.
        timeout = stopped.timeout;
        let counts = loop {
            let counts = count(ctx, &mut stopped.nodes[nodes.clone()]).await?;
            if counts.running == 0 {
                break counts;
            }
            ctx.sleep(PAUSE).await?;
        };
        let timed_out = counts.timed_out;
        println!("{level}: the deadline has ended {timed_out} of {calls} calls");
        ensure!(timed_out == calls, "the counts are wrong: {counts:?}");
    }
    Ok(())
}

/// Starts all calls, and stops the client and all services but these before the deadline of the
/// calls passes. If the deadline passes too early, all is done again with twice the time.
async fn stop_all_but(
    ctx: &Context,
    nodes: &Range<usize>,
    mut timeout: Duration,
) -> anyhow::Result<Calls> {
    loop {
        let calls = Calls::start_all(ctx, timeout).await?;
        let left = calls.deadline.saturating_duration_since(Instant::now());
        ctx.sleep(left.saturating_sub(ALONE)).await?;
        signal(&calls.client, Signal::STOP)?;
        for (at, node) in calls.nodes.iter().enumerate() {
            if !nodes.contains(&at) {
                signal(&node.child, Signal::STOP)?;
            }
        }
        if Instant::now() < calls.deadline {
            return Ok(calls);
        }
        timeout = calls.timeout * 2;
    }
}

/// All calls, while they run.
struct Calls {
    nodes: Vec<Node>,
    client: Child,
    /// The timeout of the client.
    timeout: Duration,
    /// When the client was started, as `now` gives it.
    began: u64,
    /// The deadline of the client is this one, or a little later.
    deadline: Instant,
}

impl Calls {
    /// Starts a tree and a client. Each call of a shard takes `time` if nothing ends it.
    async fn start(time: Duration, timeout: Duration) -> anyhow::Result<Calls> {
        let nodes = start_tree().await?;
        Ok(Calls {
            began: now(),
            deadline: Instant::now() + timeout,
            timeout,
            client: start_client(&nodes[GATEWAY], time, timeout)?,
            nodes,
        })
    }

    /// Starts a tree and a client, and waits until all calls run. If the deadline of the client
    /// passes first, all are started again with twice the time. If they never run, the time of the
    /// demonstration runs out.
    async fn start_all(ctx: &Context, mut timeout: Duration) -> anyhow::Result<Calls> {
        loop {
            let mut calls = Calls::start(LONG, timeout).await?;
            while Instant::now() < calls.deadline {
                if count(ctx, &mut calls.nodes).await?.running == CALLS {
                    return Ok(calls);
                }
                ctx.sleep(PAUSE).await?;
            }
            timeout *= 2;
        }
    }

    /// Injects the fault. The deadline passes by itself.
    async fn inject(&mut self, ctx: &Context, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Fail => {
                println!("{CALLS} calls run; one of them fails");
                // It waits in one of the shards. The other services do nothing.
                for node in &mut self.nodes {
                    let path = BROKEN.to_owned();
                    let request = client::request(ctx, FailRequest { path });
                    node.client.fail(request).await?;
                }
            }
            Fault::Kill => {
                println!("{CALLS} calls run; the client is killed");
                signal(&self.client, Signal::KILL)?;
            }
            Fault::Stop => {
                println!("{CALLS} calls run; the client stops answering");
                signal(&self.client, Signal::STOP)?;
            }
            Fault::Deadline => {}
        }
        Ok(())
    }
}

/// Starts two shards, three services that call them, and the gateway.
async fn start_tree() -> anyhow::Result<Vec<Node>> {
    let mut nodes = vec![Node::start(&[]).await?, Node::start(&[]).await?];
    let shards = format!("--below={},{}", nodes[0].address, nodes[1].address);
    let mut services = Vec::new();
    for _ in 0..3 {
        let service = Node::start(&["--calls=8".into(), shards.clone()]).await?;
        services.push(format!("--below={}", service.address));
        nodes.push(service);
    }
    nodes.push(Node::start(&services).await?);
    Ok(nodes)
}

fn start_client(gateway: &Node, time: Duration, timeout: Duration) -> anyhow::Result<Child> {
    let (time, timeout) = (time.as_millis(), timeout.as_millis());
    Ok(Command::new(env::current_exe()?)
        .args(["call", "--gateway", &gateway.address])
        .args(["--millis", &time.to_string()])
        .args(["--deadline", &timeout.to_string()])
        .kill_on_drop(true)
        .spawn()?)
}

async fn demonstrate(ctx: &Context, fault: Option<Fault>) -> anyhow::Result<()> {
    let mut calls = match fault {
        None => Calls::start(QUICK, LONG).await?,
        Some(Fault::Deadline) => Calls::start_all(ctx, SHORT).await?,
        Some(_) => Calls::start_all(ctx, LONG).await?,
    };
    let mut began = calls.began;
    if let Some(fault) = fault {
        if fault != Fault::Deadline {
            began = now();
        }
        calls.inject(ctx, fault).await?;
    }
    let Calls {
        mut nodes,
        mut client,
        timeout,
        ..
    } = calls;
    let counts = loop {
        let counts = count(ctx, &mut nodes).await?;
        if counts.done + counts.failed + counts.cancelled == CALLS {
            break counts;
        }
        ctx.sleep(PAUSE).await?;
    };
    if fault == Some(Fault::Stop) {
        client.start_kill()?;
    }
    let status = client.wait().await?;
    let (done, failed, cancelled) = (counts.done, counts.failed, counts.cancelled);
    println!("{done} calls are done, {failed} have failed, {cancelled} were cancelled");
    let (ends, since, limit) = match fault {
        None => ((CALLS, 0), "the start", LONG / 2),
        // The call, its service and the gateway. No ping can time out so soon.
        Some(Fault::Fail) => ((0, 3), "the failure", PONG),
        Some(Fault::Kill) => ((0, 0), "the kill", PONG),
        Some(Fault::Stop) => ((0, 0), "the stop", LONG / 2),
        Some(Fault::Deadline) => ((0, 0), "the start", timeout + LONG / 2),
    };
    let from = if failed > 0 { counts.failed_at } else { began };
    let took = Duration::from_nanos(counts.ended_at.saturating_sub(from));
    println!(
        "the last call has ended {:.1} ms after {since}",
        took.as_secs_f64() * 1e3
    );
    ensure!((done, failed) == ends, "the counts are wrong");
    ensure!(status.success() == fault.is_none(), "the client: {status}");
    ensure!(took < limit, "that is more than {limit:?}");
    let is_early = fault == Some(Fault::Deadline) && took < timeout / 2;
    ensure!(!is_early, "the deadline was {timeout:?}");
    for shard in 0..2 {
        while count(ctx, &mut nodes[shard..=shard]).await?.ended_at == 0 {
            // The shard that is connected first may have had all calls. Later ones are balanced.
            let mut client = start_client(&nodes[GATEWAY], QUICK, LONG)?;
            ensure!(client.wait().await?.success(), "a later call has failed");
        }
    }
    for node in &nodes {
        signal(&node.child, Signal::TERM)?;
    }
    for node in &mut nodes {
        ensure!(node.child.wait().await?.success(), "a service has failed");
    }
    Ok(())
}

/// A service that this process has started. Dropping it kills it.
struct Node {
    child: Child,
    address: String,
    client: Client,
}

impl Node {
    async fn start(arguments: &[String]) -> anyhow::Result<Node> {
        let mut child = Command::new(env::current_exe()?)
            .arg("node")
            .args(arguments)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no pipe")?;
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).await?;
        let address = address.trim_end().to_owned();
        Ok(Node {
            child,
            client: client::connect([address.as_str()].into_iter())?,
            address,
        })
    }
}

/// The sum over all services.
async fn count(ctx: &Context, nodes: &mut [Node]) -> anyhow::Result<Counts> {
    let mut sum = Counts::default();
    for node in nodes {
        let request = client::request(ctx, CountRequest {});
        let counts = node.client.count(request).await?.into_inner();
        sum.running += counts.running;
        sum.done += counts.done;
        sum.failed += counts.failed;
        sum.cancelled += counts.cancelled;
        sum.timed_out += counts.timed_out;
        sum.ended_at = sum.ended_at.max(counts.ended_at);
        let failed_at = [sum.failed_at, counts.failed_at].into_iter();
        sum.failed_at = failed_at.filter(|&at| at > 0).min().unwrap_or_default();
    }
    Ok(sum)
}

fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let id = child.id().context("the process has exited")?;
    let pid = Pid::from_raw(id.try_into()?).context("not a process id")?;
    Ok(kill_process(pid, signal)?)
}
