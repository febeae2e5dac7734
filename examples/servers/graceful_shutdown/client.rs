//! A connection to the server, HTTP/1.1 or HTTP/2, that knows what has become of each request.

use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONNECTION, HOST};
use axum::http::{Request, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::sleep;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

pub(crate) struct Client {
    addr: SocketAddr,
    sender: Sender,
}

enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

/// What became of a request.
pub(crate) enum Reply {
    /// An answer, to the last byte of its body.
    Whole(Answer),
    /// The server had closed the connection, or said that it would: the request was never sent, or
    /// would not be looked at.
    NotSent,
    /// It was sent, and nothing came, or not all of it.
    Lost(anyhow::Error),
}

pub(crate) struct Answer {
    /// The server has said that it will close the connection.
    pub(crate) is_last: bool,
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr, http: Http) -> anyhow::Result<Client> {
        let stream = TokioIo::new(TcpStream::connect(addr).await?);
        let sender = match http {
            Http::One => {
                let (sender, connection) = http1::handshake(stream).await?;
                tokio::spawn(connection);
                Sender::One(sender)
            }
            Http::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                tokio::spawn(connection);
                Sender::Two(sender)
            }
        };
        Ok(Client { addr, sender })
    }

    /// Another stream of the same connection; HTTP/1.1 has one alone.
    pub(crate) fn stream(&self) -> Option<Client> {
        match &self.sender {
            Sender::One(_) => None,
            Sender::Two(sender) => Some(Client {
                addr: self.addr,
                sender: Sender::Two(sender.clone()),
            }),
        }
    }

    /// Whether a further request may be sent.
    pub(crate) async fn is_open(&mut self) -> bool {
        match &mut self.sender {
            Sender::One(sender) => sender.ready().await.is_ok(),
            Sender::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Waits until the server has closed the connection, or has said that it will.
    pub(crate) async fn closed(&self) {
        let is_closed = || match &self.sender {
            Sender::One(sender) => sender.is_closed(),
            Sender::Two(sender) => sender.is_closed(),
        };
        while !is_closed() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        if !self.is_open().await {
            return Reply::NotSent;
        }
        let sent = match &mut self.sender {
            Sender::One(sender) => {
                let request = Request::get(path).header(HOST, self.addr.to_string());
                let request = request
                    .body(Body::empty())
                    .expect("an address and a path make a request");
                sender.try_send_request(request).await
            }
            Sender::Two(sender) => {
                let uri = format!("http://{}{path}", self.addr);
                let request = Request::get(uri).version(Version::HTTP_2);
                let request = request
                    .body(Body::empty())
                    .expect("an address and a path make a request");
                sender.try_send_request(request).await
            }
        };
        let response = match sent {
            Ok(response) => response,
            Err(mut error) => {
                let is_unsent = error.take_message().is_some();
                let error = error.into_error();
                return match is_unsent || is_goaway(&error) {
                    true => Reply::NotSent,
                    false => Reply::Lost(error.into()),
                };
            }
        };
        let status = response.status();
        let is_last = response
            .headers()
            .get(CONNECTION)
            .is_some_and(|value| value == "close");
        match response.into_body().collect().await {
            Ok(body) => Reply::Whole(Answer {
                is_last,
                status,
                body: body.to_bytes(),
            }),
            Err(error) => Reply::Lost(anyhow::Error::from(error).context("the body was cut off")),
        }
    }
}

/// HTTP/2: the connection ends in order, and the server promises that it has done nothing about
/// this request.
fn is_goaway(error: &hyper::Error) -> bool {
    let error = error.source().and_then(|it| it.downcast_ref::<h2::Error>());
    error.is_some_and(|it| it.is_go_away() && it.reason() == Some(h2::Reason::NO_ERROR))
}
