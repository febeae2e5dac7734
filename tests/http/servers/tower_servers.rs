//! The layers on real servers and with real clients, over loopback: what hyper does with a
//! response, and how a disconnect is seen on HTTP/1.1 and HTTP/2.
//!
//! Nothing here is timed: each test waits for what must happen, and fails if it never does.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use errgroup::tower::{BoxError, ContextLayer, DropOnDisconnect, PropagateLayer, RequestBody};
use errgroup::{Context, ContextError};
use http::{Request, Response, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::{Drops, PATIENCE, state};
use crate::tower_support::{FINISHED, GONE, TIME_OF_CLIENT, context_of, only};

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let in_time = tokio::time::timeout(PATIENCE, future).await;
    in_time.unwrap_or_else(|_| panic!("{what} did not come in {PATIENCE:?}"))
}

type ServerBody = UnsyncBoxBody<Bytes, BoxError>;
type ServerRequest = Request<RequestBody<Incoming>>;
type Answer = Result<Response<ServerBody>, BoxError>;
type LayerResponse = Response<errgroup::tower::ResponseBody<ServerBody>>;

/// A server that stops, connections and all, when it is dropped.
struct Server {
    addr: SocketAddr,
    /// How the requests' contexts ended, in that order.
    ends: mpsc::UnboundedReceiver<String>,
    /// A message from each handler when it has reached the point that the test waits for.
    reached: Arc<Notify>,
    _tasks: JoinSet<()>,
}

/// What a handler receives besides its request.
#[derive(Clone)]
struct Handle {
    reached: Arc<Notify>,
    drops: Drops,
}

impl Server {
    /// HTTP/1.1 and HTTP/2 on one port, each request through `layer` to `handler`.
    async fn start<L, F>(layer: L, handler: fn(ServerRequest, Handle) -> F) -> (Server, Drops)
    where
        F: Future<Output = Answer> + Send + 'static,
        L: Layer<Inner> + Send + 'static,
        L::Service: Service<Request<Incoming>, Response = LayerResponse, Error = BoxError>,
        L::Service: Clone + Send + 'static,
        <L::Service as Service<Request<Incoming>>>::Future: Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (end, ends) = mpsc::unbounded_channel();
        let (reached, drops) = (Arc::new(Notify::new()), Drops::default());
        let handle = Handle {
            reached: reached.clone(),
            drops: drops.clone(),
        };
        let service = layer.layer(Inner {
            handler: Arc::new(move |request, handle| Box::pin(handler(request, handle))),
            handle,
            end,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                connections.spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // It fails when its client disconnects.
                    let _ = builder
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let server = Server {
            addr,
            ends,
            reached,
            _tasks: tasks,
        };
        (server, drops)
    }

    async fn reached(&self) {
        soon("the handler gets there", self.reached.notified()).await;
    }

    /// How the next context ended.
    async fn end(&mut self) -> String {
        soon("a context ends", self.ends.recv()).await.unwrap()
    }

    /// A connection on which requests are written by hand.
    async fn http1(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

type Handler =
    dyn Fn(ServerRequest, Handle) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

/// The innermost service: calls the handler, and watches its context from outside.
#[derive(Clone)]
struct Inner {
    handler: Arc<Handler>,
    handle: Handle,
    end: mpsc::UnboundedSender<String>,
}

impl Service<ServerRequest> for Inner {
    type Response = Response<ServerBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ServerRequest) -> Self::Future {
        let (ctx, end) = (context_of(&request), self.end.clone());
        let counted = self.handle.drops.counted();
        // Detached, so that a drop does not stop it.
        tokio::spawn(async move {
            ctx.done().await;
            let _ = end.send(state(&ctx));
        });
        let handler = (self.handler)(request, self.handle.clone());
        Box::pin(async move {
            let _counted = counted;
            handler.await
        })
    }
}

fn full(text: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    Ok(Response::new(body.map_err(Into::into).boxed_unsync()))
}

/// A body of these chunks, which knows neither its size nor its end. If it is to hang, it is
/// pending after them.
fn stream(chunks: &'static [&'static str], hangs: bool) -> ServerBody {
    use futures::StreamExt;
    let chunks = futures::stream::iter(chunks)
        .map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))));
    match hangs {
        true => StreamBody::new(chunks.chain(futures::stream::pending())).boxed_unsync(),
        false => StreamBody::new(chunks).boxed_unsync(),
    }
}

async fn hangs(_: ServerRequest, handle: Handle) -> Answer {
    handle.reached.notify_one();
    pending().await
}

async fn hangs_in_the_body(_: ServerRequest, _: Handle) -> Answer {
    Ok(Response::new(stream(&["one", "two"], true)))
}

/// The complete response that the path names.
async fn answers(request: ServerRequest, _: Handle) -> Answer {
    match request.uri().path() {
        "/full" => full("all of it"),
        "/empty" => full(""),
        "/stream" => Ok(Response::new(stream(&["one", "two"], false))),
        // Both the header and the body, because hyper does not check for the end of the body.
        "/announced" => {
            let response = Response::builder().header("content-length", "6");
            Ok(response.body(stream(&["one", "two"], false))?)
        }
        "/nothing" => {
            let response = Response::builder().status(204);
            Ok(response.body(stream(&["never sent"], false))?)
        }
        path => Err(path.into()),
    }
}

/// Reads its body, and reports the result and the state of the context at that moment.
async fn reads(request: ServerRequest, handle: Handle) -> Answer {
    let ctx = context_of(&request);
    let mut body = request.into_body();
    body.frame().await.ok_or("a first frame")??;
    handle.reached.notify_one();
    while let Some(frame) = body.frame().await {
        if let Err(error) = frame {
            let seen = state(&ctx);
            assert!(seen.starts_with(UPLOAD), "{seen}, before {error}");
            return Err(error);
        }
    }
    full("all read")
}

fn server_layer() -> ContextLayer {
    ContextLayer::new(&Context::background())
}

/// For handlers that never end by themselves.
fn dropping_layer() -> ContextLayer<DropOnDisconnect> {
    server_layer().drop_on_disconnect()
}

/// How the end of a context whose upload broke off begins. The error of the body follows.
const UPLOAD: &str =
    "context cancelled: client disconnected before the request's body was complete: ";

const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A client for HTTP/2 alone; its connection lives as long as it.
fn http2<B>() -> Client<hyper_util::client::legacy::connect::HttpConnector, B>
where
    B: http_body::Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http()
}

#[tokio::test]
async fn http1_a_client_that_disconnects_during_the_handler() {
    let (mut server, drops) = Server::start(dropping_layer(), hangs).await;
    let client = server.http1(GET).await;
    server.reached().await;
    assert_eq!(drops.count(), 0);
    drop(client);
    assert_eq!(server.end().await, GONE);
    assert_eq!(drops.count(), 1);
}

#[tokio::test]
async fn http2_a_client_that_disconnects_during_the_handler() {
    let (mut server, drops) = Server::start(dropping_layer(), hangs).await;
    let client = http2::<Empty<Bytes>>();
    let call = tokio::spawn(client.get(server.uri("/").parse().unwrap()));
    server.reached().await;
    assert_eq!(drops.count(), 0);
    // The stream is reset, and the connection stays open.
    call.abort();
    assert_eq!(server.end().await, GONE);
    assert_eq!(drops.count(), 1);
}

#[tokio::test]
async fn http1_a_client_that_disconnects_during_the_body() {
    let (mut server, _) = Server::start(server_layer(), hangs_in_the_body).await;
    let mut client = server.http1(GET).await;
    let mut seen = Vec::new();
    while !seen.windows(3).any(|window| window == b"two") {
        soon("the first chunks", client.read_buf(&mut seen))
            .await
            .unwrap();
    }
    drop(client);
    assert_eq!(server.end().await, GONE);
}

#[tokio::test]
async fn http2_a_client_that_disconnects_during_the_body() {
    let (mut server, _) = Server::start(server_layer(), hangs_in_the_body).await;
    let client = http2::<Empty<Bytes>>();
    let response = client.get(server.uri("/").parse().unwrap()).await.unwrap();
    let mut body = response.into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    drop(body);
    assert_eq!(server.end().await, GONE);
}

/// hyper drops a body as soon as it knows that the body has ended, and does not poll it for `None`.
#[tokio::test]
async fn a_response_that_was_sent_whole_is_a_success() {
    let (mut server, _) = Server::start(server_layer(), answers).await;
    for http2_only in [false, true] {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2_only)
            .build_http::<Empty<Bytes>>();
        for (method, path, text) in [
            ("GET", "/full", "all of it"),
            ("HEAD", "/full", ""),
            ("GET", "/empty", ""),
            ("GET", "/stream", "onetwo"),
            ("HEAD", "/stream", ""),
            ("GET", "/announced", "onetwo"),
            ("HEAD", "/announced", ""),
            ("GET", "/nothing", ""),
        ] {
            if http2_only && (method == "HEAD" || path == "/nothing") {
                // On HTTP/2, hyper sends whatever body the service returns. It is up to the service
                // to return none here.
                continue;
            }
            let request = Request::builder().method(method).uri(server.uri(path));
            let request = request.body(Empty::new()).unwrap();
            let response = soon("a response", client.request(request)).await.unwrap();
            let body = soon("its body", response.into_body().collect()).await;
            assert_eq!(body.unwrap().to_bytes(), text, "{method} {path}");
            assert_eq!(
                server.end().await,
                FINISHED,
                "{method} {path}, HTTP/2: {http2_only}"
            );
        }
    }
}

#[tokio::test]
async fn http1_an_upload_that_breaks_off() {
    let (mut server, _) = Server::start(server_layer(), reads).await;
    let client = server
        .http1("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf of it")
        .await;
    server.reached().await;
    drop(client);
    assert!(server.end().await.starts_with(UPLOAD));
}

#[tokio::test]
async fn http2_an_upload_that_breaks_off() {
    let (mut server, _) = Server::start(server_layer(), reads).await;
    let client = http2();
    let upload = stream(&["half of it"], true);
    let request = Request::post(server.uri("/")).body(upload).unwrap();
    let call = tokio::spawn(client.request(request));
    server.reached().await;
    call.abort();
    assert!(server.end().await.starts_with(UPLOAD));
}

#[tokio::test]
async fn a_complete_upload_is_a_success() {
    let (mut server, _) = Server::start(server_layer(), reads).await;
    for http2_only in [false, true] {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2_only)
            .build_http();
        let request = Request::post(server.uri("/")).body(stream(&["one", "two"], false));
        let response = soon("a response", client.request(request.unwrap()))
            .await
            .unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "all read");
        assert_eq!(server.end().await, FINISHED);
    }
}

/// On HTTP/1.1, the layer sees of a client what hyper reads, and hyper does not read past a body
/// that the handler does not read.
#[tokio::test]
async fn only_http2_sees_a_disconnect_behind_a_large_unread_body() {
    async fn waits(request: ServerRequest, handle: Handle) -> Answer {
        handle.reached.notify_one();
        // The second time, from the test.
        let ctx = context_of(&request);
        let (_unread, go) = (request.into_body(), handle.drops.clone());
        tokio::select! {
            _ = ctx.done() => {}
            () = async { while go.count() < 1 { tokio::task::yield_now().await } } => {}
        }
        full("not received")
    }
    let small = "x".repeat(4 << 10);
    let large = "x".repeat(1 << 20);
    let (mut server, drops) = Server::start(server_layer(), waits).await;
    let post = |body: &str| {
        let length = body.len();
        format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let client = server.http1(&post(&small)).await;
    server.reached().await;
    drop(client);
    assert_eq!(server.end().await, GONE);

    let (mut blind, go) = Server::start(server_layer(), waits).await;
    let mut client = TcpStream::connect(blind.addr).await.unwrap();
    // More than the socket takes. The rest is not sent.
    let upload = post(&large);
    let sent = tokio::time::timeout(
        Duration::from_millis(200),
        client.write_all(upload.as_bytes()),
    );
    let _ = sent.await;
    blind.reached().await;
    drop(client);
    // This is time enough to notice the disconnect. The handler ends only because the test releases
    // it.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(blind.ends.try_recv().is_err());
    drop(go.counted());
    let end = blind.end().await;
    assert!([GONE, FINISHED].contains(&&*end), "{end}");
    drop(drops);

    let (mut server, _) = Server::start(server_layer(), waits).await;
    let client = http2();
    let body = Full::new(Bytes::from(large));
    let request = Request::post(server.uri("/")).body(body).unwrap();
    let call = tokio::spawn(client.request(request));
    server.reached().await;
    call.abort();
    assert_eq!(server.end().await, GONE);
}

#[tokio::test]
async fn the_deadline_is_answered_on_both_protocols() {
    let (mut server, drops) = Server::start(dropping_layer(), hangs).await;
    for http2_only in [false, true] {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2_only)
            .build_http::<Empty<Bytes>>();
        let request = Request::get(server.uri("/")).header("grpc-timeout", "30m");
        let request = request.body(Empty::new()).unwrap();
        let response = soon("a response", client.request(request)).await.unwrap();
        assert_eq!(response.status(), 504);
        assert_eq!(server.end().await, TIME_OF_CLIENT);
    }
    assert_eq!(drops.count(), 2);
}

#[tokio::test]
async fn a_grpc_stream_ends_with_trailers_on_the_wire() {
    let (mut server, _) = Server::start(server_layer(), hangs_in_the_body).await;
    let request = Request::post(server.uri("/service/method"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "500m");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = soon("a response", http2().request(request)).await.unwrap();
    let body = soon("its end", response.into_body().collect())
        .await
        .unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "4");
    assert_eq!(body.to_bytes(), "onetwo");
    assert_eq!(server.end().await, TIME_OF_CLIENT);
}

#[tokio::test]
async fn a_plain_stream_is_broken_off_and_not_taken_for_complete() {
    let (mut server, _) = Server::start(server_layer(), hangs_in_the_body).await;
    for http2_only in [false, true] {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2_only)
            .build_http::<Empty<Bytes>>();
        let request = Request::get(server.uri("/")).header("grpc-timeout", "500m");
        let request = request.body(Empty::new()).unwrap();
        let response = soon("a response", client.request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(
            soon("its end", response.into_body().collect())
                .await
                .is_err()
        );
        assert_eq!(server.end().await, TIME_OF_CLIENT);
    }
}

/// Responds after as many yields as the path says, with a stream that takes as many again.
async fn takes_turns(request: ServerRequest, _: Handle) -> Answer {
    let turns = request.uri().path()[1..].parse::<usize>()?;
    let take = async move || {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    take().await;
    let chunks = futures::stream::unfold(0, move |chunk| async move {
        take().await;
        let frame = || Ok(Frame::data(Bytes::from_static(b"chunk")));
        (chunk < 3).then(|| (frame(), chunk + 1))
    });
    Ok(Response::new(StreamBody::new(chunks).boxed_unsync()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_ends_once_whenever_its_client_disconnects() {
    let (mut server, drops) = Server::start(server_layer(), takes_turns).await;
    let mut whole = 0;
    for http2_only in [false, true] {
        let client = || {
            Client::builder(TokioExecutor::new())
                .http2_only(http2_only)
                .build_http::<Empty<Bytes>>()
        };
        // Separate connections, because a server closes one on which too many streams are reset.
        let (staying, leaving) = (client(), client());
        let mut clients = JoinSet::new();
        for number in 0..400_usize {
            let uri = server.uri(&format!("/{}", number * 7 % 40));
            let stays = number % 2 == 0;
            let client = if stays { &staying } else { &leaving };
            let call = client.get(uri.parse().unwrap());
            let read = async move {
                let response = call.await?;
                let body = response.into_body().collect().await?;
                Ok::<_, BoxError>(body.to_bytes())
            };
            whole += usize::from(stays);
            clients.spawn(async move {
                match stays {
                    true => assert_eq!(read.await.unwrap(), "chunkchunkchunk"),
                    false => {
                        let patience = async {
                            for _ in 0..number * 13 % 100 {
                                tokio::task::yield_now().await;
                            }
                        };
                        tokio::select! { _ = read => {} () = patience => {} }
                    }
                }
            });
        }
        let all = soon("the clients' end", clients.join_all());
        all.await;
    }
    let mut ends = Vec::new();
    // A disconnect is seen when the server reads from the connection.
    while drops.count() < whole || ends.len() < drops.count() {
        ends.push(server.end().await);
    }
    let finished = ends.iter().filter(|end| *end == FINISHED).count();
    let gone = ends.iter().filter(|end| *end == GONE).count();
    assert!(finished >= whole, "{finished} of {whole}");
    assert_eq!(finished + gone, ends.len());
}

/// Finishes some time after it was cancelled.
async fn tidies_up(request: ServerRequest, handle: Handle) -> Answer {
    handle.reached.notify_one();
    context_of(&request).done().await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    handle.reached.notify_one();
    full("not received")
}

#[tokio::test]
async fn a_handler_finishes_after_a_disconnect() {
    let layer = server_layer().grace(PATIENCE);
    let handlers = layer.handlers();
    let (mut server, _) = Server::start(layer, tidies_up).await;
    let client = server.http1(GET).await;
    server.reached().await;
    drop(client);
    assert_eq!(server.end().await, GONE);
    // A handler that is dropped does not get here.
    server.reached().await;

    let client = http2::<Empty<Bytes>>();
    let call = tokio::spawn(client.get(server.uri("/").parse().unwrap()));
    server.reached().await;
    call.abort();
    assert_eq!(server.end().await, GONE);
    server.reached().await;
    assert!(
        soon("the shutdown", handlers.wait()).await.phases()[0]
            .aborted()
            .is_empty()
    );
}

#[tokio::test]
async fn a_call_that_its_context_cancels_is_a_disconnect() {
    let (mut server, drops) = Server::start(dropping_layer(), hangs).await;
    // hyper-util, on both protocols.
    for http2_only in [false, true] {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(http2_only)
            .build_http::<Empty<Bytes>>();
        let (ctx, guard) = Context::background().with_cancel();
        let client = PropagateLayer::new().context(&ctx).layer(client);
        let request = Request::get(server.uri("/")).body(Empty::new()).unwrap();
        let call = tokio::spawn(client.oneshot(request));
        server.reached().await;
        guard.cancel_with("enough");
        let error = call.await.unwrap().unwrap_err();
        assert!(error.downcast_ref::<ContextError>().unwrap().is_cancelled());
        assert_eq!(server.end().await, GONE);
    }
    // reqwest, whose request and response convert.
    let execute = service_fn(|request: Request<reqwest::Body>| async {
        let response = reqwest::Client::new().execute(request.try_into()?).await?;
        Ok::<Response<reqwest::Body>, reqwest::Error>(response.into())
    });
    let (ctx, guard) = Context::background().with_cancel();
    let mut request = Request::get(server.uri("/"))
        .body(reqwest::Body::default())
        .unwrap();
    request.extensions_mut().insert(ctx);
    let call = tokio::spawn(PropagateLayer::new().layer(execute).oneshot(request));
    server.reached().await;
    guard.cancel_with("enough");
    let error = call.await.unwrap().unwrap_err();
    assert!(error.downcast_ref::<ContextError>().unwrap().is_cancelled());
    assert_eq!(server.end().await, GONE);
    assert_eq!(drops.count(), 3);
}

#[tokio::test]
async fn a_deadline_propagates_to_the_body_of_the_response() {
    let (mut server, _) = Server::start(server_layer(), hangs_in_the_body).await;
    let ctx = Context::background().with_timeout(Duration::from_millis(500) + PATIENCE);
    let client = PropagateLayer::new()
        .margin(PATIENCE)
        .context(&ctx)
        .layer(http2::<Empty<Bytes>>());
    let request = Request::get(server.uri("/")).body(Empty::new()).unwrap();
    let response = soon("a response", client.oneshot(request)).await.unwrap();
    let ended = soon("its end", response.into_body().collect()).await;
    assert!(ended.is_err());
    // The server has the deadline of the client, and not a disconnect.
    assert_eq!(server.end().await, TIME_OF_CLIENT);
}

#[tokio::test]
async fn axum_cancels_its_handlers_after_a_disconnect() {
    use axum::Router;
    use axum::routing::get;

    let (server, stop) = Context::background().with_cancel();
    let (end, mut ends) = mpsc::unbounded_channel();
    let reached = Arc::new(Notify::new());
    let handler = {
        let reached = reached.clone();
        async move |ctx: Context| {
            tokio::spawn({
                let ctx = ctx.clone();
                async move {
                    ctx.done().await;
                    end.send(state(&ctx))
                }
            });
            reached.notify_one();
            ctx.run(pending::<Result<String, Infallible>>()).await
        }
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .layer(ContextLayer::new(&server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stopped = server.until_done();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        axum::serve(listener, app)
            .with_graceful_shutdown(stopped)
            .await
            .unwrap();
    });

    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    soon("the handler", reached.notified()).await;
    drop(client);
    assert_eq!(soon("its end", ends.recv()).await.unwrap(), GONE);

    // A server that stops cancels its handlers, and waits for their responses.
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    soon("the handler", reached.notified()).await;
    stop.cancel_with("SIGTERM");
    let mut answer = String::new();
    soon("an answer", client.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(
        soon("its end", ends.recv()).await.unwrap(),
        "context cancelled: SIGTERM"
    );
    soon("the server", tasks.join_next())
        .await
        .unwrap()
        .unwrap();
}

/// As in every tutorial of Go: the handler sees each disconnect, and so do the tasks of its groups.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_as_in_go_sees_each_disconnect() {
    use axum::Router;
    use axum::routing::get;
    use errgroup::Group;
    use errgroup::tower::ClientGone;

    let (seen, mut log) = mpsc::unbounded_channel();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let handler = async move |ctx: Context| {
        let group = Group::<ContextError>::new();
        for _ in 0..3 {
            let (ctx, seen, begun) = (ctx.clone(), seen.clone(), begun.clone());
            group.go(async move {
                let _ = begun.send(());
                ctx.done().await;
                let _ = seen.send(("task", ctx.caused_by::<ClientGone>()));
                Ok(())
            });
        }
        tokio::select! {
            () = tokio::time::sleep(PATIENCE) => "done",
            _ = ctx.done() => {
                let _ = group.wait().await;
                let _ = seen.send(("handler", ctx.caused_by::<ClientGone>()));
                "cancelled"
            }
        }
    };
    let layer = server_layer();
    let handlers = layer.handlers();
    let app: Router = Router::new().route("/", get(handler)).layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });

    for http2_only in [false, true] {
        for _ in 0..50 {
            let client = Client::builder(TokioExecutor::new())
                .http2_only(http2_only)
                .build_http::<Empty<Bytes>>();
            let uri = format!("http://{addr}/").parse().unwrap();
            let call = tokio::spawn(client.get(uri));
            for _ in 0..3 {
                soon("the tasks", begins.recv()).await.unwrap();
            }
            call.abort();
        }
        let mut counts = (0, 0);
        while counts != (50, 150) {
            let (who, is_gone) = soon("each of them", log.recv()).await.unwrap();
            assert!(is_gone, "the {who} sees the cause");
            match who {
                "handler" => counts.0 += 1,
                _ => counts.1 += 1,
            }
        }
    }
    let drained = only(soon("the shutdown", handlers.wait()).await);
    assert_eq!((drained.aborted().len(), drained.left_running()), (0, 0));
}

/// After an upgrade, the request is finished, and the connection has a context of the server's.
#[tokio::test]
async fn an_upgraded_connection_has_a_context_of_its_own() {
    async fn upgrades(mut request: ServerRequest, handle: Handle) -> Answer {
        let ctx = context_of(&request);
        let upgrade = hyper::upgrade::on(&mut request);
        let server = request
            .extensions()
            .get::<ServerContext>()
            .unwrap()
            .0
            .clone();
        tokio::spawn(async move {
            let connection = ctx.without_cancel().merge(&server);
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            assert_eq!(state(&ctx), FINISHED);
            assert!(!connection.is_done());
            handle.reached.notify_one();
            connection.done().await;
            stream.write_all(b"bye").await.unwrap();
        });
        let response = Response::builder().status(101).header("upgrade", "chat");
        let response = response.header("connection", "upgrade");
        Ok(response.body(stream(&[], false))?)
    }

    #[derive(Clone)]
    struct ServerContext(Context);

    /// Puts the server's context where the handler finds it.
    #[derive(Clone)]
    struct With(Context, ContextLayer);

    impl Layer<Inner> for With {
        type Service = tower::util::BoxCloneService<Request<Incoming>, LayerResponse, BoxError>;

        fn layer(&self, inner: Inner) -> Self::Service {
            let ctx = self.0.clone();
            let service = self.1.layer(inner);
            let with = service.map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(ServerContext(ctx.clone()));
                request
            });
            with.boxed_clone()
        }
    }

    let (ctx, guard) = Context::background().with_cancel();
    let layer = With(ctx.clone(), ContextLayer::new(&ctx));
    let (mut server, _) = Server::start(layer, upgrades).await;
    let mut client = server
        .http1("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n")
        .await;
    assert_eq!(server.end().await, FINISHED);
    server.reached().await;
    guard.cancel_with("SIGTERM");
    let mut seen = String::new();
    soon("its end", client.read_to_string(&mut seen))
        .await
        .unwrap();
    assert!(
        seen.starts_with("HTTP/1.1 101") && seen.ends_with("bye"),
        "{seen}"
    );
}

/// The shutdown program of the guide, with shorter times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_names_every_handler_and_every_client_is_answered() {
    use axum::Router;
    use axum::routing::get;
    use std::future::IntoFuture;
    use std::pin::pin;

    const STOP: Duration = Duration::from_millis(50);
    for _ in 0..10 {
        let (stopping, signal) = Context::background().with_cancel();
        let (ctx, stop) = stopping.without_cancel().with_cancel();
        let layer = ContextLayer::new(&ctx).grace(STOP);
        let handlers = layer.handlers();
        let (begun, mut begins) = mpsc::unbounded_channel();
        let stubborn = async move || {
            let _ = begun.send(());
            pending::<&'static str>().await
        };
        let app: Router = Router::new().route("/{name}", get(stubborn)).layer(layer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = axum::serve(listener, app).with_graceful_shutdown(stopping.until_done());
        let mut clients = JoinSet::new();
        for name in ["a", "b", "c"] {
            clients.spawn(async move {
                let mut client = TcpStream::connect(addr).await.unwrap();
                let request = format!("GET /{name} HTTP/1.1\r\nhost: localhost\r\n\r\n");
                client.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                answer
            });
        }
        let mut server = pin!(server.into_future());
        let drained = tokio::select! {
            served = server.as_mut() => panic!("{served:?}"),
            () = async {
                for _ in 0..3 {
                    soon("a handler", begins.recv()).await.unwrap();
                }
                signal.cancel_with("SIGTERM");
            } => {
                stop.cancel_with("the server shuts down");
                let sent = tokio::time::timeout(STOP + PATIENCE, server);
                tokio::join!(handlers.wait(), sent).0
            }
        };
        let aborted = drained.phases()[0].aborted().iter();
        let mut named: Vec<_> = aborted.map(|it| it.name()).collect();
        named.sort_unstable();
        assert_eq!(named, [Some("GET /a"), Some("GET /b"), Some("GET /c")]);
        for answer in soon("their answers", clients.join_all()).await {
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        }
    }
}
