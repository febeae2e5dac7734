// What a program in GUIDE.md needs, a shop whose work is done elsewhere, and its test: clients that
// disconnect.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::post};
use errgroup::{ContextError, tower::ContextLayer};
use tower::ServiceExt;

/// The list of what has been done. Each thing is done after 10 ms, whether a caller waits or not,
/// and the response takes as long again.
#[derive(Clone, Default)]
struct Shop(Arc<Mutex<Vec<&'static str>>>);

impl Shop {
    async fn price(&self, _: u64) -> Result<u64, Refused> {
        Ok(1)
    }

    async fn hold(&self, _: u64) -> Result<(), Refused> {
        self.remote("held").await
    }

    async fn charge(&self, _: u64) -> Result<(), Refused> {
        self.remote("charged").await
    }

    async fn book(&self, _: u64) -> Result<(), Refused> {
        self.remote("booked").await
    }

    async fn release(&self, _: u64) -> Result<(), Refused> {
        self.remote("released").await
    }

    async fn remote(&self, what: &'static str) -> Result<(), Refused> {
        let log = self.0.clone();
        let done = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            log.lock().unwrap().push(what);
            tokio::time::sleep(Duration::from_millis(10)).await;
        });
        done.await.map_err(|_| Refused)
    }

    /// What has been done since the last call, when nothing is running any more.
    async fn log(&self) -> Vec<&'static str> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Pays order 7, and disconnects after this time.
async fn client_that_goes_after(millis: u64, app: &Router) {
    let request = Request::post("/orders/7").body(Body::empty()).unwrap();
    let answer = app.clone().oneshot(request);
    let answered = tokio::time::timeout(Duration::from_millis(millis), answer).await;
    assert!(answered.is_err(), "it was to go before it has an answer");
}

struct Refused;

impl From<ContextError> for Refused {
    fn from(_: ContextError) -> Refused {
        Refused
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    let server = Context::background();
    let layer = ContextLayer::new(&server).grace(Duration::from_secs(5));
    let handlers = layer.handlers();
    let shop = Shop::default();
    let app = Router::new()
        .route("/orders/{order}", post(pay))
        .layer(layer)
        .with_state(shop.clone());

    client_that_goes_after(25, &app).await; // in await 3
    assert_eq!(shop.log().await, ["held", "charged", "booked", "released"]);

    client_that_goes_after(5, &app).await; // in await 2
    assert_eq!(shop.log().await, ["held", "released"]);
    assert!(handlers.wait().await.aborted().next().is_none());
}
