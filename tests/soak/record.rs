//! What became of a body, and what its group owes the caller for that.

use std::fmt;

/// How a body ended. `Made`: it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Made,
    Ok,
    Failed,
    Panicked,
    /// Dropped before its end, or before its start.
    Unfinished,
    /// `try_go` gave it back.
    HandedBack,
}

/// Whether a failure was reported to a caller other than that of the group's `wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    No,
    /// The caller of `start`, or the handle that has stopped the task.
    Caller,
    /// The call of `start` was dropped: it may have taken the failure along. Or the task was
    /// stopped through its handle, perhaps after it had failed.
    Perhaps,
}

#[derive(Clone, Copy)]
pub(crate) struct Record {
    pub(crate) fate: Fate,
    pub(crate) told: Told,
    pub(crate) marks: Marks,
    /// A closure that has not begun on its thread.
    pub(crate) waits_for_thread: bool,
}

/// What a body was started as.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    /// Polled by its caller, from `track`.
    pub(crate) tracked: bool,
    pub(crate) background: bool,
    pub(crate) essential: bool,
    pub(crate) non_fatal: bool,
    pub(crate) cleanup: bool,
    /// A clean-up task that a destructor has started.
    pub(crate) gives_back: bool,
}

/// Whether a group reports a failure of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Always,
    Perhaps,
    Never,
}

impl Record {
    pub(crate) fn new() -> Record {
        Record {
            fate: Fate::Made,
            told: Told::No,
            marks: Marks::default(),
            waits_for_thread: false,
        }
    }

    /// Whether its group must report it, if it has not succeeded.
    pub(crate) fn due(&self) -> Due {
        let Marks {
            tracked,
            background,
            gives_back,
            ..
        } = self.marks;
        match self.fate {
            Fate::Made | Fate::Ok | Fate::HandedBack => Due::Never,
            Fate::Panicked => Due::Always,
            _ if self.told == Told::Caller => Due::Never,
            // A future that its caller drops is no failure.
            Fate::Unfinished if tracked => Due::Never,
            // What a background task returns at the end is none either. A destructor that runs
            // after an abort gives nothing back.
            _ if background || gives_back || self.told == Told::Perhaps => Due::Perhaps,
            Fate::Failed | Fate::Unfinished => Due::Always,
        }
    }
}

impl fmt::Debug for Record {
    /// In short: a group has many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fate)?;
        if self.told != Told::No {
            write!(f, " told {:?}", self.told)?;
        }
        let marks = [
            (self.marks.tracked, "tracked"),
            (self.marks.background, "background"),
            (self.marks.essential, "essential"),
            (self.marks.non_fatal, "non-fatal"),
            (self.marks.cleanup, "clean-up"),
            (self.marks.gives_back, "gives back"),
            (self.waits_for_thread, "waits for a thread"),
        ];
        for (_, mark) in marks.into_iter().filter(|(is_set, _)| *is_set) {
            write!(f, " {mark}")?;
        }
        Ok(())
    }
}
