//! The handlers: each request has a context, which the layer has put there.

use std::convert::Infallible;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use errgroup::tower::ContextLayer;
use errgroup::{Context, ContextError, Group};
use futures::SinkExt as _;
use futures::channel::mpsc;

use crate::say;
use crate::work::{self, Site};

/// The layer is around the routes that work. After a disconnect it does not drop their handlers but
/// cancels their contexts, so that they can print why they stopped.
pub(crate) fn routes(site: Site, layer: ContextLayer) -> Router {
    Router::new()
        .route("/", get(report))
        .route("/rows", get(rows))
        .layer(layer)
        .route("/alive", get(alive))
        .with_state(site)
}

/// How many pieces of work are alive.
pub(crate) async fn alive(State(site): State<Site>) -> String {
    format!("{}\n", site.alive())
}

/// If the context ends, its error is the response: 503 or 504.
async fn report(State(site): State<Site>, ctx: Context) -> Result<&'static str, ContextError> {
    let began = Instant::now();
    let result = in_three_pieces(&ctx, &site).await;
    tell(&result, &site, began);
    result.map(|()| "done\n")
}

/// Three pieces of work at once. When this returns none of them runs any more, whatever the reason.
async fn in_three_pieces(ctx: &Context, site: &Site) -> Result<(), ContextError> {
    let (g, ctx) = Group::with_context(ctx);
    let (query, walk) = (ctx.clone(), ctx);
    let takes = site.takes;
    let [first, second, third] = [site.begin(), site.begin(), site.begin()];
    g.named("query").go(async move {
        let _alive = first;
        work::query(&query, takes).await
    });
    g.named("walk").go(async move {
        let _alive = second;
        work::walk(&walk, takes).await
    });
    g.named("computation").go_blocking(move |ctx| {
        let _alive = third;
        work::compute(&ctx, takes)
    });
    g.wait().await
}

/// Sends the head of the response and the first row at once. A task sends the rest. It outlives the
/// handler, but not the request, which lasts until the end of the body.
async fn rows(State(site): State<Site>, ctx: Context) -> Body {
    let (sender, body) = mpsc::channel(0);
    let piece = site.begin();
    tokio::spawn(async move {
        let began = Instant::now();
        let result = produce(&ctx, sender, &site).await;
        drop(piece);
        tell(&result, &site, began);
    });
    Body::from_stream(body)
}

async fn produce(
    ctx: &Context,
    mut sender: mpsc::Sender<Result<&'static str, Infallible>>,
    site: &Site,
) -> Result<(), ContextError> {
    for row in ["first\n", "last\n"] {
        if row == "last\n" {
            work::query(ctx, site.takes).await?;
        }
        // It fails if the body was dropped. Then the context has the cause.
        if sender.send(Ok(row)).await.is_err() {
            return Err(ctx.done().await);
        }
    }
    Ok(())
}

fn tell(result: &Result<(), ContextError>, site: &Site, began: Instant) {
    let how = match result {
        Ok(()) => "processed".to_owned(),
        Err(error) => {
            let what = match error.is_deadline_exceeded() {
                true => "out of time",
                false => "cancelled",
            };
            match error.cause() {
                Some(cause) => format!("{what}: {cause}"),
                None => what.to_owned(),
            }
        }
    };
    let (alive, elapsed) = (site.alive(), began.elapsed());
    say(format_args!(
        "request {how} (after {elapsed:.1?}; pieces of work alive: {alive})"
    ));
}
