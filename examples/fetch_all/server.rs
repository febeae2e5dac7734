//! The demonstration's own HTTP server, on loopback, and what it sees of its clients.

use std::cmp::Ordering;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use errgroup::{Context, Group};
use reqwest::Url;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;

use crate::ledger::{Counts, Ledger};

/// Long enough for anything on loopback. Who waits longer waits in vain, and the counts will show it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pages 1, 2, 3 and so on, of which one may be at fault.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    pages: usize,
    fault: Option<Fault>,
}

/// Page `at` answers 500 as soon as it and those behind it take all `places` of the client. Those behind it do not
/// answer, so that it is always the same requests that are in flight when it fails.
#[derive(Clone, Copy)]
struct Fault {
    at: usize,
    places: usize,
}

impl Site {
    pub(crate) fn sound(pages: usize) -> Site {
        Site { pages, fault: None }
    }

    /// The page at fault is three fifths of the way, or as much earlier as it takes to fill the client's places.
    pub(crate) fn faulty(pages: usize, limit: usize) -> Site {
        let places = limit.min(pages);
        let at = (pages / 5 * 3).clamp(1, pages - places + 1);
        Site {
            pages,
            fault: Some(Fault { at, places }),
        }
    }

    /// What both sides count when a client that stops at the first failure has gone through the pages in order.
    pub(crate) fn expected(self) -> Counts {
        match self.fault {
            None => Counts {
                begun: self.pages,
                finished: self.pages,
                ..Counts::default()
            },
            Some(Fault { at, places }) => Counts {
                begun: at - 1 + places,
                finished: at - 1,
                failed: 1,
                cut_off: places - 1,
            },
        }
    }

    async fn answer(self, number: usize, ledger: &Ledger) -> Result<Vec<u8>, StatusCode> {
        match self.fault.map(|fault| number.cmp(&fault.at)) {
            Some(Ordering::Equal) => {
                let begun = self.expected().begun;
                ledger
                    .counts_when(|counts| counts.begun >= begun, PATIENCE)
                    .await;
                return Err(StatusCode::INTERNAL_SERVER_ERROR);
            }
            Some(Ordering::Greater) => sleep(PATIENCE).await,
            Some(Ordering::Less) | None => sleep(latency(number)).await,
        }
        Ok(vec![b'.'; size(number)])
    }
}

/// 2 to 38 ms; most pages are quick.
fn latency(number: usize) -> Duration {
    let step = number as u64 * 13 % 20;
    Duration::from_millis(2 + step * step / 10)
}

/// 1 to 64 KiB.
fn size(number: usize) -> usize {
    (number * 37 % 64 + 1) * 1024
}

pub(crate) struct Server {
    site: Site,
    root: Url,
    ledger: Ledger,
    group: Group<anyhow::Error>,
}

impl Server {
    pub(crate) async fn start(site: Site) -> anyhow::Result<Server> {
        let listener = listen()?;
        let root = Url::parse(&format!("http://{}/", listener.local_addr()?))?;
        let ledger = Ledger::default();
        let app = Router::new()
            .route("/page/{number}", get(page))
            .with_state(Arc::new((site, ledger.clone())));

        let (group, ctx) = Group::with_context(Context::background());
        group.go(async move {
            axum::serve(listener, app)
                .with_graceful_shutdown(async move { drop(ctx.done().await) })
                .await?;
            Ok(())
        });
        Ok(Server {
            site,
            root,
            ledger,
            group,
        })
    }

    pub(crate) fn urls(&self) -> impl ExactSizeIterator<Item = Url> + Send + use<> {
        let root = self.root.clone();
        (0..self.site.pages).map(move |index| {
            let mut url = root.clone();
            url.set_path(&format!("page/{}", index + 1));
            url
        })
    }

    /// What the server has seen, as soon as no request is left. That a client has gone it learns a moment later.
    pub(crate) async fn settled(&self) -> Counts {
        self.ledger
            .counts_when(|counts| counts.in_flight() == 0, PATIENCE)
            .await
    }

    /// Stops listening, and waits until every connection has been closed.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.group.cancel();
        self.group.wait().await
    }
}

/// On a port that the system chooses. The backlog lets thousands connect at the same moment.
fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(4096)
}

/// When the client goes, axum drops this future at its await, and with it the entry, still open.
async fn page(
    State(state): State<Arc<(Site, Ledger)>>,
    Path(number): Path<usize>,
) -> Result<Vec<u8>, StatusCode> {
    let (site, ledger) = &*state;
    let entry = ledger.begin();
    let answer = site.answer(number, ledger).await;
    entry.close(&answer);
    answer
}
