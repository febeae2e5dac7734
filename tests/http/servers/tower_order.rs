//! The recommended order of layers, with tower-http's: a timeout response has CORS headers, and a
//! panic is a 500.

use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use errgroup::Context;
use errgroup::tower::ContextLayer;
use http::{Request, Response};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::CorsLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::trace::TraceLayer;

fn app(layer: ContextLayer) -> Router {
    let order = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(CatchPanicLayer::new())
        .layer(CorsLayer::permissive())
        .layer(layer);
    Router::new()
        .route("/hangs", get(pending::<String>))
        .route("/panics", get(async || -> String { panic!("a bug") }))
        .route("/upload", post(async |text: String| text))
        .layer(RequestBodyLimitLayer::new(16))
        // A call of its own: with `ServiceBuilder`, a request would wait before it has a deadline.
        .layer(GlobalConcurrencyLimitLayer::new(2))
        .layer(order)
}

async fn ask(app: &Router, request: http::request::Builder, body: Body) -> Response<Body> {
    let request = request.header("origin", "https://shop.example");
    app.clone()
        .oneshot(request.body(body).unwrap())
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn in_the_recommended_order_each_layer_sees_what_it_needs() {
    let layer = ContextLayer::new(&Context::background()).max_timeout(Duration::from_secs(1));
    let handlers = layer.handlers();
    let app = app(layer);
    let late = ask(&app, Request::get("/hangs"), Body::empty()).await;
    assert_eq!(late.status(), 504);
    assert_eq!(late.headers()["access-control-allow-origin"], "*");
    let panicked = ask(&app, Request::get("/panics"), Body::empty()).await;
    assert_eq!(panicked.status(), 500);
    let large = ask(&app, Request::post("/upload"), Body::from("x".repeat(17))).await;
    assert_eq!(large.status(), 413);
    // The handlers that run on without their clients keep their permits.
    assert_eq!(handlers.lingering(), 1);
    let (first, second) = (
        ask(&app, Request::get("/hangs"), Body::empty()),
        ask(&app, Request::post("/upload"), Body::from("text")),
    );
    let (first, second) = tokio::join!(first, second);
    assert_eq!(
        (first.status().as_u16(), second.status().as_u16()),
        (504, 504)
    );
    // The one that waited for a permit is still waiting for it.
    assert_eq!(handlers.lingering(), 3);
}
