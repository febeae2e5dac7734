//! The wait for the end of a fan-out that blocks.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use super::pool::{Pool, WaitFor};
use crate::context::{Context, DoneOwned};
use crate::panic::Payload;
use crate::sync::Arc;

/// Watches the context and the pool for the task that waits for the fan-out.
pub(crate) struct PoolWait {
    pool: Arc<Pool>,
    stage: Stage,
}

enum Stage {
    /// Calls may begin.
    Live(DoneOwned),
    /// The context is done, and no further call begins.
    Stopping,
    /// The items whose calls have not begun were aborted.
    Stopped,
}

/// What has happened.
pub(crate) enum PoolEvent {
    /// A destructor has panicked on the pool.
    Panicked(Payload),
    /// The context is done, no call is running, and none will. Is returned once.
    NoneBegins,
    /// The workers have been joined, and nothing of the fan-out is on the pool.
    Idle,
}

impl PoolWait {
    pub(crate) fn new(pool: Arc<Pool>, ctx: &Context) -> PoolWait {
        PoolWait {
            pool,
            stage: Stage::Live(ctx.done_owned()),
        }
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.pool.has_panic()
    }

    /// Waits for the next event. `is_joined` says that all workers have been joined.
    pub(crate) fn poll(&mut self, is_joined: bool, cx: &mut task::Context<'_>) -> Poll<PoolEvent> {
        if let Stage::Live(done) = &mut self.stage {
            if !is_joined && Pin::new(done).poll(cx).is_ready() {
                self.stage = Stage::Stopping;
            }
        }
        let wait_for = match self.stage {
            _ if is_joined => WaitFor::Idle,
            Stage::Stopping => WaitFor::NoneBegun,
            Stage::Live(_) | Stage::Stopped => WaitFor::Panic,
        };
        ready!(self.pool.poll(wait_for, cx));
        Poll::Ready(match self.pool.take_panic() {
            Some(payload) => PoolEvent::Panicked(payload),
            None if is_joined => PoolEvent::Idle,
            None => {
                self.stage = Stage::Stopped;
                PoolEvent::NoneBegins
            }
        })
    }
}
