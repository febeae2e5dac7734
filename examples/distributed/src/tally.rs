//! What has become of the calls of a service. For the demonstration only.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use errgroup::Context;

use crate::proto::Counts;

#[derive(Default)]
pub(crate) struct Tally(Mutex<Counts>);

/// A call that runs, and how it is counted when it is dropped.
pub(crate) struct Running<'a> {
    tally: &'a Tally,
    ctx: &'a Context,
    pub(crate) end: fn(&Context, &mut Counts),
}

impl Tally {
    pub(crate) fn begin<'a>(&'a self, ctx: &'a Context) -> Running<'a> {
        self.change(|counts| counts.running += 1);
        Running {
            tally: self,
            ctx,
            end: |ctx, counts| {
                let error = ctx.err();
                counts.cancelled += 1;
                counts.timed_out += u64::from(error.is_some_and(|it| it.is_deadline_exceeded()));
            },
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Counts)) -> Counts {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counts);
        *counts
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.tally.change(|counts| {
            counts.running -= 1;
            counts.ended_at = now();
            (self.end)(self.ctx, counts);
        });
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}
