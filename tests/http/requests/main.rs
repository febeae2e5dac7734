//! Sends ten thousand requests to a real server, on HTTP/1.1 and HTTP/2. Half of the clients
//! disconnect at random moments. Then checks that nothing is left of the requests.
//!
//! ```sh
//! cargo test -p http-tests --test requests
//! SEED=17 cargo test -p http-tests --test requests    # the same requests again
//! ```
//!
//! A client disconnects before it has the headers of the response, in the middle of the response or
//! of its own upload, at a random moment, or by closing its connection with everything on it. Some
//! requests have a deadline. One server drops its handlers on a disconnect, in another one they run
//! on. After each round of 500 requests, no task is left but the two that accept connections, and
//! no connection, handler or descriptor. The heap is as large as before. The context of each
//! received request has ended once, with a cause that fits what its client knows:
//!
//! | the client | the context ended |
//! |---|---|
//! | has the whole response | `the request is finished` |
//! | has a 504, or stayed and the response broke off | by the deadline, not earlier by its clock |
//! | left an answer that never ends, or an upload in the middle | `client disconnected` |
//! | left what was about to end by itself | by either; only the server knows which was first |
//! | left at a random moment | the same; or the server never saw the request |
//!
//! A response that is sent before the deadline and ends after it has both: the client has the
//! complete response, at or after its deadline, and the deadline ended the context. At last, each
//! server is stopped in the middle of a round. The requests that it has begun are answered or have
//! ended with the cause of the server, and it has not begun the requests that it refused.
//!
//! The checks keep to what a server can see. hyper notices a disconnect on HTTP/1.1 when it reads.
//! It does not read past a body that the handler does not read, if that is not complete or has 40
//! kB or more, nor past a second request that was sent before the first was answered. Here, the
//! handlers read their uploads, and the clients wait for their responses. A client that is silent
//! without closing its connection is not noticed, and no client here does that. *Whole* means that
//! the response was handed to the server. What of it the client received, the client reports
//! itself.
//!
//! Nothing is timed: the test waits for each event, and gives up only if it hangs.

mod client;
mod ledger;
mod plan;
mod server;

use std::alloc::System;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use client::{Peer, Protocol};
use ledger::Entry;
use plan::{BATCH, HTTP1, HTTP2, Plan, Random};
use server::Server;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Of [`HTTP1`] and [`HTTP2`] requests each.
const ROUNDS: u64 = 20;

/// Rounds until what is made once has been made, and what grows to its size has grown.
const WARM_UP: u64 = 8;

/// How much the heap may have grown since the warm-up, over all rounds: in bytes, and in
/// allocations. It is not zero, since tokio frees what belonged to a socket some sixteen at a time.
/// It is far less than one allocation for each request.
const SLACK: (usize, usize) = (32 * 1024, 64);

/// A piece of a body.
const CHUNK: &[u8] = &[b'x'; 1024];

/// How many lanes of clients there are at once.
const LANES: (usize, usize) = (16, 4);

/// After this long, what should have come is not coming.
const PATIENCE: Duration = Duration::from_secs(20);

static PANICS: AtomicUsize = AtomicUsize::new(0);

struct Run {
    seed: u64,
    /// The servers' runtime, whose tasks are theirs alone.
    theirs: Runtime,
    clients: Runtime,
    /// How many ended how, by mode.
    ends: BTreeMap<(&'static str, String), usize>,
}

#[test]
fn ten_thousand_requests_end_once_each_and_leave_nothing() {
    let seed = std::env::var("SEED").map_or_else(|_| Random::seed(), |seed| seed.parse().unwrap());
    eprintln!("SEED={seed}");
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        hook(info);
    }));
    let runtime = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    let mut run = Run {
        seed,
        theirs: runtime(),
        clients: runtime(),
        ends: BTreeMap::new(),
    };
    let modes = [false, true];
    let servers = modes.map(|lingers| run.theirs.block_on(Server::start(lingers)));
    // A socket each, and what belongs to the runtimes.
    let open = open_files();
    let mut level = (0, 0);
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            run.ends.clear();
            level = heap();
        }
        let server = &servers[round as usize % 2];
        run.round(server, round, None);
        run.settles("tasks, connections and descriptors", || {
            let left = (run.theirs.metrics().num_alive_tasks(), open_files());
            (left == (servers.len(), open), format!("{left:?}"))
        });
        run.settles("the heap", || {
            let (bytes, count) = heap();
            let back = bytes <= level.0 + SLACK.0 && count <= level.1 + SLACK.1;
            let text = format!("{bytes} bytes in {count} allocations, {level:?} after the warm-up");
            (round < WARM_UP || back, text)
        });
    }
    eprintln!("heap: {level:?} after the warm-up, {:?} after that", heap());
    assert_eq!(run.ends.values().sum::<usize>(), 10_000);
    run.report();

    for (server, round) in servers.iter().zip(WARM_UP + ROUNDS..) {
        run.round(server, round, Some((HTTP1 + HTTP2) / 4));
    }
    for server in &servers {
        let drained = run.theirs.block_on(server.handlers.clone().wait());
        let phase = &drained.phases()[0];
        assert_eq!((phase.aborted().len(), phase.errors().len()), (0, 0));
    }
    drop(servers);
    run.settles("tasks, of servers that have stopped", || {
        let left = run.theirs.metrics().num_alive_tasks();
        (left == 0, left.to_string())
    });
    run.report();
}

impl Run {
    /// Runs a round, at whose end every client has disconnected. The server is stopped when this
    /// many of the requests have arrived.
    fn round(&mut self, server: &Server, round: u64, stop_at: Option<usize>) {
        let lingers = server.lingers;
        let mode = if lingers { "lingering" } else { "dropping" };
        let plans = Plan::draw(self.seed, round);
        let left = plans.iter().filter(|plan| plan.leaves.is_some());
        assert_eq!(left.count() * 2, plans.len());
        let ledger: Arc<[Arc<Entry>]> = plans
            .into_iter()
            .map(|plan| Arc::new(Entry::new(plan)))
            .collect();
        server.expect(&ledger);
        let lanes = self.lanes(server, round, &ledger);
        self.clients.block_on(async {
            let stop = async {
                let Some(count) = stop_at else { return };
                while ledger.iter().filter(|entry| entry.has_arrived()).count() < count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                server.stop();
            };
            let clients = async { tokio::join!(lanes.join_all(), stop) };
            if tokio::time::timeout(PATIENCE, clients).await.is_err() {
                let mut open = ledger.iter().enumerate();
                let open = open.find(|(_, entry)| entry.account.lock().unwrap().is_none());
                panic!("SEED={}, round {round}: clients hang: {open:?}", self.seed);
            }
        });
        self.settles("connections and handlers", || {
            let left = (
                server.connections(),
                server.handlers_alive().max(server.handlers.running()),
                self.clients.metrics().num_alive_tasks(),
            );
            (left == (0, 0, 0), format!("{left:?}"))
        });
        // Every task that was started for a request has seen the end of its context.
        self.settles("the ends of what handlers started", || {
            let told = |entry: &Arc<Entry>| entry.ends.lock().unwrap().len();
            let told: usize = ledger.iter().map(told).sum();
            let reached = ledger.iter().filter(|entry| entry.is_reached()).count();
            (told == reached, format!("{told} ends of {reached}"))
        });
        for (number, entry) in ledger.iter().enumerate() {
            match entry.verdict(lingers, number >= HTTP1, stop_at.is_some()) {
                Ok(end) => *self.ends.entry((mode, end)).or_default() += 1,
                Err(what) => panic!(
                    "SEED={}, round {round}, request {number}: {what}",
                    self.seed
                ),
            }
        }
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "SEED={}", self.seed);
        server.forget();
    }

    /// Starts the clients.
    fn lanes(&self, server: &Server, round: u64, ledger: &Arc<[Arc<Entry>]>) -> JoinSet<()> {
        let all: Vec<_> = ledger.iter().cloned().enumerate().collect();
        let (http1, http2) = all.split_at(HTTP1);
        let peer = |protocol| Peer {
            addr: server.addr,
            protocol,
        };
        let mut random = Random::of(self.seed, !round);
        let mut lanes = JoinSet::new();
        let clients = self.clients.handle();
        for lane in 0..LANES.0 {
            let requests = http1.iter().skip(lane).step_by(LANES.0).cloned().collect();
            lanes.spawn_on(client::one_by_one(peer(Protocol::Http1), requests), clients);
        }
        let batches: Vec<_> = http2.chunks(BATCH).map(<[_]>::to_vec).collect();
        for lane in 0..LANES.1 {
            let batches = batches.iter().skip(lane).step_by(LANES.1).cloned();
            let batches: Vec<_> = batches.map(|batch| (batch, random.micros(6_000))).collect();
            let peer = peer(Protocol::Http2);
            lanes.spawn_on(
                async move {
                    for (batch, dies_after) in batches {
                        client::together(peer, batch, dies_after).await;
                    }
                },
                clients,
            );
        }
        lanes
    }

    /// Waits until it holds.
    fn settles(&self, what: &str, holds: impl Fn() -> (bool, String)) {
        let began = Instant::now();
        loop {
            let (settled, left) = holds();
            if settled {
                return;
            }
            let hangs = began.elapsed() > PATIENCE;
            assert!(
                !hangs,
                "SEED={}: it does not settle: {what}: {left}",
                self.seed
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn report(&mut self) {
        for ((mode, end), count) in std::mem::take(&mut self.ends) {
            eprintln!("{count:>6} {mode}: {end}");
        }
    }
}

/// What is alive of the heap: bytes, and allocations.
fn heap() -> (usize, usize) {
    let stats = HEAP.stats();
    (
        stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated),
        stats.allocations.wrapping_sub(stats.deallocations),
    )
}

/// Open descriptors of the process, where the system says.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
