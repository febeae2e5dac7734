//! A service of the tree: each call is a fan-out of calls to the services below.

use std::net::SocketAddr;
use std::time::Duration;

use errgroup::tower::{ContextLayer, grpc_code_of};
use errgroup::{Context, ContextError, fan_out};
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use crate::client::{self, Client, PING, PONG};
use crate::proto::node_server::{Node, NodeServer};
use crate::proto::{CallReply, CallRequest, CountRequest, Counts};
use crate::tally::Tally;

/// No call may take longer, whatever its header says.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// How long calls may take to end after SIGTERM.
const GRACE: Duration = Duration::from_millis(500);
/// When a call fails that is to fail: the others run by then, also on a busy machine.
const FAIL_AFTER: Duration = Duration::from_secs(2);

/// A service.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to listen; with port 0 the system chooses
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A service below: its addresses, separated by commas. Can be given more than once
    #[arg(long)]
    below: Vec<String>,
    /// How many calls each service below gets
    #[arg(long, default_value = "1")]
    calls: usize,
}

/// Serves until the process gets a signal.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let ctx = Context::background().with_shutdown_signals()?;
    let below = options
        .below
        .iter()
        .map(|list| client::connect(list.split(',')));
    let service = Service {
        below: below.collect::<anyhow::Result<_>>()?,
        calls: options.calls,
        tally: Tally::default(),
    };
    let listener = TcpListener::bind(options.listen).await?;
    println!("{}", listener.local_addr()?);
    // tonic's own setting is for sockets that it binds itself. Without this, an error waits up to
    // 40 ms for an acknowledgement.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG))
        .layer(ContextLayer::new(&ctx).max_timeout(MAX_TIMEOUT))
        .add_service(NodeServer::new(service))
        .serve_with_incoming_shutdown(incoming, ctx.done_owned().map(drop));
    // A balanced channel may leave a connection half made while it has no calls. tonic would wait
    // for that connection to close.
    let time_is_over = async {
        ctx.done().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = time_is_over => Ok(()),
    }
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Stopped(#[from] ContextError),
    #[error("{0} is broken")]
    Broken(String),
    /// The failure of a call below, as it came.
    #[error("{}", .0.message())]
    Below(#[from] Status),
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        match failure {
            Failure::Stopped(why) => Status::new(Code::from(grpc_code_of(&why)), why.to_string()),
            Failure::Broken(_) => Status::aborted(failure.to_string()),
            Failure::Below(status) => status,
        }
    }
}

struct Service {
    below: Vec<Client>,
    calls: usize,
    tally: Tally,
}

#[tonic::async_trait]
impl Node for Service {
    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallReply>, Status> {
        let ctx = request.extensions().get::<Context>().cloned();
        let ctx = ctx.ok_or_else(|| Status::internal("the call has passed by ContextLayer"))?;
        let mut running = self.tally.begin(&ctx);
        let request = request.into_inner();
        let reply = if self.below.is_empty() {
            leaf(&ctx, &request).await
        } else {
            self.ask_below(&ctx, &request).await
        };
        match &reply {
            Ok(_) => running.end = |_, counts| counts.done += 1,
            Err(_) if ctx.is_done() => {}
            Err(_) => {
                running.end = |_, counts| {
                    counts.failed += 1;
                    counts.failed_at = counts.ended_at;
                };
            }
        }
        Ok(Response::new(reply?))
    }

    async fn count(&self, _: Request<CountRequest>) -> Result<Response<Counts>, Status> {
        Ok(Response::new(self.tally.change(|_| ())))
    }
}

impl Service {
    /// Calls all services below at once. The first failure drops the other calls: the services
    /// there see a disconnect.
    async fn ask_below(&self, ctx: &Context, call: &CallRequest) -> Result<CallReply, Failure> {
        let clients = self.below.iter();
        let clients = clients.flat_map(|client| vec![client.clone(); self.calls]);
        let calls = clients.enumerate().map(|(number, client)| {
            let path = format!("{}/{number}", call.path);
            (
                client,
                CallRequest {
                    path,
                    ..call.clone()
                },
            )
        });
        let calls: Vec<_> = calls.collect();
        let replies = fan_out(ctx, calls, |ctx, (mut client, call)| async move {
            let reply = client.call(client::request(&ctx, call)).await?;
            Ok::<_, Failure>(reply.into_inner().leaves)
        });
        let leaves = replies.all().await?.into_iter().sum();
        Ok(CallReply { leaves })
    }
}

async fn leaf(ctx: &Context, call: &CallRequest) -> Result<CallReply, Failure> {
    if call.path == call.fail {
        ctx.sleep(FAIL_AFTER).await?;
        return Err(Failure::Broken(call.path.clone()));
    }
    ctx.sleep(Duration::from_millis(call.millis)).await?;
    Ok(CallReply { leaves: 1 })
}
