//! The server: handlers that are written as in a tutorial for Go, behind the layer.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use errgroup::tower::{ClientGone, ContextLayer, Handlers, RequestFinished};
use errgroup::{Context, ContextError, Group};
use futures::stream;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower_http::cors::CorsLayer;

use crate::log::Log;

/// The tasks that a handler of `/work` has in its group.
pub(crate) const TASKS: usize = 3;
/// How long `/work` works if nothing cancels it.
const WORK: Duration = Duration::from_secs(30);
/// How often the server sends a ping on an HTTP/2 connection.
const PING: Duration = Duration::from_millis(200);
/// How long the server waits for the answer. A client on a busy machine may need some seconds.
const PONG: Duration = Duration::from_secs(5);
pub(crate) const LARGE: usize = 1 << 20;

/// A server on a port of loopback. It serves until the test's runtime is dropped.
pub(crate) struct Site {
    pub(crate) addr: SocketAddr,
    pub(crate) log: Log,
    pub(crate) handlers: Handlers,
}

impl Site {
    pub(crate) async fn start() -> Site {
        let log = Log::default();
        let server = Context::background();
        let layer = ContextLayer::new(&server);
        let handlers = layer.handlers();
        let short = ContextLayer::new(&server).max_timeout(Duration::from_millis(200));

        let routes = Router::new()
            .route("/work", get(work))
            .route("/quick", get(async || "quick"))
            .route("/large", get(large))
            .route("/upload", post(upload))
            .route("/report", post(report))
            .route("/page", get(async || Html(include_str!("page.html"))))
            .layer(layer.clone());
        // The order that the guide recommends: the response of the layer has the headers of CORS.
        let inside_cors = Router::new()
            .route("/inside/work", get(work))
            .layer(layer)
            .route("/inside/late", get(late).layer(short.clone()))
            .layer(CorsLayer::permissive());
        let outside_cors = Router::new()
            .route("/outside/late", get(late))
            .layer(CorsLayer::permissive())
            .layer(short);
        let app = routes
            .merge(inside_cors)
            .merge(outside_cors)
            .with_state(log.clone());

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, app));
        Site {
            addr,
            log,
            handlers,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

/// Serves HTTP/1.1 and HTTP/2 with pings.
async fn serve(listener: TcpListener, app: Router) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http2()
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .keep_alive_timeout(PONG);
            // An error is a client that has disconnected; the tests look at what the handler saw.
            drop(
                builder
                    .serve_connection_with_upgrades(TokioIo::new(socket), service)
                    .await,
            );
        });
    }
}

/// The first program of the tutorials: works, and logs when the request is cancelled. Its group has
/// tasks that log, too.
async fn work(State(log): State<Log>, ctx: Context) -> &'static str {
    let (g, _) = Group::<ContextError>::with_context(&ctx);
    for _ in 0..TASKS {
        let log = log.clone();
        g.go_with(async move |ctx| {
            ctx.done().await;
            log.add(format!("task: {}", reason(&ctx)));
            Ok(())
        });
    }
    log.add("started");
    tokio::select! {
        () = sleep(WORK) => "request processed",
        _ = ctx.done() => {
            let _ = g.wait().await;
            log.add(format!("handler: {}", reason(&ctx)));
            "request cancelled"
        }
    }
}

/// Returns 1 MiB in chunks, and logs how the context of the request ends.
async fn large(State(log): State<Log>, ctx: Context) -> Body {
    log.add("started");
    let end = ctx.done_owned();
    tokio::spawn(async move {
        end.await;
        log.add(format!("large: {}", reason(&ctx)));
    });
    const CHUNK: &[u8] = &[b'x'; 1 << 14];
    let chunks =
        (0..LARGE / CHUNK.len()).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(CHUNK)));
    Body::from_stream(stream::iter(chunks))
}

/// Reads the body, and says whether all of it has arrived.
async fn upload(State(log): State<Log>, ctx: Context, body: Body) -> String {
    log.add("started");
    let read = axum::body::to_bytes(body, usize::MAX).await;
    match (read, ctx.check()) {
        (Ok(bytes), Ok(())) => {
            log.add("upload: whole");
            bytes.len().to_string()
        }
        (read, check) => {
            log.add(format!(
                "upload: rejected: body {}, context {}",
                if read.is_ok() { "ok" } else { "failed" },
                if check.is_ok() { "ok" } else { "done" },
            ));
            String::new()
        }
    }
}

/// Returns only when its time is up, so the layer answers with 504.
async fn late(ctx: Context) {
    ctx.done().await;
}

async fn report(State(log): State<Log>, lines: String) {
    for line in lines.lines() {
        log.add(format!("report: {line}"));
    }
    log.add("reported");
}

fn reason(ctx: &Context) -> &'static str {
    if ctx.caused_by::<ClientGone>() {
        "client gone"
    } else if ctx.caused_by::<RequestFinished>() {
        "request finished"
    } else if ctx.is_done() {
        "another reason"
    } else {
        "not done"
    }
}
