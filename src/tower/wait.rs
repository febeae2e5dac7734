//! What a handler that is pending waits for, besides its own work: the end of its context, and then
//! the end of its grace period.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use tokio::time::{Instant, Sleep};

use super::deadline::poll_timer;
use crate::context::{Context, DoneOwned, EndWatch};

pub(super) struct Wait {
    state: State,
}

enum State {
    /// The handler has not been pending yet.
    NotYet,
    /// The end of its context.
    ForEnd(EndWatch),
    /// The context was cancelled: the end of its grace period, or its deadline if that is earlier,
    /// or an abort. The listener in the layer's context is removed when this is dropped: the layer
    /// may live much longer than a request.
    ForGrace(Pin<Box<Sleep>>, Option<DoneOwned>),
}

impl Wait {
    pub(super) const fn new() -> Wait {
        Wait {
            state: State::NotYet,
        }
    }

    /// Returns `true` if the handler has been polled and was pending.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.state, State::NotYet)
    }

    /// Completes when the deadline of `ctx` has passed, or once `ctx` is done at the instant that
    /// `until` returns, or when `aborted` is done.
    pub(super) fn poll(
        &mut self,
        ctx: &Context,
        until: impl FnOnce() -> Instant,
        aborted: Option<&Context>,
        cx: &mut task::Context<'_>,
    ) -> Poll<()> {
        if let State::NotYet = self.state {
            // The grace period begins when the context is done, not when this task observes that.
            // So the context must record the instant.
            ctx.record_end_time();
            self.state = State::ForEnd(EndWatch::new());
        }
        if let State::ForEnd(watch) = &mut self.state {
            let error = ready!(watch.poll(ctx, cx));
            if error.is_deadline_exceeded() {
                return Poll::Ready(());
            }
            let timer = Box::pin(tokio::time::sleep_until(until()));
            self.state = State::ForGrace(timer, aborted.map(Context::done_owned));
        }
        if let State::ForGrace(timer, aborted) = &mut self.state {
            if let Some(aborted) = aborted {
                if Pin::new(aborted).poll(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            // The clock is read, too: a handler that is always ready wakes itself before any timer.
            if Instant::now() < timer.deadline() {
                ready!(poll_timer(timer, cx));
            }
        }
        Poll::Ready(())
    }

    /// Removes the listener, which would wake the connection when the context is cancelled.
    pub(super) fn stop(&mut self, ctx: &Context) {
        match &mut self.state {
            State::NotYet => {}
            State::ForEnd(watch) => watch.release(ctx),
            State::ForGrace(_, aborted) => *aborted = None,
        }
    }
}
