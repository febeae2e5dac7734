//! The report on the handlers that a shutdown waited for.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use http::Method;

use crate::tower::request_line::RequestLine;

/// How many aborts from before the shutdown are kept.
const MOST_KEPT: usize = 1_024;

/// How many bytes of a path are kept. Its length is up to the client.
const MOST_OF_PATH: usize = 256;

/// The report of [`Handlers::wait`](super::Handlers::wait).
///
/// It displays as one line for a log: `3 handlers finished, 1 aborted: POST /orders, after 7.2s`.
#[derive(Debug, Clone, Default)]
pub struct Drained {
    finished: usize,
    aborted: Vec<Aborted>,
    omitted: usize,
    panicked: usize,
    left_running: usize,
}

impl Drained {
    /// Returns the number of handlers that returned while `wait` waited.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished
    }

    /// Returns the handlers that were aborted since the layer was made, in the order of the aborts.
    ///
    /// Those that were aborted since `wait` was called are all here. Of those from before, a server
    /// that runs for months keeps the last 1,024, with at most 256 bytes of the path each, which is
    /// less than half a megabyte. [`omitted`](Drained::omitted) counts the others.
    #[must_use]
    pub fn aborted(&self) -> &[Aborted] {
        &self.aborted
    }

    /// Returns the number of aborts that are not in [`aborted`](Drained::aborted), because later
    /// ones took their place.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
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

    /// Returns the number of handlers that were still running when `wait` gave up, a second after
    /// the grace period. They block their threads, or their response futures are not polled.
    #[must_use]
    pub fn left_running(&self) -> usize {
        self.left_running
    }
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aborted = self.aborted.len() + self.omitted;
        write!(f, "{} handlers finished, {aborted} aborted", self.finished)?;
        if self.panicked > 0 {
            write!(f, ", {} panicked", self.panicked)?;
        }
        if self.left_running > 0 {
            write!(f, ", {} still running", self.left_running)?;
        }
        for (number, aborted) in self.aborted.iter().enumerate() {
            write!(f, "{} {aborted}", if number == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

/// A handler that was aborted. Displays its request: `POST /orders, after 7.2s`.
#[derive(Debug, Clone)]
pub struct Aborted {
    method: Method,
    path: Box<str>,
    elapsed: Duration,
}

impl Aborted {
    pub(in crate::tower) fn new(line: &RequestLine, elapsed: Duration) -> Aborted {
        let path = line.path();
        let mut end = path.len().min(MOST_OF_PATH);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        Aborted {
            method: line.method().clone(),
            path: path[..end].into(),
            elapsed,
        }
    }

    /// Returns the request's method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the request's path, without its query. It is cut off after 256 bytes.
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

/// How a handler has ended.
pub(super) enum Ended {
    /// It has returned a response or an error.
    Returned,
    Aborted(Aborted),
    /// It has panicked, and no response future could resume the panic.
    Panicked,
    /// It was dropped by the server, or its panic was resumed in the server.
    Otherwise,
}

/// The counts from which the report is made.
#[derive(Default)]
pub(super) struct Tally {
    /// How many handlers were running at the call of `Handlers::wait`. `None` before that.
    running_at_close: Option<usize>,
    /// How many of these have ended in another way than by returning.
    not_returned: usize,
    /// The last aborts: at most `MOST_KEPT` until the close, and all since then.
    aborted: VecDeque<Aborted>,
    omitted: usize,
    panicked: usize,
}

impl Tally {
    pub(super) fn close(&mut self, running: usize) {
        self.running_at_close = Some(running);
    }

    /// Records a handler that has ended in another way than by returning. Returns an older abort
    /// that is not kept any more, for the caller to drop without the lock.
    pub(super) fn record(&mut self, ended: Ended) -> Option<Aborted> {
        let is_closed = self.running_at_close.is_some();
        if is_closed {
            self.not_returned += 1;
        }
        match ended {
            Ended::Aborted(aborted) => {
                self.aborted.push_back(aborted);
                if self.aborted.len() > MOST_KEPT && !is_closed {
                    self.omitted += 1;
                    return self.aborted.pop_front();
                }
            }
            Ended::Panicked => self.panicked += 1,
            Ended::Returned | Ended::Otherwise => {}
        }
        None
    }

    pub(super) fn report(&self, running: usize) -> Drained {
        let awaited = self.running_at_close.unwrap_or(0);
        Drained {
            finished: awaited.saturating_sub(self.not_returned + running),
            aborted: self.aborted.iter().cloned().collect(),
            omitted: self.omitted,
            panicked: self.panicked,
            left_running: running,
        }
    }
}
