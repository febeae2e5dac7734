//! What has become of the handlers that have not returned, for the report of a shutdown.

use std::collections::VecDeque;
use std::panic::Location;
use std::time::Duration;

use crate::group::drain::{self, DrainedError, DrainedTask};
use crate::scheduler::error::Label;
use crate::tower::request_line::RequestLine;

/// How many aborts from before the shutdown are kept, and how many panics.
const MOST_KEPT: usize = 1_024;

/// Returns the entry of a handler in the report. Its site is that of the layer.
pub(super) fn entry(
    line: &RequestLine,
    elapsed: Duration,
    site: &'static Location<'static>,
) -> DrainedTask {
    let name = Some(line.name().into());
    DrainedTask::of_handler(Label { name, site }, elapsed)
}

/// How a handler has ended.
pub(super) enum Ended {
    /// It has returned a response or an error.
    Returned,
    Aborted(DrainedTask),
    /// It has panicked, and no response future could resume the panic.
    Panicked(DrainedError),
    /// It was dropped by the server, or its panic was resumed in the server.
    Otherwise,
}

/// An entry that gave its place to a later one. It is dropped without the lock.
#[expect(dead_code, reason = "it is only dropped")]
pub(super) enum Evicted {
    Abort(DrainedTask),
    Panic(DrainedError),
}

/// How far a shutdown has come, with the number of handlers that were running then.
#[derive(Clone, Copy, Default)]
enum Stage {
    #[default]
    Open,
    /// None may begin any more.
    Closed { running: usize },
    /// Their contexts are done. `finished` have returned before that.
    Cancelled { running: usize, finished: usize },
}

/// The counts from which the report is made.
#[derive(Default)]
pub(super) struct Tally {
    stage: Stage,
    /// How many of the handlers that were running at the last stage have ended in another way than
    /// by returning.
    not_returned: usize,
    /// How many have been dropped by the server since the close, which is no abort.
    otherwise: usize,
    /// The last aborts: at most `MOST_KEPT` until the close, and all since then.
    aborted: VecDeque<DrainedTask>,
    /// The last panics, in the same manner.
    panicked: VecDeque<DrainedError>,
    omitted: usize,
}

impl Tally {
    pub(super) fn close(&mut self, running: usize) {
        self.stage = Stage::Closed { running };
    }

    /// Notes that the contexts of all handlers are about to be cancelled.
    pub(super) fn cancel(&mut self, now_running: usize) {
        if let Stage::Closed { running } = self.stage {
            self.stage = Stage::Cancelled {
                running: now_running,
                finished: running.saturating_sub(now_running + self.not_returned),
            };
            self.not_returned = 0;
        }
    }

    /// Records a handler that has ended in another way than by returning. Returns an older entry
    /// that is not kept any more, for the caller to drop without the lock.
    pub(super) fn record(&mut self, ended: Ended) -> Option<Evicted> {
        let is_closed = !matches!(self.stage, Stage::Open);
        self.not_returned += usize::from(is_closed);
        let evicted = match ended {
            Ended::Aborted(aborted) => {
                self.aborted.push_back(aborted);
                let is_full = self.aborted.len() > MOST_KEPT && !is_closed;
                is_full.then(|| self.aborted.pop_front().map(Evicted::Abort))
            }
            Ended::Panicked(panicked) => {
                self.panicked.push_back(panicked);
                let is_full = self.panicked.len() > MOST_KEPT && !is_closed;
                is_full.then(|| self.panicked.pop_front().map(Evicted::Panic))
            }
            Ended::Otherwise => {
                self.otherwise += usize::from(is_closed);
                None
            }
            Ended::Returned => None,
        }
        .flatten();
        self.omitted += usize::from(evicted.is_some());
        evicted
    }

    /// Returns the entries of the report. `left_running` handlers have not ended.
    pub(super) fn entries(&self, left_running: usize) -> drain::Tally {
        let returned = |running: usize| running.saturating_sub(self.not_returned + left_running);
        let (finished, stopped) = match self.stage {
            Stage::Open => (0, 0),
            Stage::Closed { running } => (returned(running), 0),
            Stage::Cancelled { running, finished } => (finished, returned(running)),
        };
        drain::Tally {
            finished,
            stopped: stopped + self.otherwise,
            aborted: self.aborted.iter().cloned().collect(),
            errors: self.panicked.iter().cloned().collect(),
            omitted: self.omitted,
            left_running,
            ..drain::Tally::default()
        }
    }
}
