//! What the modules about groups and fan-outs share.

use std::any::Any;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};

use errgroup::{Context, Group};
use futures::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

pub(crate) use crate::support::{OnDrop, PATIENCE, poll_with, waker};

/// The group that most tests use.
pub(crate) type G = Group<String>;

pub(crate) const OK: Result<(), String> = Ok(());

pub(crate) fn group() -> (G, Context) {
    G::with_context(Context::background())
}

pub(crate) fn limited(limit: usize) -> G {
    let (g, _) = group();
    g.set_limit(limit);
    g
}

/// Makes two tests of each of these functions: one on a runtime of one thread with a paused clock,
/// and one on a runtime with two worker threads. Both run under the timeout of `in_time`.
///
/// The functions are listed by name, so that rustfmt still formats their bodies. A function that is
/// not listed does not compile: each test binary denies `dead_code`.
macro_rules! both_flavours {
    ($($test:ident),+ $(,)?) => {
        mod one_thread {
            $(
                #[tokio::test(start_paused = true)]
                async fn $test() {
                    $crate::group_support::in_time(super::$test()).await;
                }
            )+
        }

        mod two_workers {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $crate::group_support::in_time(super::$test()).await;
                }
            )+
        }
    };
}

pub(crate) use both_flavours;

/// Awaits `future`, and panics if it takes longer than `PATIENCE`.
///
/// A paused clock jumps ahead as soon as every task waits, so a deadlock fails at once there.
pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    // The timer is polled first. A future that became ready without waking its task is polled only
    // when the timer wakes the task, and that must fail.
    let timer = std::pin::pin!(tokio::time::sleep(PATIENCE));
    match futures::future::select(timer, std::pin::pin!(future)).await {
        futures::future::Either::Left(_) => panic!("the test did not finish in {PATIENCE:?}"),
        futures::future::Either::Right((output, _)) => output,
    }
}

/// The number of 100 rounds in which a task may be late if another one blocks its thread until it
/// runs. tokio itself leaves the second of two such tasks waiting now and then: in 15 of 490,000
/// rounds, with four processes on two cores.
pub(crate) const MOST_LATE: usize = 3;

/// Runs a test in which tasks block threads up to three times, and passes if one run does. tokio
/// may leave a task waiting: see [`MOST_LATE`].
#[track_caller]
fn one_of_three(run: impl Fn()) {
    for _ in 0..2 {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(&run)).is_ok() {
            return;
        }
    }
    run();
}

/// Runs `body` in a task of a runtime with this many threads, up to three times: see
/// [`one_of_three`].
#[track_caller]
pub(crate) fn on_threads<F>(threads: usize, body: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    one_of_three(|| {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { in_time(tokio::spawn(body())).await.unwrap() });
    });
}

/// Yields until `condition` is true, and panics after `PATIENCE`.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < PATIENCE,
            "the condition is still false after {PATIENCE:?}"
        );
        tokio::task::yield_now().await;
    }
}

/// Yields until nothing else has a share of the group.
pub(crate) async fn until_alone(mut g: Arc<G>) -> G {
    loop {
        match Arc::try_unwrap(g) {
            Ok(g) => return g,
            Err(shared) => g = shared,
        }
        tokio::task::yield_now().await;
    }
}

pub(crate) fn current_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

pub(crate) fn two_workers() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// The panic that `future` ends with.
pub(crate) async fn panic_of<F: Future>(future: F) -> Box<dyn Any + Send> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(_) => panic!("this did not panic"),
        Err(payload) => payload,
    }
}

pub(crate) fn panic_in<T>(f: impl FnOnce() -> T) -> Box<dyn Any + Send> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("this did not panic"),
        Err(payload) => payload,
    }
}

pub(crate) fn text(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().unwrap().to_string(),
    }
}

/// A number that many tasks count up.
#[derive(Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// What happened, in order.
#[derive(Clone)]
pub(crate) struct Log<T = &'static str>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Log<T> {
    pub(crate) fn new() -> Self {
        Log(Arc::default())
    }

    pub(crate) fn add(&self, entry: T) {
        self.0.lock().unwrap().push(entry);
    }

    pub(crate) fn get(&self) -> Vec<T> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A gate that is closed at first and lets through as many tasks as the test says.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate(Arc::new(Semaphore::new(0)))
    }

    pub(crate) fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 4);
    }

    pub(crate) fn let_one_through(&self) {
        self.0.add_permits(1);
    }

    pub(crate) async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

/// How many tasks are alive at once, and how many ever were.
#[derive(Clone, Default)]
pub(crate) struct Gauge {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

pub(crate) struct Alive(Gauge);

impl Gauge {
    pub(crate) fn enter(&self) -> Alive {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Alive(self.clone())
    }

    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts the polls and drops of the futures that it wraps.
#[derive(Clone, Default)]
pub(crate) struct Probe {
    made: Count,
    polled: Count,
    dropped: Count,
}

pub(crate) struct Probed<F> {
    future: Pin<Box<F>>,
    probe: Probe,
}

impl Probe {
    pub(crate) fn wrap<F: Future>(&self, future: F) -> Probed<F> {
        self.made.add();
        Probed {
            future: Box::pin(future),
            probe: self.clone(),
        }
    }

    /// The number of polls.
    pub(crate) fn polled(&self) -> usize {
        self.polled.get()
    }

    pub(crate) fn dropped(&self) -> usize {
        self.dropped.get()
    }

    pub(crate) fn made(&self) -> usize {
        self.made.get()
    }

    /// Asserts that every wrapped future has been dropped.
    #[track_caller]
    pub(crate) fn assert_all_dropped(&self) {
        assert_eq!(self.dropped(), self.made(), "not every future was dropped");
    }
}

impl<F: Future> Future for Probed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        self.probe.polled.add();
        self.future.as_mut().poll(cx)
    }
}

impl<F> Drop for Probed<F> {
    fn drop(&mut self) {
        self.probe.dropped.add();
    }
}

/// Numbers that look random, from a seed that a failing test has printed.
pub(crate) struct Random(u64);

impl Random {
    /// From `ERRGROUP_SEED`, or from a new seed.
    pub(crate) fn new() -> Random {
        let seed = match std::env::var("ERRGROUP_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => RandomState::new().build_hasher().finish(),
        };
        eprintln!("ERRGROUP_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A generator with its own state, for another task.
    pub(crate) fn fork(&mut self) -> Random {
        Random(self.next())
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Yields `times` times.
pub(crate) async fn yields(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

pub(crate) struct PanicsOnDrop(pub(crate) &'static str);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("{}", self.0);
    }
}
