//! The clients, which are hyper's, with one connection each. To disconnect, they close it on
//! HTTP/1.1. On HTTP/2 they reset a stream, or close the connection with everything on it.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use errgroup::tower::BoxError;
use futures::future::join_all;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::CHUNK;
use crate::ledger::{Account, Entry};
use crate::plan::{Leaves, Plan, Work};

type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The end of an upload at which it is fed; dropped, the upload has come to its end.
type Upload = mpsc::Sender<Frame<Bytes>>;
type Call = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

#[derive(Clone, Copy)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Where a client connects to.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    pub(crate) protocol: Protocol,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// The executor of a connection. On HTTP/2, hyper has a task for the socket, and one for each
/// upload.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.lock().unwrap().spawn(async { drop(future.await) });
    }
}

struct Connection {
    addr: SocketAddr,
    sender: Sender,
    tasks: Tasks,
}

impl Connection {
    /// `None` if the server has stopped.
    async fn open(peer: Peer) -> Option<Connection> {
        let io = TokioIo::new(TcpStream::connect(peer.addr).await.ok()?);
        let tasks = Tasks::default();
        let sender = match peer.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.ok()?;
                tasks.execute(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(tasks.clone(), io).await.ok()?;
                tasks.execute(connection);
                Sender::Http2(sender)
            }
        };
        Some(Connection {
            addr: peer.addr,
            sender,
            tasks,
        })
    }

    fn send(&mut self, request: Request<Body>) -> Call {
        match &mut self.sender {
            Sender::Http1(sender) => Box::pin(sender.send_request(request)),
            Sender::Http2(sender) => Box::pin(sender.send_request(request)),
        }
    }

    /// Whether another request may go over it.
    async fn is_ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends one request, and waits until the response is there or the client disconnects, and
    /// until its upload has ended.
    fn ask(
        &mut self,
        number: usize,
        entry: &Arc<Entry>,
    ) -> impl Future<Output = (Account, Option<Upload>)> + Send + use<> {
        let entry = entry.clone();
        let plan = entry.plan;
        let mut request = Request::builder().uri(format!("http://{}/{number}", self.addr));
        if let Some(timeout) = plan.timeout {
            request = request.header("grpc-timeout", format!("{}m", timeout.as_millis()));
        }
        let (mut upload, body) = match plan.work {
            Work::Upload(_) => {
                let (upload, chunks) = mpsc::channel(1);
                let frames = futures::stream::unfold(chunks, async |mut chunks| {
                    chunks.recv().await.map(|frame| (Ok(frame), chunks))
                });
                (Some(upload), StreamBody::new(frames).boxed_unsync())
            }
            _ => (None, Empty::new().map_err(Into::into).boxed_unsync()),
        };
        let method = if upload.is_some() { "POST" } else { "GET" };
        let began = Instant::now();
        let call = self.send(request.method(method).body(body).unwrap());
        async move {
            let answer = answer(call, plan);
            let leaving = async {
                match plan.leaves {
                    Some(Leaves::BeforeHeaders) => entry.at_handler.notified().await,
                    Some(Leaves::InUpload) => entry.read.notified().await,
                    Some(Leaves::After(time)) => tokio::time::sleep(time).await,
                    Some(Leaves::InBody(_) | Leaves::WithConnection) | None => pending().await,
                }
            };
            let feeding = async {
                feed(&mut upload, plan).await;
                pending::<()>().await;
            };
            let account = tokio::select! {
                biased;
                answered = answer => match answered {
                    Ok(Some(status)) => Account::Whole(status, began.elapsed()),
                    Ok(None) => Account::Left,
                    Err(_) => Account::Broken(began.elapsed()),
                },
                () = leaving => Account::Left,
                () = feeding => unreachable!("it goes on until the answer is there"),
            };
            (account, upload)
        }
    }

    /// As a process that ends closes it: with whatever is under way.
    async fn close(self) {
        let mut tasks = std::mem::take(&mut *self.tasks.0.lock().unwrap());
        tasks.shutdown().await;
    }
}

/// Asks for one after another, over as few connections as can be.
pub(crate) async fn one_by_one(peer: Peer, requests: Vec<(usize, Arc<Entry>)>) {
    let mut open = None;
    for (number, entry) in requests {
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => match Connection::open(peer).await {
                Some(connection) => connection,
                None => {
                    note(&entry, Account::Broken(Duration::ZERO));
                    continue;
                }
            },
        };
        if !connection.is_ready().await {
            connection.close().await;
            note(&entry, Account::Broken(Duration::ZERO));
            continue;
        }
        let (account, upload) = connection.ask(number, &entry).await;
        note(&entry, account);
        // After an error, the server may be about to close it.
        match account {
            Account::Whole(status, _) if status.is_success() => open = Some(connection),
            _ => connection.close().await,
        }
        // Had it been dropped before, the upload would have come to its end.
        drop(upload);
    }
    if let Some(connection) = open {
        connection.close().await;
    }
}

/// Asks for all at once, over one connection.
pub(crate) async fn together(peer: Peer, batch: Vec<(usize, Arc<Entry>)>, dies_after: Duration) {
    let dies = batch
        .iter()
        .any(|(_, entry)| entry.plan.leaves == Some(Leaves::WithConnection));
    let Some(mut connection) = Connection::open(peer).await else {
        for (_, entry) in batch {
            note(&entry, Account::Broken(Duration::ZERO));
        }
        return;
    };
    let asked = batch.iter().map(|(number, entry)| {
        let asked = connection.ask(*number, entry);
        async move {
            let (account, upload) = asked.await;
            note(entry, account);
            if entry.plan.leaves == Some(Leaves::InUpload) && account == Account::Left {
                // That the stream was reset is all that the server can learn it from.
                entry.ended.notified().await;
            }
            upload
        }
    });
    let all = join_all(asked.collect::<Vec<_>>());
    let death = async {
        match dies {
            true => tokio::time::sleep(dies_after).await,
            false => pending().await,
        }
    };
    tokio::pin!(all);
    tokio::select! {
        uploads = &mut all => {
            connection.close().await;
            drop(uploads);
        }
        () = death => {
            connection.close().await;
            drop(all.await);
        }
    }
}

fn note(entry: &Entry, account: Account) {
    let account = match (account, entry.plan.leaves) {
        // It has closed the connection itself.
        (Account::Broken(_), Some(Leaves::WithConnection)) => Account::Left,
        (account, _) => account,
    };
    let before = entry.account.lock().unwrap().replace(account);
    assert_eq!(before, None, "asked for once");
}

/// Reads the answer; `None` if the client leaves in the middle of it.
async fn answer(call: Call, plan: Plan) -> hyper::Result<Option<StatusCode>> {
    let response = call.await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        seen += frame?.into_data().map_or(0, |data| data.len());
        match plan.leaves {
            Some(Leaves::InBody(chunks)) if status.is_success() && seen >= chunks * CHUNK.len() => {
                return Ok(None);
            }
            _ => {}
        }
    }
    Ok(Some(status))
}

/// Sends the upload, and ends it where its client does not leave before.
async fn feed(upload: &mut Option<Upload>, plan: Plan) {
    let (Some(sender), Work::Upload(chunks)) = (upload.as_mut(), plan.work) else {
        return;
    };
    for _ in 0..chunks {
        let chunk = Frame::data(Bytes::from_static(CHUNK));
        if sender.send(chunk).await.is_err() {
            // The server reads no more. The response says why.
            return;
        }
        tokio::task::yield_now().await;
    }
    if plan.leaves != Some(Leaves::InUpload) {
        *upload = None;
    }
}
