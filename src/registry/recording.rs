//! The events of the last recorder: a ring for each thread.
//!
//! # Invariants
//!
//! 1. `RECORDS` is the generation of the recording in `ACTIVE`, or 0 if there is none. It is
//!    written under the lock of `ACTIVE`, and an event reads it without that lock. So an event that
//!    happens at the same time as a start or a stop may be missed, and none is in the rings of
//!    another recording than that to which its thread was registered.
//! 2. The lock of a ring is held to push one event or to copy the ring. No other lock is taken
//!    under it, and no user code runs under it.
//! 3. A ring belongs to one thread at a time: to the one that has its only weak handle.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use super::entries::{GroupId, GroupKind, TaskEntry, TaskId};
use crate::panic;

/// The generation of the recording that records, or 0.
static RECORDS: AtomicU64 = AtomicU64::new(0);
static ACTIVE: Mutex<Option<Arc<Recording>>> = Mutex::new(None);

/// What has been recorded.
pub(crate) struct Recording {
    generation: u64,
    /// How many events a ring has at most.
    capacity: usize,
    rings: Mutex<Vec<Arc<Ring>>>,
}

type Ring = Mutex<VecDeque<Event>>;

#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) at: Instant,
    pub(crate) group: Arc<GroupInfo>,
    pub(crate) what: What,
}

#[derive(Clone)]
pub(crate) enum What {
    /// A task has ended, and its entry has been removed.
    Ended(TaskEntry),
    /// A task that is about to end has failed.
    Failed { task: TaskId, text: Box<str> },
    /// The context of the group is done.
    Cancelled { cause: Box<str> },
}

/// What is known of a group after its end. A thread that records several events of one group after
/// another looks it up at the first one, so a name that is given later is not in them.
pub(crate) struct GroupInfo {
    pub(crate) id: GroupId,
    /// `None` if it has no entry.
    pub(crate) made: Option<(GroupKind, &'static Location<'static>)>,
    pub(crate) name: Option<String>,
    /// The task in which it was made.
    pub(crate) parent: Option<TaskId>,
}

/// The ring of this thread, and the group of its last event.
struct OwnRing {
    generation: u64,
    capacity: usize,
    ring: Weak<Ring>,
    group: Option<Arc<GroupInfo>>,
}

std::thread_local! {
    static OWN_RING: RefCell<Option<OwnRing>> = const { RefCell::new(None) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether a recorder records.
#[inline]
pub(crate) fn is_on() -> bool {
    // `Relaxed`: the rest is read under locks.
    RECORDS.load(Ordering::Relaxed) != 0
}

impl Recording {
    /// Starts a recording, in the place of the one before.
    pub(crate) fn start(capacity: usize) -> Arc<Recording> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let recording = Arc::new(Recording {
            // `Relaxed`: each number is given once, and nothing else follows from it.
            generation: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            capacity,
            rings: Mutex::new(Vec::new()),
        });
        let mut active = lock(&ACTIVE);
        let before = active.replace(Arc::clone(&recording));
        RECORDS.store(recording.generation, Ordering::Relaxed);
        drop(active);
        drop(before);
        recording
    }

    /// Stops the recording, unless another one has taken its place.
    pub(crate) fn stop(&self) {
        let mut active = lock(&ACTIVE);
        if active
            .as_ref()
            .is_some_and(|it| it.generation == self.generation)
        {
            let stopped = active.take();
            RECORDS.store(0, Ordering::Relaxed);
            drop(active);
            drop(stopped);
        }
    }

    /// Returns whether it is the one that records.
    pub(crate) fn is_active(&self) -> bool {
        RECORDS.load(Ordering::Relaxed) == self.generation
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the events of all threads, those of each thread in the order in which they happened.
    pub(crate) fn events(&self) -> Vec<Event> {
        let rings = lock(&self.rings).clone();
        let mut events = Vec::new();
        for ring in rings {
            events.extend(lock(&ring).iter().cloned());
        }
        events
    }

    /// Returns a ring for this thread. It is the ring of a thread that has ended, if there is one,
    /// and otherwise new.
    fn ring(&self) -> Weak<Ring> {
        let mut rings = lock(&self.rings);
        // Weak handles are made under this lock only, so none is made of this ring meanwhile.
        let unused = rings.iter().find(|ring| Arc::weak_count(ring) == 0);
        if let Some(ring) = unused {
            return Arc::downgrade(ring);
        }
        let ring = Arc::new(Mutex::new(VecDeque::new()));
        let own = Arc::downgrade(&ring);
        rings.push(ring);
        own
    }
}

impl OwnRing {
    /// Registers this thread with the recording that records.
    fn register() -> Option<OwnRing> {
        let recording = lock(&ACTIVE).clone()?;
        Some(OwnRing {
            generation: recording.generation,
            capacity: recording.capacity,
            ring: recording.ring(),
            group: None,
        })
    }
}

/// Records an event of a group now. `look_up` is called if the last event of this thread was of
/// another group. Must be called without a lock.
#[cold]
pub(super) fn push(group: GroupId, what: What, look_up: impl FnOnce(GroupId) -> GroupInfo) {
    push_at(None, group, what, look_up);
}

/// Records an event that happened at a given time.
pub(super) fn push_at(
    at: Option<Instant>,
    group: GroupId,
    what: What,
    look_up: impl FnOnce(GroupId) -> GroupInfo,
) {
    // The clock, and the destructor of a group that has been looked up, may panic. An event must
    // not disturb the bookkeeping.
    let pushed = panic::catch(|| {
        let at = at.unwrap_or_else(Instant::now);
        let known = with_own_ring(|own| own.group.clone().filter(|info| info.id == group));
        // Outside the ring: a group that is looked up may be dropped there.
        let group = known.flatten().unwrap_or_else(|| Arc::new(look_up(group)));
        let event = Event { at, group, what };
        // While the thread ends, or if the recording has stopped, the event is dropped.
        with_own_ring(|own| own.push(event));
    });
    if let Err(payload) = pushed {
        panic::discard(payload);
    }
}

/// Calls `with` with the ring of this thread. Returns `None` if there is none.
fn with_own_ring<T>(with: impl FnOnce(&mut OwnRing) -> T) -> Option<T> {
    let called = OWN_RING.try_with(|own| {
        let mut own = own.try_borrow_mut().ok()?;
        let current = RECORDS.load(Ordering::Relaxed);
        if own.as_ref().is_none_or(|own| own.generation != current) {
            *own = OwnRing::register();
        }
        own.as_mut().map(with)
    });
    called.ok().flatten()
}

impl OwnRing {
    fn push(&mut self, event: Event) {
        let Some(ring) = self.ring.upgrade() else {
            return;
        };
        self.group = Some(Arc::clone(&event.group));
        let mut events = lock(&ring);
        let oldest = if events.len() >= self.capacity {
            events.pop_front()
        } else {
            None
        };
        events.push_back(event);
        drop(events);
        drop(oldest);
    }
}
