//! A client for where there is no curl.

use anyhow::Context as _;
use axum::body::Body;
use axum::http::header::HOST;
use axum::http::{Request, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Asks, reads the answer to its end, and gives its status.
pub(crate) async fn get(
    uri: Uri,
    is_http2: bool,
    header: Option<&str>,
) -> anyhow::Result<StatusCode> {
    let authority = uri.authority().context("the URL names no host")?.clone();
    let mut request = Request::get(&uri);
    if let Some(header) = header {
        let (name, value) = header
            .split_once(':')
            .context("a header is `name: value`")?;
        request = request.header(name.trim(), value.trim());
    }
    let stream = TokioIo::new(TcpStream::connect(authority.as_str()).await?);
    let response = if is_http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        sender.send_request(request.body(Body::empty())?).await?
    } else {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = request.uri(path).header(HOST, authority.as_str());
        let (mut sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        sender.send_request(request.body(Body::empty())?).await?
    };
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}
