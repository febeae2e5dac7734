//! The same without the layer. No context is cancelled, so no work stops.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use errgroup::Context;
use futures::SinkExt as _;
use futures::channel::mpsc;

use crate::handlers::alive;
use crate::say;
use crate::work::{self, Site};

pub(crate) fn routes(site: Site) -> Router {
    Router::new()
        .route("/", get(report))
        .route("/rows", get(rows))
        .route("/alive", get(alive))
        .with_state(site)
}

/// If the client disconnects, this is dropped at its await, and prints nothing. The tasks continue:
/// dropping a handle stops no task.
async fn report(State(site): State<Site>) -> Result<&'static str, StatusCode> {
    let takes = site.takes;
    let [first, second, third] = [site.begin(), site.begin(), site.begin()];
    let query = tokio::spawn(async move {
        let _alive = first;
        work::query(&Context::background(), takes).await
    });
    let walk = tokio::spawn(async move {
        let _alive = second;
        work::walk(&Context::background(), takes).await
    });
    let computation = tokio::task::spawn_blocking(move || {
        let _alive = third;
        work::compute(&Context::background(), takes)
    });
    for piece in [query, walk, computation] {
        match piece.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
    say(format_args!("request processed"));
    Ok("done\n")
}

/// Sees that the body was dropped only when it sends the next row, after the work for it.
async fn rows(State(site): State<Site>) -> Body {
    let (mut sender, body) = mpsc::channel::<Result<_, Infallible>>(0);
    tokio::spawn(async move {
        let _alive = site.begin();
        let first = sender.send(Ok("first\n")).await;
        let worked = work::query(&Context::background(), site.takes).await;
        let last = sender.send(Ok("last\n")).await;
        if first.is_ok() && worked.is_ok() && last.is_ok() {
            say(format_args!("request processed"));
        }
    });
    Body::from_stream(body)
}
