//! The tag that identifies an item while it runs.

use std::time::Duration;

use tokio::time::Instant;

use super::call_site::CallSite;
use crate::scheduler::error::Label;
use crate::span::TaskSpan;

/// An item's number, its start and its span. Items on workers and on the caller's own task have
/// the same tag.
pub(crate) struct ItemTag<W> {
    /// The number of the item, counted from 0 in the order in which items are pulled.
    pub(crate) number: usize,
    /// The stopwatch of the item; `None` if the item never starts.
    pub(crate) started: Option<W>,
    pub(crate) span: TaskSpan,
}

impl<W: Stopwatch> ItemTag<W> {
    /// Makes the tag of an item that starts now.
    pub(crate) fn started(number: usize, call_site: &CallSite) -> Self {
        ItemTag {
            number,
            started: Some(W::start()),
            span: call_site.span_of(number),
        }
    }

    /// Makes the tag of an item that never starts.
    pub(crate) fn unstarted(number: usize, call_site: &CallSite) -> Self {
        ItemTag {
            number,
            started: None,
            span: call_site.span_of(number),
        }
    }

    /// Returns the label of the item and how long it has run, for its failure.
    pub(crate) fn describe(&self, call_site: &CallSite) -> (Label, Duration) {
        let elapsed = self.started.map_or(Duration::ZERO, |watch| watch.elapsed());
        (call_site.label_of(self.number), elapsed)
    }
}

/// Measures the time since it was made.
pub(crate) trait Stopwatch: Copy + Send + 'static {
    fn start() -> Self;
    fn elapsed(&self) -> Duration;
}

impl Stopwatch for Instant {
    fn start() -> Instant {
        Instant::now()
    }

    fn elapsed(&self) -> Duration {
        Instant::elapsed(self)
    }
}

/// Reads no clock and always returns zero: for collectors that report no durations.
impl Stopwatch for () {
    fn start() {}

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}
