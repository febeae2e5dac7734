//! What the options of a `TaskBuilder` say about a task.

use std::time::Duration;

/// How a task counts in its group.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// It takes a permit, and a wait waits for it.
    #[default]
    Plain,
    /// It takes no permit. When only such tasks are left, a wait cancels the context.
    Background,
    /// It takes no permit, and may start and run after the context is done.
    Cleanup,
}

/// What a task does to its group, apart from its work.
#[derive(Clone, Copy, Default)]
pub(crate) struct Policy {
    pub(super) role: Role,
    /// Its end cancels the context, whatever its outcome is.
    pub(super) is_essential: bool,
    /// Its failure does not cancel the context.
    pub(super) is_non_fatal: bool,
    /// Its entry in the registry is elsewhere.
    #[cfg(all(feature = "inspect", feature = "tower"))]
    pub(super) has_entry: bool,
}

impl Policy {
    pub(super) fn takes_permit(self) -> bool {
        self.role == Role::Plain
    }

    pub(super) fn is_background(self) -> bool {
        self.role == Role::Background
    }

    pub(super) fn is_cleanup(self) -> bool {
        self.role == Role::Cleanup
    }
}

/// The options of a task: its policy, and how long it may clean up.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    pub(super) policy: Policy,
    /// Set if the task's role is `Cleanup`.
    pub(super) cleanup: Option<Duration>,
}
