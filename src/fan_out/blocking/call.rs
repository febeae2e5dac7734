//! The future of an item whose function runs on the blocking pool.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker};

use super::pool::{Begun, Out, Pool};
use crate::context::Context;
use crate::panic::{self, Payload};
use crate::scheduler::parcel;
use crate::span::{self, Span};
use crate::sync::{Arc, Handle, Mutex};

/// The future of one call of the function of a [`fan_out_blocking`](crate::fan_out_blocking()). It
/// gives the call to the blocking pool at its first poll.
///
/// If the context is done before the function has begun, the future stays pending: the fan-out
/// drops it.
pub struct BlockingCall<I: Send + 'static, F: Send + Sync + 'static, T, E> {
    stage: Stage<I, F, T, E>,
}

enum Stage<I: Send + 'static, F: Send + Sync + 'static, T, E> {
    Unstarted(Work<I, F>, Arc<Pool>),
    OnPool(Arc<Reply<T, E>>),
    /// It has returned, or never will.
    Over,
}

/// The item, and the function that is called with it.
struct Work<I, F> {
    ctx: Context,
    item: I,
    f: Arc<F>,
}

/// The reply of the thread to the future.
struct Reply<T, E>(Mutex<State<T, E>>);

enum State<T, E> {
    Waiting(Option<Waker>),
    Ended(Result<Result<T, E>, Payload>, Begun),
    /// The future was dropped, or has the result.
    Over,
}

impl<I: Send + 'static, F: Send + Sync + 'static, T, E> BlockingCall<I, F, T, E> {
    pub(super) fn new(ctx: Context, item: I, f: Arc<F>, pool: &Arc<Pool>) -> Self {
        BlockingCall {
            stage: Stage::Unstarted(Work { ctx, item, f }, pool.clone()),
        }
    }
}

// Nothing is pinned.
impl<I: Send + 'static, F: Send + Sync + 'static, T, E> Unpin for BlockingCall<I, F, T, E> {}

impl<I, F, T, E> Future for BlockingCall<I, F, T, E>
where
    I: Send + 'static,
    F: Fn(Context, I) -> Result<T, E> + Send + Sync + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Result<T, E>> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Unstarted(work, pool) => {
                let reply = Arc::new(Reply(Mutex::new(State::Waiting(Some(cx.waker().clone())))));
                self.stage = Stage::OnPool(reply.clone());
                Job::new(work, reply, &pool).hand_over();
                Poll::Pending
            }
            Stage::OnPool(reply) => match reply.poll(cx) {
                Poll::Ready(Ok(result)) => Poll::Ready(result),
                Poll::Ready(Err(payload)) => panic::resume(payload),
                Poll::Pending => {
                    self.stage = Stage::OnPool(reply);
                    Poll::Pending
                }
            },
            Stage::Over => Poll::Pending,
        }
    }
}

impl<I: Send + 'static, F: Send + Sync + 'static, T, E> Drop for BlockingCall<I, F, T, E> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Unstarted(work, pool) => pool.drop_there(work),
            Stage::OnPool(reply) => panic::discard(reply.end()),
            Stage::Over => {}
        }
    }
}

impl<I: Send + 'static, F: Send + Sync + 'static, T, E> fmt::Debug for BlockingCall<I, F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingCall").finish_non_exhaustive()
    }
}

impl<T, E> Reply<T, E> {
    fn poll(&self, cx: &mut task::Context<'_>) -> Poll<Result<Result<T, E>, Payload>> {
        let mut new = Some(cx.waker().clone());
        let mut state = self.0.lock();
        let ended = match &mut *state {
            State::Waiting(waker) => {
                std::mem::swap(waker, &mut new);
                None
            }
            _ => Some(std::mem::replace(&mut *state, State::Over)),
        };
        drop(state);
        panic::discard(new);
        match ended {
            Some(State::Ended(result, _begun)) => Poll::Ready(result),
            _ => Poll::Pending,
        }
    }

    /// Notes that the future is dropped. Returns a result that it has not taken.
    fn end(&self) -> State<T, E> {
        std::mem::replace(&mut *self.0.lock(), State::Over)
    }

    /// Hands the result to the future. Drops the result if there is no future any more: the fan-out
    /// was dropped, and a panic is discarded with it.
    fn send(&self, result: Result<Result<T, E>, Payload>, begun: Begun) {
        let mut state = self.0.lock();
        let ended = State::Ended(result, begun);
        let rest = match &mut *state {
            State::Waiting(_) => std::mem::replace(&mut *state, ended),
            _ => ended,
        };
        drop(state);
        match rest {
            State::Waiting(waker) => waker.into_iter().for_each(panic::wake),
            rest => panic::discard(rest),
        }
    }
}

/// A call on its way to the pool. If it is dropped without being run, the function is not called.
struct Job<I, F, T, E> {
    /// `None` when a thread has taken it, or it has been dropped.
    work: Option<Work<I, F>>,
    reply: Arc<Reply<T, E>>,
    /// The span of the item.
    span: Span,
    // Dropped last: then this thread runs no more user code of the fan-out.
    out: Out,
}

impl<I, F, T, E> Job<I, F, T, E> {
    fn new(work: Work<I, F>, reply: Arc<Reply<T, E>>, pool: &Arc<Pool>) -> Self {
        Job {
            work: Some(work),
            reply,
            span: Span::current(),
            out: Out::new(pool),
        }
    }
}

impl<I, F, T, E> Job<I, F, T, E>
where
    I: Send + 'static,
    F: Fn(Context, I) -> Result<T, E> + Send + Sync + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    fn hand_over(self) {
        let passed = match Handle::try_current() {
            Ok(runtime) => {
                let (passed, refused) = parcel::hand_over(&runtime, self, Job::run);
                // The runtime has shut down, so there is no pool to drop it on.
                drop(refused);
                passed
            }
            Err(_) => Ok(()),
        };
        if let Err(payload) = passed {
            panic::resume(payload);
        }
    }

    /// Calls the function, unless the context is done.
    fn run(mut self) {
        // Counted before the look at the context: so when the context is done and none has begun,
        // none will.
        let begun = Begun::new(self.out.pool());
        let Some(Work { ctx, item, f }) = self.work.take_if(|work| !work.ctx.is_done()) else {
            return;
        };
        let entered = span::enter_caller(&self.span);
        let ended = panic::catch(|| f(ctx, item));
        // It may be the last one, whose destructor runs here.
        let dropped = panic::catch(|| drop(f));
        drop(entered);
        self.reply.send(panic::first(ended, dropped), begun);
    }
}

impl<I, F, T, E> Drop for Job<I, F, T, E> {
    fn drop(&mut self) {
        if let Some(Work { ctx, item, f }) = self.work.take() {
            let _entered = span::enter_caller(&self.span);
            self.out.pool().drop_here(item);
            self.out.pool().drop_here(f);
            drop(ctx);
        }
    }
}
