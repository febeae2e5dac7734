//! What there is to do for a request, in three ways of looking at a context.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use errgroup::{Context, ContextError};
use tokio::time::sleep;

/// How long a step takes: as long as it takes, at the most, to see that the context has ended.
const STEP: Duration = Duration::from_millis(50);

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Site {
    /// How long each piece of work takes.
    pub(crate) takes: Duration,
    alive: Arc<AtomicUsize>,
}

impl Site {
    pub(crate) fn new(takes: Duration) -> Site {
        Site {
            takes,
            alive: Arc::default(),
        }
    }

    /// How many pieces of work are alive, those that wait to be started too.
    pub(crate) fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// A piece of work is alive until this is dropped.
    pub(crate) fn begin(&self) -> Piece {
        self.alive.fetch_add(1, Ordering::Relaxed);
        Piece(Arc::clone(&self.alive))
    }
}

pub(crate) struct Piece(Arc<AtomicUsize>);

impl Drop for Piece {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One long await, which may be dropped: a call to another service, say.
pub(crate) async fn query(ctx: &Context, takes: Duration) -> Result<(), ContextError> {
    ctx.run(sleep(takes)).await
}

/// Many steps, none of which may be broken off: it asks before each.
pub(crate) async fn walk(ctx: &Context, takes: Duration) -> Result<(), ContextError> {
    for _ in 0..steps(takes) {
        ctx.check()?;
        sleep(STEP).await;
    }
    Ok(())
}

/// The same on a thread of the blocking pool, which cannot be aborted.
pub(crate) fn compute(ctx: &Context, takes: Duration) -> Result<(), ContextError> {
    for _ in 0..steps(takes) {
        ctx.check()?;
        thread::sleep(STEP);
    }
    Ok(())
}

fn steps(takes: Duration) -> u128 {
    takes.as_millis() / STEP.as_millis()
}
