//! How long a run on the caller's task polls its items before it yields.

use crate::scheduler::poll_budget::PollBudget;

/// How many items may yield, by waking themselves in their own poll, before the run yields to the
/// other futures of its task.
const MOST_YIELDS: u32 = 2;

/// What the run has used since it last returned pending. It spans several outcomes of a stream,
/// since a consumer may take them all in one poll of its task.
pub(super) struct Turn {
    /// Started by the first use, so that a turn without items reads no clock.
    budget: Option<PollBudget>,
    yields: u32,
    has_polled_woken: bool,
}

impl Turn {
    pub(super) fn new() -> Turn {
        Turn {
            budget: None,
            yields: 0,
            has_polled_woken: false,
        }
    }

    /// Returns whether the run must yield before it runs more user code.
    #[inline]
    pub(super) fn is_used_up(&mut self) -> bool {
        let budget = self.budget.get_or_insert_with(PollBudget::start);
        budget.is_used_up()
    }

    /// Returns whether the run must yield before it polls another item that was woken. A new item
    /// may still be started: those that yield may wait for it.
    ///
    /// One item that was woken is polled in each turn. Otherwise an iterator whose items are ready
    /// at once, and each of which takes longer than the budget, would keep it waiting for ever.
    #[inline]
    pub(super) fn must_yield(&mut self) -> bool {
        if !std::mem::replace(&mut self.has_polled_woken, true) {
            return false;
        }
        self.yields >= MOST_YIELDS || self.is_used_up()
    }

    /// Counts a poll of an item.
    #[inline]
    pub(super) fn add_step(&mut self) {
        if let Some(budget) = &mut self.budget {
            budget.add_step();
        }
    }

    /// Counts a poll in which an item has woken itself.
    pub(super) fn add_yield(&mut self) {
        self.yields += 1;
    }

    /// Begins the next turn: the run returns pending.
    pub(super) fn end(&mut self) {
        *self = Turn::new();
    }
}
