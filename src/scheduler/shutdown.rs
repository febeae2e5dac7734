//! The state of a shutdown: see [`watcher`](super::watcher).

use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

/// The state of the shutdown.
pub(crate) struct Shutdown {
    /// Whether the scheduler has subscribed to the cancellation of its context.
    pub(super) subscribed: bool,
    /// Whether the context has a deadline for which no timer has been started yet.
    pub(super) needs_timer: bool,
    /// How long jobs may run after the context is done.
    pub(super) grace: Option<Duration>,
    /// When the context was done. `None` until the scheduler has noticed it.
    pub(super) ended: Option<Instant>,
    pub(super) watcher: Watcher,
}

pub(super) enum Watcher {
    None,
    /// Spawned, or woken to look again.
    Coming,
    Waiting(Waker),
}

impl Shutdown {
    pub(crate) fn new(has_deadline: bool) -> Shutdown {
        Shutdown {
            subscribed: false,
            needs_timer: has_deadline,
            grace: None,
            ended: None,
            watcher: Watcher::None,
        }
    }

    /// Returns whether the scheduler has noticed that its context is done.
    pub(super) fn was_asked(&self) -> bool {
        self.ended.is_some()
    }
}
