//! The causes with which a fan-out cancels its context.

use crate::context::Note;

/// The run is complete.
pub(crate) static FAN_OUT_FINISHED: Note = Note("the fan-out has finished");
/// The future or the stream of the fan-out was dropped half-way.
pub(crate) static FAN_OUT_DROPPED: Note = Note("the fan-out was dropped");
/// The context is not done, so the runtime has aborted the tasks.
pub(crate) static TASKS_ABORTED: Note = Note("the tasks of the fan-out were aborted");
/// A quorum has as many successes as it requires.
pub(crate) static ENOUGH: Note = Note("enough results received");
/// A quorum requires more successes than can still arrive.
pub(crate) static QUORUM_NOT_REACHED: Note = Note("quorum can no longer be reached");
