//! The causes with which a fan-out cancels its context.

use crate::context::Note;

/// The run is complete.
pub(crate) static FAN_OUT_ENDED: Note = Note("the fan-out has ended");
/// The future or the stream of the fan-out was dropped half-way.
pub(crate) static FAN_OUT_DROPPED: Note = Note("the fan-out was dropped");
/// The context is not done, so the runtime has aborted the tasks.
pub(crate) static TASKS_ABORTED: Note = Note("the tasks of the fan-out were aborted");
/// A quorum has as many successes as it requires.
pub(crate) static ENOUGH: Note = Note("the others have given enough");
/// A quorum requires more successes than can still arrive.
pub(crate) static OUT_OF_REACH: Note = Note("enough cannot be reached any more");
