//! The counts that are reported to the caller while a fan-out runs.

/// The progress of a fan-out. [`on_progress`](crate::FanOut::on_progress) is called with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many items have started.
    pub started: usize,
    /// How many of these have succeeded.
    pub done: usize,
    /// How many of these have failed. An item that was stopped counts in neither.
    pub failed: usize,
    /// The bounds of the number of all items, those that were pulled included: a lower bound, and
    /// an upper bound if the iterator has one.
    pub size_hint: (usize, Option<usize>),
}
