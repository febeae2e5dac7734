//! The entry of a group, and how its context ends.

use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, Weak};

use super::caller::Caller;
use super::entries::{End, GroupEntry, GroupId, GroupKind, Inspected};
use super::recording::{self, What};
use super::shards::{group_info, group_shard, lock};

/// The entry of a group in the table, which is removed when this is dropped.
pub(crate) struct Registered {
    id: OnceLock<GroupId>,
    /// Whether its tasks have been waited for. An end of its context after that is no cancellation.
    was_waited_for: AtomicBool,
}

impl Registered {
    pub(crate) const fn new() -> Registered {
        Registered {
            id: OnceLock::new(),
            was_waited_for: AtomicBool::new(false),
        }
    }

    /// Enters a group that `caller` makes.
    pub(crate) fn enter(
        &self,
        caller: &Caller,
        kind: GroupKind,
        site: &'static Location<'static>,
        group: Weak<dyn Inspected>,
    ) {
        self.id.get_or_init(|| {
            let id = caller.group;
            let entry = GroupEntry {
                id,
                parent: caller.task,
                kind,
                site,
                group,
            };
            let before = lock(&group_shard(id).groups).insert(id, entry);
            debug_assert!(before.is_none(), "a caller makes one group");
            id
        });
    }

    /// Returns the id of the group.
    pub(crate) fn id(&self) -> GroupId {
        self.id.get().copied().unwrap_or(0)
    }

    pub(crate) fn set_kind(&self, kind: GroupKind) {
        let id = self.id();
        if let Some(entry) = lock(&group_shard(id).groups).get_mut(&id) {
            entry.kind = kind;
        }
    }

    /// Notes how the context of the group has ended, if it has, for a recorder. Must be called
    /// without a lock.
    pub(crate) fn ended(&self, end: impl FnOnce() -> Option<End>) {
        // `Relaxed`: it concerns ends that the same caller makes later.
        if self.was_waited_for.load(Ordering::Relaxed) {
            return;
        }
        if let Some(end) = end() {
            let cause = end.cause;
            recording::push_at(end.at, self.id(), What::Cancelled { cause }, group_info);
        }
    }

    /// Notes that the group's tasks have been waited for. How its context ends later is not noted.
    pub(crate) fn waited_for(&self) {
        self.was_waited_for.store(true, Ordering::Relaxed);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(id) = self.id.get() {
            let removed = lock(&group_shard(*id).groups).remove(id);
            drop(removed);
        }
    }
}
