//! How much user code one poll of a worker may run before it yields.
//!
//! A worker runs one job after another in one poll. tokio polls its timers and sockets between
//! polls of tasks, so a poll that lasts makes every timer and every connection of the runtime late.
//! Therefore a worker yields when its jobs have taken [`TIME`], or after [`STEPS`] of them.
//!
//! Reading the clock costs about a tenth of a trivial job. So it is read more rarely the quicker
//! the jobs are, and not at all in a poll that only resumes a job and starts the next one.

use std::time::Duration;

use crate::sync::PollClock;

/// How long user code may run in one poll. The last step may take longer: nothing can stop it.
const TIME: Duration = Duration::from_micros(200);
/// The most steps of one poll: as many as a task's cooperative budget in tokio has units.
const STEPS: usize = 128;
/// The most steps between two looks at the clock. Jobs that were quick may become slow at any
/// time, and all steps until the next look then count on top of [`TIME`].
const MOST_BETWEEN_LOOKS: usize = 16;

/// What one poll has used so far. A step is a job, a destructor, a report: anything that runs user
/// code once.
pub(crate) struct PollBudget {
    steps: usize,
    next_look: usize,
    clock: Option<PollClock>,
}

impl PollBudget {
    /// Of a poll that begins to run user code.
    pub(crate) fn start() -> PollBudget {
        PollBudget {
            steps: 0,
            next_look: 1,
            clock: Some(PollClock::start()),
        }
    }

    /// Of a poll that resumes a job. Mostly that job ends and the next one has to wait, so the
    /// clock is first read when a second one has ended. If they do not wait, three jobs may run
    /// before the worker yields; its next poll begins without a job.
    pub(crate) fn start_with_job() -> PollBudget {
        PollBudget {
            steps: 0,
            next_look: 2,
            clock: None,
        }
    }

    /// User code has run once.
    #[inline]
    pub(crate) fn add_step(&mut self) {
        self.steps += 1;
    }

    /// Whether the worker must yield before it runs more user code.
    #[inline]
    pub(crate) fn is_used_up(&mut self) -> bool {
        self.steps >= STEPS || self.steps >= self.next_look && self.look()
    }

    /// Reads the clock, and says whether the time is used up. If not, sets the next look to when a
    /// half of what is left has passed at the pace so far.
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
