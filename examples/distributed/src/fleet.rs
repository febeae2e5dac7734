//! The workers, as the coordinator knows them: who is there, who is busy, who is lost.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use errgroup::tower::{PropagateLayer, PropagateService};
use errgroup::{Context, fan_out};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tower_layer::Layer;

use crate::proto::worker_client::WorkerClient;
use crate::proto::{Answer, Batch, SettleRequest, Settled, Tally};

/// How long a connection may take to make.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The workers of a job.
#[derive(Debug)]
pub struct Fleet {
    workers: Vec<Worker>,
    states: Mutex<Vec<State>>,
    answers: watch::Sender<usize>,
}

/// The layer is around the channel, and so around every call.
type Client = WorkerClient<PropagateService<Channel>>;

#[derive(Debug)]
struct Worker {
    addr: SocketAddr,
    client: Client,
}

/// What the coordinator has seen of a worker.
#[derive(Debug, Clone, Default)]
pub struct State {
    in_flight: usize,
    batches: usize,
    /// How many items it has answered.
    pub answers: usize,
    /// How many of its items others had to do.
    pub left_over: usize,
    /// Why it counts as lost, if it does.
    pub lost: Option<String>,
}

/// There is no worker that a batch could be given to.
#[derive(Debug, thiserror::Error)]
#[error("every worker is lost")]
pub struct NoWorkerLeft;

impl Fleet {
    /// Connects to all of them, or to none.
    ///
    /// The connections carry pings: a worker that is silent for `keep_alive` gets one. If it does
    /// not answer for three times as long, the connection and each call on it fail. Otherwise, a
    /// machine without power would be waited for until the deadline.
    ///
    /// # Errors
    ///
    /// If one of them cannot be reached, or the context ends.
    pub async fn connect(
        ctx: &Context,
        addrs: Vec<SocketAddr>,
        keep_alive: Duration,
    ) -> anyhow::Result<Fleet> {
        let workers = fan_out(ctx, addrs, move |_ctx, addr| async move {
            let channel = Endpoint::from_shared(format!("http://{addr}"))?
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(keep_alive)
                .keep_alive_timeout(keep_alive * 3)
                .keep_alive_while_idle(true)
                .connect()
                .await
                .map_err(|error| anyhow::Error::from(error).context(format!("worker {addr}")))?;
            let client = WorkerClient::new(PropagateLayer::new().layer(channel));
            Ok::<_, anyhow::Error>(Worker { addr, client })
        })
        .all()
        .await?;
        Ok(Fleet {
            states: Mutex::new(vec![State::default(); workers.len()]),
            workers,
            answers: watch::Sender::new(0),
        })
    }

    /// How many workers there were at the beginning.
    #[must_use]
    pub fn size(&self) -> usize {
        self.workers.len()
    }

    /// What the coordinator has seen of each.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        self.lock().clone()
    }

    /// The address of a worker.
    #[must_use]
    pub fn addr(&self, worker: usize) -> SocketAddr {
        self.workers[worker].addr
    }

    /// How many items have been answered so far.
    #[must_use]
    pub fn answers(&self) -> watch::Receiver<usize> {
        self.answers.subscribe()
    }

    /// The worker that has the most to do.
    #[must_use]
    pub fn busiest(&self) -> usize {
        let states = self.lock();
        (0..states.len())
            .max_by_key(|&index| states[index].in_flight)
            .unwrap_or_default()
    }

    /// Returns the worker that has the fewest calls and, of several, the one that has had the
    /// fewest. It counts as used while the lease is held.
    ///
    /// # Errors
    ///
    /// If all are lost.
    pub fn lease(self: &Arc<Self>) -> Result<Lease, NoWorkerLeft> {
        let mut states = self.lock();
        let index = (0..states.len())
            .filter(|&index| states[index].lost.is_none())
            .min_by_key(|&index| (states[index].in_flight, states[index].batches))
            .ok_or(NoWorkerLeft)?;
        states[index].in_flight += 1;
        states[index].batches += 1;
        Ok(Lease {
            fleet: Arc::clone(self),
            index,
        })
    }

    /// Waits until no item runs on any worker that is not lost. Returns how the items of each
    /// ended.
    ///
    /// # Errors
    ///
    /// If one of them does not answer, or the context ends.
    pub async fn settle(&self, ctx: &Context) -> anyhow::Result<Vec<Account>> {
        let states = self.states();
        let there = (0..self.size()).filter(|&index| states[index].lost.is_none());
        let asked: Vec<_> = there
            .map(|index| (index, self.workers[index].client.clone()))
            .collect();
        fan_out(ctx, asked, |ctx, (worker, mut client)| async move {
            client.settle(request(&ctx, SettleRequest {})).await?;
            // Again, because now it answers at once: its answer is as old as half of the time that
            // this takes, plus or minus the other half.
            let asked = Instant::now();
            let settled = client.settle(request(&ctx, SettleRequest {})).await?;
            Ok::<_, anyhow::Error>(Account::new(worker, settled.into_inner(), asked))
        })
        .all()
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker that has been given a batch. It counts as busy until this is dropped.
#[derive(Debug)]
pub struct Lease {
    fleet: Arc<Fleet>,
    index: usize,
}

impl Lease {
    /// Which worker it is.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Sends it the items, and the time that `ctx` has left. Dropping the stream stops them.
    ///
    /// # Errors
    ///
    /// What the worker answers, or what the connection to it died of.
    pub async fn run(&self, ctx: &Context, items: Vec<u64>) -> Result<Streaming<Answer>, Status> {
        let mut client = self.fleet.workers[self.index].client.clone();
        let answers = client.run(request(ctx, Batch { items })).await?;
        Ok(answers.into_inner())
    }

    /// Counts one answer for it.
    pub fn answered(&self) {
        self.fleet.lock()[self.index].answers += 1;
        self.fleet.answers.send_modify(|answers| *answers += 1);
    }

    /// It gets no batch any more; `left` items of the one that it had are for others.
    pub fn lost(&self, left: usize, why: &Status) {
        let mut states = self.fleet.lock();
        states[self.index].left_over += left;
        states[self.index].lost.get_or_insert_with(|| chain(why));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.fleet.lock()[self.index].in_flight -= 1;
    }
}

/// Why a call failed, in one line.
fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let line = error.to_string();
        if !text.ends_with(&line) {
            text = format!("{text}: {line}");
        }
        source = error.source();
    }
    text
}

/// A request that belongs to `ctx`: the layer sends the time that is left, and ends the call when
/// `ctx` is done.
fn request<T>(ctx: &Context, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(ctx.clone());
    request
}

/// What a worker says of itself.
#[derive(Debug)]
pub struct Account {
    /// Which one.
    pub worker: usize,
    /// Its items, counted.
    pub tally: Tally,
    /// When the last one ended.
    pub last_end: Option<Moment>,
    /// When the last one failed.
    pub last_failure: Option<Moment>,
}

impl Account {
    fn new(worker: usize, settled: Settled, asked: Instant) -> Account {
        let error = asked.elapsed() / 2;
        let moment = |nanos: u64| Moment {
            at: (asked + error)
                .checked_sub(Duration::from_nanos(nanos))
                .unwrap_or(asked),
            error,
        };
        Account {
            worker,
            tally: settled.tally.unwrap_or_default(),
            last_end: settled.nanos_since_last_end.map(moment),
            last_failure: settled.nanos_since_last_failure.map(moment),
        }
    }
}

/// When something happened in another process, on the clock of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The middle of the span in which it did.
    pub at: Instant,
    /// Half of that span.
    pub error: Duration,
}
