//! A worker: a gRPC server that fans each batch out once more.

mod item;
mod ledger;
mod parent_pipe;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use errgroup::tower::ContextLayer;
use errgroup::{Context, Group, TaskErrorKind, fan_out};
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::proto::worker_server::{Worker, WorkerServer};
use crate::proto::{Answer, Batch, SettleRequest, Settled};
use item::Items;

/// How long the connections may take to close when the worker is to stop: a peer that does not
/// answer would delay it.
const GRACE: Duration = Duration::from_secs(1);

/// No call may take longer, whatever its header says.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// How a worker is run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to listen; with port 0 the system chooses
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    /// Stop when standard input, a pipe, is closed, because the process at its other end has
    /// exited. Each line `fail` from it makes one item fail
    #[arg(long)]
    pub parent_pipe: bool,

    /// How many items of a batch run at once
    #[arg(long, value_name = "N", default_value = "8")]
    pub at_once: NonZeroUsize,

    /// How long an item waits, as if for a disk, before it computes
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10ms",
        value_parser = humantime::parse_duration
    )]
    pub pace: Duration,

    /// Finish this many items, and no more: a fault to try
    #[arg(long, value_name = "N")]
    pub stall_after: Option<usize>,

    /// How long a client may be silent before it gets a ping. If it does not answer for three times
    /// as long, it is disconnected
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "500ms",
        value_parser = humantime::parse_duration
    )]
    pub keep_alive: Duration,
}

/// Serves until the process gets a signal, or its pipe is closed.
///
/// # Errors
///
/// If it cannot listen, or the server breaks.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let (ctx, guard) = Context::background().with_shutdown_signals()?.with_cancel();
    let (g, ctx) = Group::<anyhow::Error>::with_context(ctx);
    g.set_grace(GRACE);
    let items = Arc::new(Items::new(options));

    if options.parent_pipe {
        let (ctx, items, stop) = (ctx.clone(), Arc::clone(&items), guard.handle());
        g.named("parent pipe").go(async move {
            if let Ok(held) = ctx.run(parent_pipe::held(|| items.let_one_fail())).await {
                held.context("the parent pipe")?;
                stop.cancel_with("the parent process has exited");
            }
            Ok(())
        });
    }

    let listener = TcpListener::bind(options.listen).await?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    let service = Service {
        items: Arc::clone(&items),
        at_once: options.at_once.get(),
    };
    let server = Server::builder()
        .http2_keepalive_interval(Some(options.keep_alive))
        .http2_keepalive_timeout(Some(options.keep_alive * 3))
        .layer(ContextLayer::new(&ctx).max_timeout(MAX_TIMEOUT))
        .add_service(WorkerServer::new(service));
    // The server's own setting is for sockets that it binds itself. Without this, an error waits up
    // to 40 ms for an acknowledgement.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = server.serve_with_incoming_shutdown(incoming, ctx.done_owned().map(drop));
    g.named("server")
        .go(served.map(|served| served.context("the server")));

    ctx.done().await;
    wind_down(g, &items).await
}

/// Waits until nothing is left of the calls, and says what has become of their items.
async fn wind_down(g: Group<anyhow::Error>, items: &Items) -> anyhow::Result<()> {
    let ctx = g.context();
    let ended = g.wait_all().await;
    // What a call held is free once the runtime has got to it, which may be after the call is over.
    let grace = ctx.without_cancel().with_timeout(GRACE);
    drop(grace.run(items.settled()).await);
    let why = ctx.cause().map_or_else(String::new, |why| why.to_string());
    // In one piece, because several workers may share this standard error. It is not an error if it
    // is closed.
    let line = format!("worker: {why}; {}\n", items.summary());
    drop(io::stderr().write_all(line.as_bytes()));
    for error in ended.err().into_iter().flatten() {
        // A connection that did not close is not a failure.
        if !matches!(error.kind(), TaskErrorKind::Aborted(_)) {
            bail!(error);
        }
    }
    Ok(())
}

struct Service {
    items: Arc<Items>,
    at_once: usize,
}

#[tonic::async_trait]
impl Worker for Service {
    type RunStream = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;

    /// The stream is the fan-out. When the call ends, for any reason, it is dropped, and its items
    /// with it.
    async fn run(&self, request: Request<Batch>) -> Result<Response<Self::RunStream>, Status> {
        let call = context_of(&request)?;
        let items = Arc::clone(&self.items);
        let batch = request.into_inner().items;
        let answers = fan_out(&call.clone(), batch, move |ctx, item| {
            Arc::clone(&items).run(call.clone(), ctx, item)
        })
        .limit(self.at_once)
        .try_stream();
        Ok(Response::new(Box::pin(
            answers.map(|answer| answer.map_err(Status::from)),
        )))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<Settled>, Status> {
        let ctx = context_of(&request)?;
        let settled = ctx.run(self.items.settled()).await;
        Ok(Response::new(settled.map_err(item::Failure::from)?))
    }
}

/// The call's own context, which the layer has put there.
fn context_of<T>(request: &Request<T>) -> Result<Context, Status> {
    let ctx = request.extensions().get::<Context>().cloned();
    ctx.ok_or_else(|| Status::internal("the call came past the layer that gives it a context"))
}
