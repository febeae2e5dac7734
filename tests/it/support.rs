//! What the modules share: texts for the state of a context, races, and timeouts.

use std::error::Error;
use std::future::Future;
use std::panic;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{self, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use errgroup::{Context, ContextError, DoneOwned};
use tokio::runtime::Handle;
use tokio_test::task::Spawn;

/// The text for a context that is not done.
pub(crate) const GOING_ON: &str = "going on";
/// The cause of a context whose guard was merely dropped.
pub(crate) const GUARD_DROPPED: &str = "the context's CancelGuard was dropped";

/// An error of the user.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0} is down")]
pub(crate) struct Down(pub(crate) &'static str);

/// The state of a context as text: `going on`, `context cancelled`, or for example `context
/// deadline exceeded: too slow`.
///
/// It calls all four queries, and they must agree.
pub(crate) fn state(ctx: &Context) -> String {
    let done = ctx.is_done();
    let (err, check, cause) = (ctx.err(), ctx.check(), ctx.cause());
    if !done {
        // It may have become done since. A later query may know more, but never less.
        return err.map_or_else(|| GOING_ON.to_owned(), |error| chain(&error));
    }
    let error = err.expect("`err` knows an end that `is_done` has seen");
    let checked = check.expect_err("`check` knows an end that `is_done` has seen");
    assert_eq!(chain(&error), chain(&checked));
    // A context that is done always has a cause: without one of its own, the error itself.
    let own = error.cause().map_or(error.to_string(), ToString::to_string);
    assert_eq!(cause.map(|cause| cause.to_string()), Some(own));
    chain(&error)
}

/// An error and its sources, separated by colons.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Computes for longer than the time that a worker has for one poll.
pub(crate) fn compute() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(300) {
        std::hint::spin_loop();
    }
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A future that waits until `ctx` is done. It was polled once and was pending.
#[track_caller]
pub(crate) fn waiting(ctx: &Context) -> Spawn<DoneOwned> {
    let mut done = tokio_test::task::spawn(ctx.done_owned());
    assert!(done.poll().is_pending());
    done
}

/// Returns whether `done` was woken. It must be ready exactly if it was.
#[track_caller]
pub(crate) fn has_resolved(done: &mut Spawn<DoneOwned>) -> bool {
    let (woken, ready) = (done.is_woken(), done.poll().is_ready());
    assert_eq!(woken, ready, "woken and ready go together");
    ready
}

/// Polls `future` once with `waker`.
///
/// This does not use up the cooperative budget of the calling task. Without budget, a future wakes
/// its waker at once and is pending, whatever it waits for.
pub(crate) fn poll_with<F>(future: &mut F, waker: &Waker) -> Poll<F::Output>
where
    F: Future + Unpin,
{
    pin!(tokio::task::unconstrained(future)).poll(&mut task::Context::from_waker(waker))
}

/// A waker that calls `f`, on the thread that wakes.
pub(crate) fn waker(f: impl Fn() + Send + Sync + 'static) -> Waker {
    struct OnWake<F>(F);

    impl<F: Fn() + Send + Sync + 'static> Wake for OnWake<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }

    Waker::from(Arc::new(OnWake(f)))
}

/// Calls a closure when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Counts how often it is dropped.
#[derive(Clone, Default)]
pub(crate) struct Drops(Arc<AtomicUsize>);

impl Drops {
    /// A value that adds one to the count when it is dropped.
    pub(crate) fn counted(&self) -> impl Send + Sync + 'static + use<> {
        let count = self.0.clone();
        OnDrop(move || {
            count.fetch_add(1, Ordering::SeqCst);
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// How long a test waits for an event before it fails. It is long because a machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often a race is run.
pub(crate) const ROUNDS: usize = 3_000;

/// Runs `a` and `b` at the same moment, on two threads.
///
/// The number of the round decides which of the two is delayed, and by how many steps. So, over
/// many rounds, each meets the other at each of its stages.
pub(crate) fn race<A, B: Send>(
    round: usize,
    a: impl FnOnce() -> A,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    let arrived = AtomicUsize::new(0);
    let start = |lead: usize| {
        arrived.fetch_add(1, Ordering::SeqCst);
        while arrived.load(Ordering::SeqCst) < 2 {
            thread::yield_now();
        }
        (0..lead).for_each(|_| std::hint::spin_loop());
    };
    let (lead, of_a) = (round / 2 % 64, round % 2 == 0);
    let (wait_a, wait_b) = if of_a { (0, lead) } else { (lead, 0) };
    thread::scope(|scope| {
        let b = scope.spawn(|| {
            start(wait_b);
            b()
        });
        start(wait_a);
        let a = a();
        (
            a,
            b.join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload)),
        )
    })
}

/// Runs `f` on a thread, and fails if it does not return. A lock that is taken twice would
/// otherwise hang the whole run.
pub(crate) fn returns<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let _ = sender.send(f());
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("the function did not return in {PATIENCE:?}"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(payload) => panic::resume_unwind(payload),
            Ok(()) => unreachable!("it sends before it ends"),
        },
    }
}

/// Waits until no task is left in this runtime.
pub(crate) async fn tasks_end() {
    let began = Instant::now();
    while Handle::current().metrics().num_alive_tasks() > 0 {
        assert!(began.elapsed() < PATIENCE, "a task is still alive");
        tokio::task::yield_now().await;
    }
}

/// The error of a context that must be done.
#[track_caller]
pub(crate) fn err(ctx: &Context) -> ContextError {
    ctx.err().expect("the context has ended")
}
