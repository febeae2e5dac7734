//! Counts of items that are reported to the caller while a fan-out runs.

/// How far a fan-out has come: what [`on_progress`](crate::FanOut::on_progress) is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many items were pulled and started.
    pub started: usize,
    /// How many of them have succeeded.
    pub done: usize,
    /// How many of them have failed. What was stopped is in neither.
    pub failed: usize,
    /// How many items there are in all, those that were pulled included, as far as the iterator says: a lower bound, and an
    /// upper one if it has one.
    pub size_hint: (usize, Option<usize>),
}
