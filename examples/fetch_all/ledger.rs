//! How many requests began, and how each of them ended. The client keeps one, and the server another.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) begun: usize,
    pub(crate) finished: usize,
    pub(crate) failed: usize,
    pub(crate) cut_off: usize,
}

impl Counts {
    pub(crate) fn in_flight(&self) -> usize {
        self.begun - self.finished - self.failed - self.cut_off
    }
}

#[derive(Clone, Default)]
pub(crate) struct Ledger {
    counts: watch::Sender<Counts>,
}

impl Ledger {
    pub(crate) fn begin(&self) -> Entry {
        self.counts.send_modify(|counts| counts.begun += 1);
        Entry {
            ledger: self.clone(),
            end: |counts| counts.cut_off += 1,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    /// The counts once `reached` holds of them, or as they are when `patience` has run out.
    pub(crate) async fn counts_when(
        &self,
        reached: impl FnMut(&Counts) -> bool,
        patience: Duration,
    ) -> Counts {
        let mut counts = self.watch();
        let _ = timeout(patience, counts.wait_for(reached)).await;
        *counts.borrow()
    }
}

/// A request that has begun. Dropping it records how it ended: cut off, unless it was closed.
pub(crate) struct Entry {
    ledger: Ledger,
    end: fn(&mut Counts),
}

impl Entry {
    pub(crate) fn close<T, E>(mut self, outcome: &Result<T, E>) {
        self.end = match outcome {
            Ok(_) => |counts| counts.finished += 1,
            Err(_) => |counts| counts.failed += 1,
        };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.counts.send_modify(self.end);
    }
}
