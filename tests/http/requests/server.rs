//! The server, which is hyper-util's, for both protocols on one port, with the layer around a
//! handler that follows a plan.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::tower::{BoxError, ContextLayer, Handlers, RequestBody, ResponseBody, status_of};
use errgroup::{CancelGuard, Context};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt, service_fn};

use crate::CHUNK;
use crate::ledger::{End, Entry, STOP};
use crate::plan::Work;

type ServerBody = UnsyncBoxBody<Bytes, BoxError>;
type Service =
    BoxCloneService<Request<Incoming>, Response<UnsyncBoxBody<Bytes, io::Error>>, io::Error>;

/// Longer than any handler here needs after it was cancelled.
const GRACE: Duration = Duration::from_secs(60);

/// How many of a thing there are.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn one(&self) -> One {
        self.0.fetch_add(1, Ordering::SeqCst);
        One(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// One of them: counted while it is there.
struct One(Alive);

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Default)]
struct Shared {
    ledger: Arc<Mutex<Arc<[Arc<Entry>]>>>,
    connections: Alive,
    handlers: Alive,
    /// The server's context.
    ctx: Context,
}

impl Shared {
    fn entry<B>(&self, request: &Request<B>) -> Arc<Entry> {
        let number: usize = request.uri().path()[1..].parse().unwrap();
        self.ledger.lock().unwrap()[number].clone()
    }
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    /// Whether its handlers run on without their clients.
    pub(crate) lingers: bool,
    pub(crate) handlers: Handlers,
    stop: CancelGuard,
    shared: Shared,
}

impl Server {
    pub(crate) async fn start(lingers: bool) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (ctx, stop) = Context::background().with_cancel();
        let shared = Shared {
            ctx: ctx.clone(),
            ..Shared::default()
        };
        let inner = {
            let shared = shared.clone();
            service_fn(move |request| handle(request, shared.clone()))
        };
        let layer = ContextLayer::new(&ctx).grace(GRACE);
        let handlers = layer.handlers();
        let service = match lingers {
            true => arriving(layer.layer(inner), &shared),
            false => arriving(layer.drop_on_disconnect().layer(inner), &shared),
        };
        tokio::spawn(accept(ctx, listener, service, shared.clone()));
        Server {
            addr,
            lingers,
            handlers,
            stop,
            shared,
        }
    }

    /// The requests that come now are these.
    pub(crate) fn expect(&self, ledger: &Arc<[Arc<Entry>]>) {
        *self.shared.ledger.lock().unwrap() = ledger.clone();
    }

    pub(crate) fn forget(&self) {
        *self.shared.ledger.lock().unwrap() = Arc::default();
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.count()
    }

    /// Futures of handlers that there are.
    pub(crate) fn handlers_alive(&self) -> usize {
        self.shared.handlers.count()
    }

    /// Asks it to stop.
    pub(crate) fn stop(&self) {
        self.stop.cancel_with(STOP);
    }
}

/// Counts what comes, outside of the layer.
fn arriving<S>(service: S, shared: &Shared) -> Service
where
    S: tower::Service<
            Request<Incoming>,
            Response = Response<ResponseBody<ServerBody>>,
            Error = BoxError,
        > + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let shared = shared.clone();
    let counted = service.map_request(move |request| {
        let entry = shared.entry(&request);
        entry.arrived.fetch_add(1, Ordering::SeqCst);
        request
    });
    // Of a type that can be named.
    let named = counted.map_response(|response: Response<ResponseBody<_>>| {
        response.map(|body| body.map_err(io::Error::other).boxed_unsync())
    });
    named.map_err(io::Error::other).boxed_clone()
}

async fn accept(ctx: Context, listener: TcpListener, service: Service, shared: Shared) {
    while let Ok(accepted) = ctx.run(listener.accept()).await {
        let (stream, _) = accepted.unwrap();
        let one = shared.connections.one();
        tokio::spawn(serve(ctx.clone(), stream, service.clone(), one));
    }
}

/// Serves one connection. When the server stops, the requests that have begun are finished, and no
/// more are accepted.
async fn serve(ctx: Context, stream: TcpStream, service: Service, _one: One) {
    let builder = auto::Builder::new(TokioExecutor::new());
    let service = TowerToHyperService::new(service);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // It fails when its client disconnects.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ctx.done() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

type Answer = Result<Response<ServerBody>, BoxError>;

async fn handle(request: Request<RequestBody<Incoming>>, shared: Shared) -> Answer {
    let _one = shared.handlers.one();
    let entry = shared.entry(&request);
    let ctx = request.extensions().get::<Context>().unwrap().clone();
    entry.reached.fetch_add(1, Ordering::SeqCst);
    // A task that the handler starts and that is not dropped: it sees the end of the context, or it
    // runs for ever.
    tokio::spawn({
        let (ctx, entry) = (ctx.clone(), entry.clone());
        async move {
            ctx.done().await;
            entry.ends.lock().unwrap().push(End::of(&ctx));
            entry.ended.notify_one();
        }
    });
    entry.at_handler.notify_one();
    let answer = perform(request, &ctx, &entry, &shared.ctx).await;
    entry.handled.fetch_add(1, Ordering::SeqCst);
    answer
}

async fn perform(
    request: Request<RequestBody<Incoming>>,
    ctx: &Context,
    entry: &Entry,
    server: &Context,
) -> Answer {
    let done = match entry.plan.work {
        Work::Answer(time) => ctx.run(tokio::time::sleep(time)).await,
        Work::Empty => return answer(StatusCode::NO_CONTENT),
        Work::Hang => Err(ctx.done().await),
        Work::Announced => {
            let mut response = Response::new(stream(ctx, 2, None));
            let length = (2 * CHUNK.len()).into();
            response.headers_mut().insert("content-length", length);
            return Ok(response);
        }
        Work::Stream(chunks) => return Ok(Response::new(stream(ctx, chunks, None))),
        Work::Endless(chunks) => return Ok(Response::new(stream(ctx, chunks, Some(server)))),
        Work::Upload(chunks) => {
            let mut upload = request.into_body();
            let mut length = 0;
            loop {
                match ctx.run(upload.frame()).await {
                    Ok(Some(Ok(frame))) => {
                        length += frame.into_data().map_or(0, |data| data.len());
                        entry.read.notify_one();
                    }
                    Ok(Some(Err(error))) => {
                        assert!(ctx.is_done(), "the handler sees it first: {error}");
                        return answer(StatusCode::BAD_REQUEST);
                    }
                    Ok(None) => {
                        // What was sent is there; a client that left has not ended its upload.
                        assert_eq!(length, chunks * CHUNK.len(), "{:?}", entry.plan);
                        break Ok(());
                    }
                    Err(error) => break Err(error),
                }
            }
        }
    };
    match done {
        Ok(()) => Ok(Response::new(
            Full::new(Bytes::from_static(b"request processed"))
                .map_err(Into::into)
                .boxed_unsync(),
        )),
        Err(error) => answer(status_of(&error)),
    }
}

fn answer(status: StatusCode) -> Answer {
    let mut response = Response::new(Empty::new().map_err(Into::into).boxed_unsync());
    *response.status_mut() = status;
    Ok(response)
}

/// A body of this many chunks, which fails when the context is done. If it is endless, it waits for
/// the end of the server after them: it ignores the deadline of the request, and a disconnect.
fn stream(ctx: &Context, chunks: usize, endless: Option<&Context>) -> ServerBody {
    let (ctx, endless) = (ctx.clone(), endless.cloned());
    let frames = futures::stream::unfold(0, move |number| {
        let (ctx, endless) = (ctx.clone(), endless.clone());
        async move {
            let done = match endless {
                _ if number < chunks => ctx.run(tokio::task::yield_now()).await,
                Some(server) if number == chunks => Err(server.done().await),
                _ => return None,
            };
            let frame = match done {
                Ok(()) => Ok(Frame::data(Bytes::from_static(CHUNK))),
                Err(error) => Err(BoxError::from(error)),
            };
            let next = if frame.is_ok() {
                number + 1
            } else {
                usize::MAX
            };
            Some((frame, next))
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
