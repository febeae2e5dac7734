//! The report on the handlers that a shutdown waited for.

use std::fmt;
use std::time::Duration;

use http::Method;

/// The report of [`Handlers::wait`](super::Handlers::wait).
#[derive(Debug, Clone, Default)]
pub struct Drained {
    finished: usize,
    aborted: Vec<Aborted>,
    panicked: usize,
}

impl Drained {
    /// Returns the number of handlers that returned while `wait` waited.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// Returns the handlers that were aborted while `wait` waited, because they were still running
    /// after their grace period. They are in the order of the aborts.
    #[must_use]
    pub fn aborted(&self) -> &[Aborted] {
        &self.aborted
    }

    /// Returns the number of panics, since the layer was made, that no response future could
    /// resume.
    ///
    /// The client of such a handler had disconnected, or had received a timeout response. The panic
    /// hook has printed these panics. While the client waits for the response, a panic is resumed
    /// in its connection, as without this layer, and is not counted.
    #[must_use]
    pub fn panicked(&self) -> usize {
        self.panicked
    }
}

/// A handler that was aborted. Displays its request: `POST /orders, after 7.2s`.
#[derive(Debug, Clone)]
pub struct Aborted {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) elapsed: Duration,
}

impl Aborted {
    /// Returns the request's method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the request's path, without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the time from the start of the handler to its abort.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Aborted {
            method,
            path,
            elapsed,
        } = self;
        write!(f, "{method} {path}, after {elapsed:.1?}")
    }
}

/// The counts from which the report is made.
#[derive(Default)]
pub(super) struct Tally {
    /// `true` once `Handlers::wait` was called. Before that, only panics are counted, so that a
    /// server that runs for months keeps no list of its aborts.
    waits: bool,
    drained: Drained,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally::default()
    }

    pub(super) fn begin(&mut self) {
        self.waits = true;
    }

    pub(super) fn finished(&mut self) {
        if self.waits {
            self.drained.finished += 1;
        }
    }

    pub(super) fn aborted(&mut self, aborted: impl FnOnce() -> Aborted) {
        if self.waits {
            self.drained.aborted.push(aborted());
        }
    }

    pub(super) fn panicked(&mut self) {
        self.drained.panicked += 1;
    }

    pub(super) fn take(&mut self) -> Drained {
        std::mem::take(&mut self.drained)
    }
}
