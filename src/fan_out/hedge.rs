//! Asking again where an answer is slow.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker, ready};
use std::time::Duration;

use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::builder::FanOut;
use super::call_site::CallSite;
use crate::context::Context;
use crate::context::ContextError;
use crate::panic;
use crate::scheduler::error::Errors;
use crate::sync::{Arc, Mutex};

/// Calls `f`, and again each time that `delay` passes without an answer, up to `max` times in all; gives the first success, and
/// stops the others. When it returns, they are gone.
///
/// `f` is handed the hedge's own context, a child of `ctx`, and the number of the attempt, from 0. An attempt that fails is no
/// answer; when every attempt so far has failed, the next begins at once.
///
/// It cuts the tail of the latencies, for a few more requests: with the 95th percentile as `delay`, one call in twenty is
/// made twice. (J. Dean and L. A. Barroso, *The Tail at Scale*, Communications of the ACM 56(2), 2013.) What it calls must
/// be safe to be done twice.
///
/// The future does not borrow `ctx`, and starts nothing until it is polled.
///
/// # Errors
///
/// Every failure, in order of completion, when `max` attempts have failed. If `ctx` ends first, what was in flight is among them,
/// with the [`ContextError`].
///
/// # Panics
///
/// If `max` is 0. When polled outside a tokio runtime with a timer. The first panic in `f`, in one
/// of its futures, or in the destructor of one of these is resumed with its payload when everything
/// else is gone, also after an answer.
///
/// # Cancel safety
///
/// Dropping the future ends its context and drops what is in flight; a panic of a destructor is
/// then discarded.
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
///     // The first one hangs.
///     let ms = if attempt == 0 { 1_000 } else { 5 };
///     tokio::time::sleep(Duration::from_millis(ms)).await;
///     Ok::<_, String>(attempt)
/// });
/// assert_eq!(answer.await.unwrap(), 1);
/// # }
/// ```
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
    E: From<ContextError> + Display + Send + 'static,
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
    FanOut::new(ctx, attempts, attempt, CallSite::caller())
        .named("attempt")
        .first_ok()
}

/// What has become of the attempts so far.
struct Attempted {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    in_flight: usize,
    /// Whether one has succeeded, so that there is no further one.
    answered: bool,
    /// Who is to be woken when the last of them has ended.
    waker: Option<Waker>,
}

enum Status {
    Answered,
    AllFailed,
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
        // Dropped after the future.
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
        // Noted before it counts as ended, or the next attempt might begin in between.
        this.guard.attempted.state.lock().answered |= answer.is_ok();
        Poll::Ready(answer)
    }
}

/// The numbers of the attempts, each at its time.
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
            Status::AllFailed => {}
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

    /// Looks; if an attempt is in flight, the task is woken when none is.
    fn poll(&self, cx: &mut task::Context<'_>) -> Status {
        let waker = cx.waker().clone();
        let mut state = self.state.lock();
        let (status, unneeded) = if state.answered {
            (Status::Answered, Some(waker))
        } else if state.in_flight == 0 {
            (Status::AllFailed, Some(waker))
        } else {
            (Status::InFlight, state.waker.replace(waker))
        };
        drop(state);
        drop(unneeded);
        status
    }
}
