//! Which task is being polled on this thread: how an admission finds the task that awaits it.
//!
//! What a place polls is either a task of a group, or an item of a fan-out. An item acts for the task that awaits its fan-out:
//! when it awaits a decision of that task's group, it is that task that lends, or a fan-out inside a bounded group could
//! wait for a place that its own caller holds. So the first poll of a fan-out notes inside which task it is (`Outer`), and its
//! places take that along. A `tokio::spawn` inside the task is a task of its own and is not found.

use std::cell::Cell;
use std::task::Poll;

use super::admission::LenderId;
use super::source::Lending;
use crate::sync::{Arc, thread_static};

/// What a place says of what it polls. It is moved here for the length of a poll.
pub(crate) struct Frame {
    /// The group that the task belongs to.
    own: Option<Arc<dyn Lending>>,
    /// The task's name as a lender, from the first time that it waits.
    lender: Option<LenderId>,
    /// For whom it acts.
    outer: Option<Arc<Outer>>,
    /// Whether it has waited in that one's name.
    waits: bool,
}

/// A task that awaits a fan-out: the items act for it.
pub(crate) struct Outer {
    core: Arc<dyn Lending>,
    lender: LenderId,
}

thread_static! {
    static CURRENT: Cell<Option<Frame>> = Cell::new(None);
}

impl Frame {
    /// That of a task of a group.
    pub(crate) fn task(core: Arc<dyn Lending>) -> Frame {
        Frame {
            own: Some(core),
            lender: None,
            outer: None,
            waits: false,
        }
    }

    /// That of an item of a fan-out.
    pub(crate) fn item(outer: &Arc<Outer>) -> Frame {
        Frame {
            own: None,
            lender: None,
            outer: Some(outer.clone()),
            waits: false,
        }
    }

    /// That of the pulling of a fan-out's items.
    pub(crate) fn pull(outer: &Arc<Outer>) -> Frame {
        Frame {
            waits: true,
            ..Frame::item(outer)
        }
    }

    /// The next task begins. Hands back the name of the last one.
    pub(crate) fn renew(&mut self) -> Option<LenderId> {
        self.waits = false;
        self.lender.take()
    }

    /// Before each poll.
    fn begin_poll(&self) {
        if let (Some(core), Some(lender)) = (&self.own, self.lender) {
            core.begin_poll(lender, true);
        }
        if let Some(outer) = self.outer.as_ref().filter(|_| self.waits) {
            outer.core.begin_poll(outer.lender, false);
        }
    }

    /// After each poll: what waits lends its ticket. An item that has ended may leave others behind that wait.
    fn lend(&self, ended: bool) {
        if let (Some(core), Some(lender), false) = (&self.own, self.lender, ended) {
            core.clone().lend(lender, true);
        }
        if let Some(outer) = self.outer.as_ref().filter(|_| self.waits) {
            outer.core.clone().lend(outer.lender, false);
        }
    }
}

/// Polls a task, or what acts for nobody. `poll` must not unwind.
#[inline]
pub(crate) fn polling<T>(frame: &mut Option<Frame>, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    match frame.take() {
        Some(mine) => polling_in(mine, frame, poll),
        None => poll(),
    }
}

fn polling_in<T>(
    mine: Frame,
    frame: &mut Option<Frame>,
    poll: impl FnOnce() -> Poll<T>,
) -> Poll<T> {
    mine.begin_poll();
    let interrupted = CURRENT.with(|current| current.replace(Some(mine)));
    let polled = poll();
    *frame = CURRENT.with(|current| current.replace(interrupted));
    frame.iter().for_each(|frame| frame.lend(polled.is_ready()));
    polled
}

/// The task of `core` that is being polled, or acted for, if one is; by its name as a lender, if it has one.
pub(crate) fn lender(core: usize) -> Option<Option<LenderId>> {
    look(|frame| {
        if frame.own.as_ref().is_some_and(|own| own.id() == core) {
            return Some(frame.lender);
        }
        let outer = frame
            .outer
            .as_ref()
            .filter(|outer| outer.core.id() == core)?;
        Some(Some(outer.lender))
    })
}

/// Notes that what `lender` found waits in that name.
pub(crate) fn name(lender: LenderId) {
    look(|frame| {
        match frame.own {
            Some(_) => frame.lender = Some(lender),
            None => frame.waits = true,
        }
        Some(())
    });
}

/// The task for whom what is started here acts, if this is in one.
pub(crate) fn outer() -> Option<Arc<Outer>> {
    look(|frame| match &frame.own {
        Some(core) => {
            let lender = *frame.lender.get_or_insert_with(|| core.name_lender());
            let core = core.clone();
            Some(Arc::new(Outer { core, lender }))
        }
        None => frame.outer.clone(),
    })
}

fn look<T>(look: impl FnOnce(&mut Frame) -> Option<T>) -> Option<T> {
    CURRENT
        .try_with(|current| {
            let mut frame = current.take()?;
            let seen = look(&mut frame);
            current.set(Some(frame));
            seen
        })
        .ok()
        .flatten()
}
