//! The registry of live groups and tasks, which feature `inspect` reads.
//!
//! Without the feature, the types have no size and their methods are empty.
//!
//! # Invariants
//!
//! 1. A task has an entry from the moment it is submitted, or an item is pulled, until its outcome
//!    has been recorded. The future has been dropped by then, and no waiter has been told.
//!    So a task that lives longer than a reading of the registry is found by it, and a task whose
//!    end was observed before is not.
//! 2. A group has an entry as long as its scheduler exists. Each task keeps its scheduler alive, so
//!    the group of a task that is found has an entry, too.
//! 3. The lock of a shard is held for one operation on its tables, and no other lock is taken under
//!    it. So it may be taken under any lock. A task takes one three times: when it is submitted,
//!    when it starts and when it ends. That is the most of what an entry costs, so nothing is noted
//!    in a critical section of its own that can be noted in one of these.
//! 4. An entry never moves to another shard, so a reading that takes one lock after another misses
//!    none.

#[cfg(feature = "inspect")]
mod caller;
#[cfg(feature = "inspect")]
mod entries;
#[cfg(feature = "inspect")]
mod groups;
#[cfg(feature = "inspect")]
mod handlers;
#[cfg(feature = "inspect")]
mod live;
#[cfg(feature = "inspect")]
pub(crate) mod recording;
#[cfg(feature = "inspect")]
mod shards;
#[cfg(feature = "inspect")]
mod table;
#[cfg(feature = "inspect")]
mod tasks;
#[cfg(feature = "inspect")]
mod text;
#[cfg(feature = "inspect")]
mod waits;

#[cfg(feature = "inspect")]
pub(crate) use {
    caller::*, entries::*, groups::*, handlers::*, live::*, tasks::*, text::text, waits::*,
};

#[cfg(not(feature = "inspect"))]
mod none {
    use std::borrow::Cow;
    use std::fmt::Display;
    use std::panic::Location;

    use tokio::time::Instant;

    use super::{First, TaskKind};
    use crate::tracing;

    #[derive(Clone)]
    pub(crate) struct Caller;

    impl Caller {
        pub(crate) fn current() -> Caller {
            Caller
        }

        pub(crate) fn task(
            &self,
            _: Option<&Cow<'static, str>>,
            _: &'static Location<'static>,
            _: TaskKind,
            _: First,
        ) -> Entry {
            Entry
        }

        pub(crate) fn item(&self, _: usize, _: &'static Location<'static>) -> Entry {
            Entry
        }
    }

    pub(crate) struct Entry;

    impl Entry {
        pub(crate) const fn none() -> Entry {
            Entry
        }

        pub(crate) fn queued(&self) {}

        pub(crate) fn started(&self, _: Instant) -> Option<TaskRef> {
            None
        }

        pub(crate) fn failed(&self, _: tracing::Failure<'_>, _: bool) {}

        #[cfg(feature = "tower")]
        pub(crate) fn run<T>(&self, code: impl FnOnce() -> T) -> T {
            code()
        }

        #[cfg(feature = "tower")]
        pub(crate) fn lingers(&self) {}

        pub(crate) fn close(&mut self) {}
    }

    /// There is none.
    pub(crate) enum TaskRef {}

    impl TaskRef {
        pub(crate) fn stopped(self, _: &dyn Display) {
            match self {}
        }
    }

    pub(crate) struct Entered;

    pub(crate) fn enter(_: Option<&Entry>) -> Entered {
        Entered
    }

    pub(crate) fn enter_caller(_: &Caller) -> Entered {
        Entered
    }
}

#[cfg(not(feature = "inspect"))]
pub(crate) use none::*;

/// What a task does first, as far as is known when it is submitted.
#[derive(Clone, Copy)]
pub(crate) enum First {
    /// It waits for a permit or for a worker.
    Waits,
    /// It probably starts at once.
    Starts,
}

/// What kind of task an entry is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "inspect"),
    expect(dead_code, reason = "read by the registry only")
)]
pub(crate) enum TaskKind {
    Task,
    Background,
    Cleanup,
    Blocking,
    Local,
    Tracked,
    Item,
    #[cfg(all(feature = "inspect", feature = "tower"))]
    Handler,
    #[cfg(all(feature = "inspect", feature = "tower"))]
    Lingering,
}
