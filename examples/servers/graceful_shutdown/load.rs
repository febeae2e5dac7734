//! The clients: each requests one job after another until the server has exited, and counts how
//! each request ended. Some request what takes no time, so they are between two requests when the
//! signal arrives.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use axum::http::StatusCode;
use errgroup::{Context, fetch_all};

use crate::client::{Client, Http, Reply};
use crate::server::ANSWER;

/// How many clients share an HTTP/2 connection.
const STREAMS: usize = 8;

/// How many of those with HTTP/1.1 ask for what takes no time.
const QUICK: usize = 8;

/// How the requests that were sent have ended.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    /// To the last byte, and in order.
    answered: usize,
    /// Sent, and not answered, or not wholly.
    lost: usize,
    /// The same for the first request of a connection that was made when the server had closed
    /// another. The system takes connections in for a moment longer than the server does; what is
    /// sent on such a connection is not read, and the server does not count it.
    refused: usize,
    /// Answered by something else than the job's answer.
    wrong: usize,
}

/// Says when every client has had an answer.
struct Start {
    waiting: AtomicUsize,
    clients: usize,
}

impl Start {
    fn has_answer(&self) {
        if self.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = writeln!(io::stdout(), "under load: {} clients", self.clients);
        }
    }
}

impl Counts {
    fn sum(counts: Vec<Counts>) -> Counts {
        counts
            .into_iter()
            .fold(Counts::default(), |sum, counts| Counts {
                answered: sum.answered + counts.answered,
                lost: sum.lost + counts.lost,
                refused: sum.refused + counts.refused,
                wrong: sum.wrong + counts.wrong,
            })
    }
}

/// Fails if a request was lost, or none was answered.
pub(crate) async fn run(addr: SocketAddr, clients: usize) -> anyhow::Result<()> {
    let of_two = clients / 2 / STREAMS;
    let of_one = clients - of_two * STREAMS;
    let start = Arc::new(Start {
        waiting: AtomicUsize::new(clients),
        clients,
    });
    let quick = QUICK.min(of_one);
    let connections = [
        vec![(Http::One, "/quick"); quick],
        vec![(Http::One, "/job"); of_one - quick],
        vec![(Http::Two, "/job"); of_two],
    ]
    .concat();
    let ctx = Context::background();
    let counts = fetch_all(&ctx, usize::MAX, connections, move |ctx, (http, path)| {
        let start = Arc::clone(&start);
        async move { keep_asking(&ctx, addr, http, path, start).await }
    })
    .await?;

    let Counts {
        answered,
        lost,
        refused,
        wrong,
    } = Counts::sum(counts);
    writeln!(
        io::stdout(),
        "{answered} answered, {lost} lost, {wrong} wrong, {refused} refused"
    )?;
    ensure!(answered > 0, "no server answers at {addr}");
    ensure!(lost == 0 && wrong == 0, "requests were lost");
    Ok(())
}

/// Opens one connection after another, until the server refuses.
async fn keep_asking(
    ctx: &Context,
    addr: SocketAddr,
    http: Http,
    path: &'static str,
    start: Arc<Start>,
) -> anyhow::Result<Counts> {
    let mut counts = Vec::new();
    let mut start = Some(start);
    while let Ok(client) = Client::connect(addr, http).await {
        let mut streams: Vec<_> = (1..STREAMS).filter_map(|_| client.stream()).collect();
        streams.push(client);
        let start = start.take();
        let of_streams = fetch_all(ctx, usize::MAX, streams, move |_, client| {
            let start = start.clone();
            async move { anyhow::Ok(until_closed(client, path, start).await) }
        });
        counts.extend(of_streams.await?);
    }
    Ok(Counts::sum(counts))
}

/// With a `start`, this is the first connection of its client.
async fn until_closed(mut client: Client, path: &'static str, start: Option<Arc<Start>>) -> Counts {
    let mut counts = Counts::default();
    loop {
        match client.get(path).await {
            Reply::Whole(answer) if answer.status == StatusCode::OK && answer.body == ANSWER => {
                counts.answered += 1;
            }
            Reply::Whole(answer) => {
                eprintln!("{}, {} bytes", answer.status, answer.body.len());
                counts.wrong += 1;
            }
            Reply::NotSent => return counts,
            Reply::Lost(_) if start.is_none() && counts.answered == 0 => {
                counts.refused += 1;
                return counts;
            }
            Reply::Lost(error) => {
                eprintln!("lost: {error:#}");
                counts.lost += 1;
                return counts;
            }
        }
        if let (Some(start), 1) = (&start, counts.answered) {
            start.has_answer();
        }
    }
}
