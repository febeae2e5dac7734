//! The budget of user code that one poll of a worker may run before it yields.
//!
//! A worker runs several jobs in one poll, one after another. tokio polls its timers and sockets
//! between polls of tasks, so a long poll delays every timer and every connection of the runtime.
//! Therefore a worker yields when its jobs have taken [`TIME`], or after [`STEPS`] of them.
//!
//! Reading the clock costs about a tenth of a trivial job. So the quicker the jobs are, the more
//! rarely it is read, and not at all in a poll that only resumes a job and starts the next one.

use std::time::Duration;

use crate::sync::PollClock;

/// How long user code may run in one poll. The last step may take longer, because it cannot be
/// interrupted.
const TIME: Duration = Duration::from_micros(200);
/// The largest number of steps in one poll: the number of units in the cooperative budget of a
/// tokio task.
const STEPS: usize = 128;
/// The largest number of steps between two readings of the clock. Quick jobs may become slow at any
/// time, and all steps until the next reading then count on top of [`TIME`].
const MOST_BETWEEN_LOOKS: usize = 16;

/// The budget that one poll has used so far. A step is anything that runs user code once: a job, a
/// destructor, a report.
pub(crate) struct PollBudget {
    steps: usize,
    next_look: usize,
    clock: Option<PollClock>,
}

impl PollBudget {
    /// Starts the budget of a poll that begins without a job.
    pub(crate) fn start() -> PollBudget {
        PollBudget {
            steps: 0,
            next_look: 1,
            clock: Some(PollClock::start()),
        }
    }

    /// Starts the budget of a poll that resumes a job. Mostly that job finishes and the next one
    /// has to wait, so the clock is first read when a second job has finished. If they do not wait,
    /// three jobs may run before the worker yields. Its next poll begins without a job.
    pub(crate) fn start_with_job() -> PollBudget {
        PollBudget {
            steps: 0,
            next_look: 2,
            clock: None,
        }
    }

    /// Counts a step: user code has run once.
    #[inline]
    pub(crate) fn add_step(&mut self) {
        self.steps += 1;
    }

    /// Returns whether the worker must yield before it runs more user code.
    #[inline]
    pub(crate) fn is_used_up(&mut self) -> bool {
        self.steps >= STEPS || self.steps >= self.next_look && self.look()
    }

    /// Reads the clock, and returns whether the time is used up. If it is not, sets the next
    /// reading to when half of the remaining time has passed at the pace so far.
    fn look(&mut self) -> bool {
        let Some(clock) = &self.clock else {
            self.clock = Some(PollClock::start());
            self.next_look = self.steps + 1;
            return false;
        };
        let elapsed = clock.elapsed();
        let Some(left) = TIME.checked_sub(elapsed).filter(|left| !left.is_zero()) else {
            return true;
        };
        // Both are at most `TIME`.
        let (left, elapsed) = (left.subsec_nanos(), elapsed.subsec_nanos().max(1));
        let steps = left as usize / 2 * self.steps / elapsed as usize;
        self.next_look = self.steps + steps.clamp(1, MOST_BETWEEN_LOOKS);
        false
    }
}
