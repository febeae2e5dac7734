//! What has become of the calls of a service. For the demonstration only.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::proto::Counts;

#[derive(Default)]
pub(crate) struct Tally(Mutex<Counts>);

/// A call that runs, and how it is counted when it is dropped.
pub(crate) struct Running<'a>(&'a Tally, pub(crate) fn(&mut Counts));

impl Tally {
    pub(crate) fn begin(&self) -> Running<'_> {
        self.change(|counts| counts.running += 1);
        Running(self, |counts| counts.cancelled += 1)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Counts)) -> Counts {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counts);
        *counts
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.change(|counts| {
            counts.running -= 1;
            counts.ended_at = now();
            (self.1)(counts);
        });
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}
