//! Calls: the channel that carries the context, and the client at the top of the tree.

use std::time::Duration;

use errgroup::Context;
use errgroup::tower::{PropagateLayer, PropagateService};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tower_layer::Layer;

use crate::proto::CallRequest;
use crate::proto::node_client::NodeClient;

/// A peer that is silent this long gets a ping.
pub(crate) const PING: Duration = Duration::from_millis(500);
/// If it does not answer for this long, it is disconnected.
pub(crate) const PONG: Duration = Duration::from_secs(5);

/// A client whose calls belong to the context in their extensions.
pub(crate) type Client = NodeClient<PropagateService<Channel>>;

/// A client of a service. If it has several addresses, tonic balances the calls.
pub(crate) fn connect<'a>(addresses: impl Iterator<Item = &'a str>) -> anyhow::Result<Client> {
    let endpoint = |address| {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        // Without pings, a machine that disappears is waited for until the deadline.
        Ok(endpoint
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true))
    };
    let endpoints = addresses
        .map(endpoint)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let channel = Channel::balance_list(endpoints.into_iter());
    Ok(NodeClient::new(PropagateLayer::new().layer(channel)))
}

/// A request that belongs to `ctx`: the layer sends the time that is left and the trace, and drops
/// the call when `ctx` is done.
pub(crate) fn request<T>(ctx: &Context, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(ctx.clone());
    request
}

/// A call.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The address of the gateway
    #[arg(long)]
    gateway: String,
    /// How many milliseconds it may take
    #[arg(long)]
    deadline: u64,
    /// How many milliseconds each shard takes
    #[arg(long)]
    millis: u64,
    /// The call that fails
    #[arg(long, default_value = "")]
    fail: String,
}

/// Makes the call, and prints the reply.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let timeout = Duration::from_millis(options.deadline);
    let ctx = Context::background().with_timeout(timeout);
    let call = CallRequest {
        path: "gateway".into(),
        millis: options.millis,
        fail: options.fail,
    };
    let mut gateway = connect([options.gateway.as_str()].into_iter())?;
    let reply = gateway.call(request(&ctx, call)).await?.into_inner();
    println!("{} calls of the shards have succeeded", reply.leaves);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It compiles because `CallBody` is `Default`.
    #[tokio::test]
    async fn an_interceptor_goes_around_the_layer() {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let service = PropagateLayer::new().layer(channel);
        let client = NodeClient::with_interceptor(service, |mut request: Request<()>| {
            let secret = "secret".parse().unwrap();
            request.metadata_mut().insert("x-token", secret);
            Ok(request)
        });
        drop(client.clone());
    }
}
