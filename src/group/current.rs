//! Which task a place is polling on this thread: how an admission finds the task that awaits it.
//!
//! A `tokio::spawn` inside the task is a task of its own and is not found.

use std::cell::Cell;

use super::admission::LenderId;

#[derive(Clone, Copy)]
struct Current {
    /// The core that the task belongs to, by its address; compared, never dereferenced.
    core: usize,
    lender: Option<LenderId>,
}

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

/// Polls a task of `core`. `lender` is the task's name as a lender, in and out. `poll` must not unwind.
pub(crate) fn polling<T>(
    core: usize,
    lender: &mut Option<LenderId>,
    poll: impl FnOnce() -> T,
) -> T {
    let current = Current {
        core,
        lender: *lender,
    };
    let outer = CURRENT.replace(Some(current));
    let output = poll();
    let current = CURRENT.replace(outer);
    *lender = current.and_then(|current| current.lender);
    output
}

/// The task of `core` that is being polled, if one is, by its name as a lender, if it has one.
pub(crate) fn lender(core: usize) -> Option<Option<LenderId>> {
    let current = CURRENT.try_with(Cell::get).ok().flatten()?;
    (current.core == core).then_some(current.lender)
}

/// Names the task that is being polled.
pub(crate) fn name(lender: LenderId) {
    if let Some(current) = CURRENT.get() {
        CURRENT.set(Some(Current {
            lender: Some(lender),
            ..current
        }));
    }
}
