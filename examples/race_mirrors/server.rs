//! An HTTP server on loopback, and what it sees of its clients.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use errgroup::{Context, Group};
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// What a server does about a request, which it has numbered from 1: waits so long, and answers that.
pub(crate) type Plan = fn(usize) -> (Duration, StatusCode);

pub(crate) struct Server {
    pub(crate) url: Url,
    seen: watch::Sender<Seen>,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) requests: usize,
    pub(crate) answered: usize,
    /// The connection was closed before the answer.
    pub(crate) cut_off: usize,
}

impl Server {
    /// Starts one in `g`; it stops when `ctx` ends.
    pub(crate) async fn start(
        g: &Group<anyhow::Error>,
        ctx: &Context,
        plan: Plan,
    ) -> anyhow::Result<Server> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = Url::parse(&format!("http://{}/file", listener.local_addr()?))?;
        let seen = watch::Sender::new(Seen::default());
        let app = Router::new()
            .route("/file", get(answer))
            .with_state(Arc::new((plan, seen.clone())));

        let ctx = ctx.clone();
        g.go(async move {
            axum::serve(listener, app)
                .with_graceful_shutdown(async move { drop(ctx.done().await) })
                .await?;
            Ok(())
        });
        Ok(Server { url, seen })
    }

    /// What it has seen, once no request is left: that a client has gone it learns a moment later.
    pub(crate) async fn seen(&self) -> anyhow::Result<Seen> {
        let mut seen = self.seen.subscribe();
        let ended = seen.wait_for(|seen| seen.requests == seen.answered + seen.cut_off);
        let seen = timeout(Duration::from_secs(5), ended)
            .await
            .with_context(|| format!("{} has a request still", self.url))?;
        Ok(*seen?)
    }
}

/// When the client goes, axum drops this future at its await.
async fn answer(State(state): State<Arc<(Plan, watch::Sender<Seen>)>>) -> (StatusCode, Vec<u8>) {
    let (plan, seen) = &*state;
    let mut request = Request {
        seen,
        end: |seen| seen.cut_off += 1,
    };
    let mut number = 0;
    seen.send_modify(|seen| {
        seen.requests += 1;
        number = seen.requests;
    });
    let (latency, status) = plan(number);
    sleep(latency).await;
    request.end = |seen| seen.answered += 1;
    (status, vec![b'.'; 4096])
}

/// A request that has begun. Dropping it records how it ended.
struct Request<'a> {
    seen: &'a watch::Sender<Seen>,
    end: fn(&mut Seen),
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.seen.send_modify(self.end);
    }
}
