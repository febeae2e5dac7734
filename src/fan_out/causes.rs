//! The causes with which a fan-out cancels its context.

use crate::context::StaticCause;

/// The run is complete.
pub(crate) static FAN_OUT_FINISHED: StaticCause = StaticCause("the fan-out has finished");
/// The future or the stream of the fan-out was dropped half-way.
pub(crate) static FAN_OUT_DROPPED: StaticCause = StaticCause("the fan-out was dropped");
/// The stream of the fan-out was stopped.
pub(crate) static FAN_OUT_STOPPED: StaticCause = StaticCause("the fan-out was stopped");
/// The context is not done, so the runtime has aborted the tasks.
pub(crate) static TASKS_ABORTED: StaticCause = StaticCause("the tasks of the fan-out were aborted");
/// A quorum has as many successes as it requires.
pub(crate) static ENOUGH: StaticCause = StaticCause("enough results received");
/// A quorum requires more successes than can still arrive.
pub(crate) static QUORUM_NOT_REACHED: StaticCause = StaticCause("quorum can no longer be reached");
