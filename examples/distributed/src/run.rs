//! The demonstration: the processes of the tree, one call, and one fault.

use std::env;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use errgroup::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::{self, Client};
use crate::proto::{CountRequest, Counts};
use crate::tally::now;

/// The demonstration fails if it takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The gateway, three services, and 8 calls of each of these.
const CALLS: u64 = 1 + 3 + 3 * 8;
/// Where it is in the tree, after two shards and three services.
const GATEWAY: usize = 5;
/// The deadline when all levels but one are stopped: in milliseconds, and less than `PONG`, so that
/// it passes before a ping times out.
const ALONE: &str = "4500";

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
    for (level, nodes, calls) in [
        ("gateway", 5..6, 1),
        ("services", 2..5, 3),
        ("shards", 0..2, 24),
    ] {
        let mut tree = start_tree().await?;
        let client = start_client(&tree[GATEWAY], "20000", ALONE, "")?;
        while count(ctx, &mut tree).await?.running < CALLS {
            ctx.sleep(Duration::from_millis(10)).await?;
        }
        signal(&client, Signal::STOP)?;
        for (_, node) in tree
            .iter()
            .enumerate()
            .filter(|(at, _)| !nodes.contains(at))
        {
            signal(&node.child, Signal::STOP)?;
        }
        let counts = loop {
            let counts = count(ctx, &mut tree[nodes.clone()]).await?;
            if counts.running == 0 {
                break counts;
            }
            ctx.sleep(Duration::from_millis(10)).await?;
        };
        let timed_out = counts.timed_out;
        println!("{level}: the deadline has ended {timed_out} of {calls} calls");
        ensure!(timed_out == calls, "the counts are wrong: {counts:?}");
    }
    Ok(())
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

fn start_client(gateway: &Node, millis: &str, deadline: &str, fail: &str) -> anyhow::Result<Child> {
    Ok(Command::new(env::current_exe()?)
        .args(["call", "--gateway", &gateway.address, "--fail", fail])
        .args(["--millis", millis, "--deadline", deadline])
        .kill_on_drop(true)
        .spawn()?)
}

async fn demonstrate(ctx: &Context, fault: Option<Fault>) -> anyhow::Result<()> {
    let mut nodes = start_tree().await?;
    let (millis, deadline, fail) = match fault {
        None => ("100", "20000", ""),
        Some(Fault::Fail) => ("20000", "20000", "gateway/1/3"),
        Some(Fault::Kill | Fault::Stop) => ("20000", "20000", ""),
        // All calls run by then, also on a busy machine.
        Some(Fault::Deadline) => ("20000", "2000", ""),
    };
    let mut client = start_client(&nodes[GATEWAY], millis, deadline, fail)?;
    let mut began = now();
    if let Some(fault @ (Fault::Kill | Fault::Stop)) = fault {
        while count(ctx, &mut nodes).await?.running < CALLS {
            ctx.sleep(Duration::from_millis(10)).await?;
        }
        println!("{CALLS} calls run; {fault:?}: the client");
        began = now();
        let is_kill = fault == Fault::Kill;
        signal(&client, if is_kill { Signal::KILL } else { Signal::STOP })?;
    }
    let counts = loop {
        let counts = count(ctx, &mut nodes).await?;
        if counts.done + counts.failed + counts.cancelled == CALLS {
            break counts;
        }
        ctx.sleep(Duration::from_millis(10)).await?;
    };
    if fault == Some(Fault::Stop) {
        client.start_kill()?;
    }
    let status = client.wait().await?;
    let (done, failed, cancelled) = (counts.done, counts.failed, counts.cancelled);
    println!("{done} calls are done, {failed} have failed, {cancelled} were cancelled");
    let (ends, since, limit) = match fault {
        None => ((CALLS, 0), "the start", 10e3),
        // The call, its service and the gateway. No ping times out before the limit.
        Some(Fault::Fail) => ((0, 3), "the failure", 4e3),
        Some(Fault::Kill) => ((0, 0), "the kill", 4e3),
        Some(Fault::Stop) => ((0, 0), "the stop", 10e3),
        Some(Fault::Deadline) => ((0, 0), "the start", 10e3),
    };
    let from = if failed > 0 { counts.failed_at } else { began };
    let millis = counts.ended_at.saturating_sub(from) as f64 / 1e6;
    println!("the last call has ended {millis:.1} ms after {since}");
    ensure!((done, failed) == ends, "the counts are wrong");
    ensure!(status.success() == fault.is_none(), "the client: {status}");
    ensure!(millis < limit, "that is more than {limit} ms");
    for shard in 0..2 {
        while count(ctx, &mut nodes[shard..=shard]).await?.ended_at == 0 {
            // The shard that is connected first may have had all calls. Later ones are balanced.
            let mut client = start_client(&nodes[GATEWAY], "100", "20000", "")?;
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
