//! Decides which tasks of a group get a worker of their own at once.
//!
//! A worker that is spawned with its job costs what `tokio::spawn` costs, and starts as soon as any
//! thread is idle. For the few tasks of a small group that is the cheapest way. A loop that starts
//! thousands is better served by workers that take one job after another from the queue. So the
//! first tasks of a burst get a worker each, and the others are queued.

use std::time::Duration;

use crate::sync::{self, PollClock};

/// How long after a burst is full the next one may begin. A loop that goes on
/// starting tasks starts thousands in this time, so the dearer workers of a new burst are lost
/// among them.
const PAUSE: Duration = Duration::from_millis(2);

/// How many tasks start after that before the clock is read again, unless one starts alone. To read
/// it costs a tenth of a short task.
const BETWEEN_LOOKS: usize = 8;

/// Tasks that are started one right behind the other.
pub(crate) struct Burst {
    /// How many of them have a worker of their own.
    count: usize,
    /// How many tasks have started since the burst was full.
    others: usize,
    /// Started when the burst became full. A small group never reads a clock.
    full: Option<PollClock>,
    /// Whether the last of these workers may still be in the LIFO slot of its thread, where no
    /// other thread finds it.
    may_be_in_slot: bool,
}

impl Burst {
    pub(crate) const fn new() -> Burst {
        Burst {
            count: 0,
            others: 0,
            full: None,
            may_be_in_slot: false,
        }
    }

    /// Counts a task that starts now, and returns whether it gets a worker of its own. `is_alone`
    /// says that no other task of the group runs.
    pub(crate) fn takes_next(&mut self, is_alone: bool) -> bool {
        if let Some(full) = &self.full {
            self.others += 1;
            let looks = is_alone || self.others % BETWEEN_LOOKS == 0;
            if !looks || full.elapsed() < PAUSE {
                return false;
            }
            self.others = 0;
            self.count = 0;
            self.full = None;
        }
        self.count += 1;
        if self.count == sync::MOST_IN_BURST {
            self.full = Some(PollClock::start());
        }
        self.may_be_in_slot = true;
        true
    }

    /// Returns whether the next task may be queued.
    pub(crate) fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Clears the flag and returns it. Called when a task is queued: it may wait for the permit of
    /// the last of these workers, which may be in the LIFO slot of this thread. If it is in the
    /// slot of another thread, it waits there until that thread yields, as with `tokio::spawn`.
    pub(crate) fn take_may_be_in_slot(&mut self) -> bool {
        std::mem::take(&mut self.may_be_in_slot)
    }
}
