// The rest of a program in GUIDE.md: the call of a service that has its own deadline.

use std::time::Duration;

use axum::{Router, body::Body, extract::State, http::StatusCode, routing::get};
use errgroup::tower::PropagateService;
use http::Request;
use http_body_util::BodyExt;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};

type Http = PropagateService<Client<HttpConnector, Body>>;

/// A response of another service that is not a success.
#[derive(Debug, thiserror::Error)]
#[error("upstream answered {0}")]
struct Upstream(StatusCode);

async fn call(ctx: Context, http: Http, uri: &str) -> Result<String, BoxError> {
    let mut request = Request::get(uri).body(Body::empty())?;
    request.extensions_mut().insert(ctx);
    let response = http.oneshot(request).await?;
    if !response.status().is_success() {
        return Err(Upstream(response.status()).into());
    }
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.into())?)
}

#[tokio::main(flavor = "current_thread")]
async fn test() {
    let _ = app(&Context::background());
    let late = Upstream(StatusCode::GATEWAY_TIMEOUT).into();
    assert_eq!(status(&late), 504);
    assert_eq!(status(&Upstream(StatusCode::NOT_FOUND).into()), 502);
}
