//! The client's layer under a generated client: what tonic asks of it.

use distributed::proto::worker_client::WorkerClient;
use errgroup::tower::PropagateLayer;
use tonic::transport::Endpoint;
use tower_layer::Layer;

/// It compiles because `CallBody` is `Default`.
#[tokio::test]
async fn an_interceptor_goes_around_the_layer() {
    let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let service = PropagateLayer::new().layer(channel);
    let client = WorkerClient::with_interceptor(service, |mut request: tonic::Request<()>| {
        request
            .metadata_mut()
            .insert("x-token", "secret".parse().unwrap());
        Ok(request)
    });
    drop(client.clone());
}
