//! What a handler that is pending waits for, besides its own work: the end of its context, and then
//! the end of its grace period.

use std::pin::Pin;
use std::task::{self, Poll, ready};

use tokio::time::{Instant, Sleep};

use super::deadline::poll_timer;
use crate::context::{Context, EndWatch};

pub(super) struct Wait {
    state: State,
}

enum State {
    /// The handler has not been pending yet.
    NotYet,
    /// The end of its context.
    ForEnd(EndWatch),
    /// The context was cancelled: the end of its grace period, or its deadline if that is earlier,
    /// or an abort.
    ForGrace(Pin<Box<Sleep>>, EndWatch),
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
            self.state = State::ForGrace(timer, EndWatch::new());
        }
        if let State::ForGrace(timer, watch) = &mut self.state {
            if aborted.is_some_and(|aborted| watch.poll(aborted, cx).is_ready()) {
                return Poll::Ready(());
            }
            // The clock is read, too: a handler that is always ready wakes itself before any timer.
            if Instant::now() < timer.deadline() {
                ready!(poll_timer(timer, cx));
            }
        }
        Poll::Ready(())
    }

    /// Removes the listener, which would wake the connection when the context is cancelled.
    /// `aborted` is that of the last poll.
    pub(super) fn stop(&mut self, ctx: &Context, aborted: Option<&Context>) {
        match (&mut self.state, aborted) {
            (State::ForEnd(watch), _) => watch.release(ctx),
            (State::ForGrace(_, watch), Some(aborted)) => watch.release(aborted),
            (State::NotYet, _) | (State::ForGrace(..), None) => {}
        }
    }
}
