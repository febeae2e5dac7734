//! What became of the handlers that a shutdown waited for.

use std::fmt;
use std::time::Duration;

use http::Method;

/// What [`Handlers::wait`](super::Handlers::wait) saw.
#[derive(Debug, Clone, Default)]
pub struct Drained {
    finished: usize,
    aborted: Vec<Aborted>,
    panicked: usize,
}

impl Drained {
    /// How many handlers ended by themselves while it waited.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// The handlers that were aborted while it waited, since they ran on after their grace; in the order in which they were.
    #[must_use]
    pub fn aborted(&self) -> &[Aborted] {
        &self.aborted
    }

    /// How many panics nobody was told of, since the layer was made: each was that of a handler whose client had gone. The
    /// panic hook has printed them. Where the client was still there, the panic went on in its connection, as without this
    /// layer.
    #[must_use]
    pub fn panicked(&self) -> usize {
        self.panicked
    }
}

/// A handler that was aborted, by its request: `POST /orders, after 7.2s`.
#[derive(Debug, Clone)]
pub struct Aborted {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) elapsed: Duration,
}

impl Aborted {
    /// The request's method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request's path, without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// How long the handler had run.
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

/// The report as it comes about.
#[derive(Default)]
pub(super) struct Tally {
    /// Whether somebody waits: a server that runs for months keeps no list of what it aborted.
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
