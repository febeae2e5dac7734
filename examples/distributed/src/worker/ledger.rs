//! Counts the items: each is added when it starts, and removed when its future is dropped.

use std::fmt;
use std::time::Instant;

use errgroup::Context;
use errgroup::tower::ClientGone;
use tokio::sync::watch;

use crate::proto::{Settled, Tally};

#[derive(Default)]
pub(super) struct Ledger {
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    tally: Tally,
    last_end: Option<Instant>,
    last_failure: Option<Instant>,
}

impl Ledger {
    /// For an item of `call`.
    pub(super) fn enter(&self, call: Context) -> Entry<'_> {
        self.state.send_modify(|state| state.tally.started += 1);
        Entry {
            ledger: self,
            call,
            end: None,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.state.borrow().tally
    }

    /// Waits until none runs.
    pub(super) async fn settled(&self) -> Settled {
        let mut changes = self.state.subscribe();
        let state = changes.wait_for(|state| state.tally.running() == 0).await;
        let state = state.expect("the ledger is there, and so is the sender");
        Settled {
            tally: Some(state.tally),
            nanos_since_last_end: state.last_end.map(nanos_since),
            nanos_since_last_failure: state.last_failure.map(nanos_since),
        }
    }
}

fn nanos_since(instant: Instant) -> u64 {
    u64::try_from(instant.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// An item that runs.
pub(super) struct Entry<'a> {
    ledger: &'a Ledger,
    call: Context,
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    Done,
    Failed,
}

impl Entry<'_> {
    pub(super) fn done(mut self) {
        self.end = Some(End::Done);
    }

    pub(super) fn failed(mut self) {
        self.end = Some(End::Failed);
    }

    /// The count for an item that did not finish. The call's context has the reason. If it is not
    /// done, only the fan-out has ended, so one of its items has failed.
    fn cut_off<'t>(&self, tally: &'t mut Tally) -> &'t mut u64 {
        match self.call.err() {
            None => &mut tally.cut_off_by_failure,
            Some(why) if why.is_deadline_exceeded() => &mut tally.cut_off_by_deadline,
            Some(why) if why.caused_by::<ClientGone>() => &mut tally.cut_off_by_client,
            Some(_) => &mut tally.cut_off_by_stop,
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.ledger.state.send_modify(|state| {
            let count = match self.end {
                Some(End::Done) => &mut state.tally.done,
                Some(End::Failed) => &mut state.tally.failed,
                None => self.cut_off(&mut state.tally),
            };
            *count += 1;
            let now = Instant::now();
            state.last_end = Some(now);
            if matches!(self.end, Some(End::Failed)) {
                state.last_failure = Some(now);
            }
        });
    }
}

impl Tally {
    /// How many were dropped before their end.
    #[must_use]
    pub fn cut_off(&self) -> u64 {
        self.cut_off_by_failure
            + self.cut_off_by_client
            + self.cut_off_by_deadline
            + self.cut_off_by_stop
    }

    /// How many are in no other count.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.started - self.done - self.failed - self.cut_off()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} started, {} done, {} failed, \
             {} cut off (failure {}, client {}, deadline {}, stop {}), {} running",
            self.started,
            self.done,
            self.failed,
            self.cut_off(),
            self.cut_off_by_failure,
            self.cut_off_by_client,
            self.cut_off_by_deadline,
            self.cut_off_by_stop,
            self.running(),
        )
    }
}
