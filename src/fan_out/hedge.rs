//! Hedging: calls a function again if the first call is slow.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker, ready};
use std::time::Duration;

use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::builder::FanOut;
use super::call_site::CallSite;
use super::items::ItemsKind;
use crate::context::Context;
#[cfg(doc)]
use crate::context::ContextError;
use crate::panic;
use crate::scheduler::error::Errors;
use crate::scheduler::group_error::GroupError;
use crate::sync::{Arc, Mutex};

/// Calls `f`, calls it again each time `delay` passes without a success, and returns the first
/// success.
///
/// There are at most `max` attempts in all. The first success cancels the other attempts; when
/// `hedge` returns, they have been dropped.
///
/// `f` gets the hedge's own context, a child of `ctx`, and the number of the attempt, counted from
/// 0. When every attempt so far has failed, the next one starts at once and does not wait for
/// `delay`.
///
/// Hedging cuts the tail of the latencies at the cost of a few more requests. With the 95th
/// percentile as `delay`, one call in twenty is made twice. (J. Dean and L. A. Barroso, *The Tail
/// at Scale*, Communications of the ACM 56(2), 2013.) The call must be safe to make twice.
///
/// The future does not borrow `ctx`, and starts nothing until it is polled.
///
/// # Errors
///
/// Returns every failure in order of completion when `max` attempts have failed. If `ctx` is done
/// first, the attempts that were in flight are among the failures, with its [`ContextError`].
///
/// # Panics
///
/// Panics if `max` is 0, and when it is polled outside a tokio runtime with a timer.
///
/// Resumes the first panic in `f`, in one of its futures, or in the destructor of one of these with
/// its payload, when everything else has been dropped. It does so even if an attempt has succeeded.
///
/// # Cancel safety
///
/// Dropping the future cancels its context and drops the attempts in flight. A panic of a
/// destructor is then discarded.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, hedge};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let ctx = Context::background();
/// let answer = hedge(&ctx, Duration::from_millis(10), 3, |_ctx, attempt| async move {
///     // The first attempt hangs.
///     let ms = if attempt == 0 { 1_000 } else { 5 };
///     tokio::time::sleep(Duration::from_millis(ms)).await;
///     Ok::<_, String>(attempt)
/// });
/// assert_eq!(answer.await.unwrap(), 1);
/// # }
/// ```
#[doc(alias("happy_eyeballs", "staggered_race", "backup_request"))]
#[track_caller]
pub fn hedge<F, Fut, T, E>(
    ctx: &Context,
    delay: Duration,
    max: usize,
    mut f: F,
) -> impl Future<Output = Result<T, Errors<E>>> + Send + use<F, Fut, T, E>
where
    F: FnMut(Context, usize) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    assert!(
        max > 0,
        "a hedge with a max of 0 would never call the function: pass at least 1"
    );
    let attempted = Arc::new(Attempted::new());
    let attempts = Attempts {
        delay,
        next: 0,
        max,
        attempted: attempted.clone(),
        timer: None,
    };
    let attempt = move |ctx, attempt| Attempt {
        guard: AttemptGuard::new(&attempted),
        future: f(ctx, attempt),
    };
    let attempts = (attempts, ItemsKind::Stream);
    FanOut::new(ctx, attempts, attempt, CallSite::caller())
        .named("attempt")
        .first_ok()
}

/// What the attempts share with the stream of their numbers.
struct Attempted {
    state: Mutex<State>,
}

/// The results of the attempts so far.
#[derive(Default)]
struct State {
    in_flight: usize,
    /// Whether an attempt has succeeded. Then no further attempt starts.
    answered: bool,
    /// The waker of the stream. It is woken when no attempt is in flight any more.
    waker: Option<Waker>,
}

/// The state of the attempts, as the stream sees it.
enum Status {
    Answered,
    /// No attempt is in flight: none has started, or all have failed.
    NoneInFlight,
    InFlight,
}

/// Counts an attempt as in flight until it is dropped.
struct AttemptGuard {
    attempted: Arc<Attempted>,
}

impl AttemptGuard {
    fn new(attempted: &Arc<Attempted>) -> AttemptGuard {
        attempted.state.lock().in_flight += 1;
        AttemptGuard {
            attempted: attempted.clone(),
        }
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        let mut state = self.attempted.state.lock();
        state.in_flight -= 1;
        let waker = if state.in_flight == 0 {
            state.waker.take()
        } else {
            None
        };
        drop(state);
        waker.into_iter().for_each(panic::wake);
    }
}

pin_project! {
    struct Attempt<Fut> {
        #[pin]
        future: Fut,
        // Dropped after the future, so that the attempt is in flight until its future has been
        // dropped.
        guard: AttemptGuard,
    }
}

impl<Fut, T, E> Future for Attempt<Fut>
where
    Fut: Future<Output = Result<T, E>>,
{
    type Output = Fut::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Fut::Output> {
        let this = self.project();
        let answer = ready!(this.future.poll(cx));
        // Set before the guard is dropped: otherwise the next attempt might start in between.
        this.guard.attempted.state.lock().answered |= answer.is_ok();
        Poll::Ready(answer)
    }
}

/// The stream of the attempts' numbers. Each is yielded when its attempt is to start.
struct Attempts {
    delay: Duration,
    next: usize,
    max: usize,
    attempted: Arc<Attempted>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stream for Attempts {
    type Item = usize;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<usize>> {
        if self.next == self.max {
            return Poll::Ready(None);
        }
        match self.attempted.poll(cx) {
            Status::Answered => return Poll::Ready(None),
            Status::InFlight => {
                let delay = self.delay;
                let timer = self
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(delay)));
                ready!(timer.as_mut().poll(cx));
            }
            Status::NoneInFlight => {}
        }
        self.timer = None;
        self.next += 1;
        Poll::Ready(Some(self.next - 1))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.max - self.next;
        (left, Some(left))
    }
}

impl Attempted {
    fn new() -> Attempted {
        Attempted {
            state: Mutex::new(State::default()),
        }
    }

    /// Returns the status. If an attempt is in flight, registers the waker for the time when none
    /// is.
    fn poll(&self, cx: &mut task::Context<'_>) -> Status {
        let waker = cx.waker().clone();
        let mut state = self.state.lock();
        let (status, unneeded) = if state.answered {
            (Status::Answered, Some(waker))
        } else if state.in_flight == 0 {
            (Status::NoneInFlight, Some(waker))
        } else {
            (Status::InFlight, state.waker.replace(waker))
        };
        drop(state);
        drop(unneeded);
        status
    }
}
