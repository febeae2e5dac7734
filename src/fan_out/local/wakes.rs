//! The wakes of the items that run on the caller's task.
//!
//! Each item has a waker of its own, so that a run polls only the items that were woken. A wake
//! puts the item's slot into a queue, which all items of a run share, and wakes the task of the run
//! if it waits.
//!
//! # Invariants
//!
//! 1. An item was woken, and was not polled since, if and only if its flag is set. The run clears
//!    the flag before it polls the item. A wake during the poll sets it again.
//! 2. The thread that sets the flag puts the slot into the queue afterwards. So a slot in the queue
//!    whose flag is not set means nothing: its item was polled, or has ended, since.
//! 3. `task` is set only while the queue is empty: the run sets it under the lock under which it
//!    sees that, and the next wake takes it. So no wake is lost, and a wake during a poll of the
//!    run does not wake the task.

use std::collections::VecDeque;
use std::task::Waker;

use futures_util::task::ArcWake;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};

/// The slots of the items that were woken, and the task that polls them.
pub(super) struct WakeQueue {
    state: Mutex<QueueState>,
    /// Set while `state.slots` is not empty, so that the run takes the lock only then.
    has_slots: AtomicBool,
}

struct QueueState {
    /// In the order of the wakes.
    slots: VecDeque<usize>,
    /// The waker of the task that polls the run, while the run waits for a wake.
    task: Option<Waker>,
}

impl WakeQueue {
    pub(super) fn new() -> Arc<WakeQueue> {
        Arc::new(WakeQueue {
            state: Mutex::new(QueueState {
                slots: VecDeque::new(),
                task: None,
            }),
            has_slots: AtomicBool::new(false),
        })
    }

    /// Takes the slots. `woken` is empty, and its memory is used for those that come next. May miss
    /// a wake that happens at the same time.
    #[inline]
    pub(super) fn take(&self, woken: &mut VecDeque<usize>) {
        // `Relaxed`, since it only saves the lock: what is missed here is seen by `wait`.
        if self.has_slots.load(Ordering::Relaxed) {
            let mut state = self.state.lock();
            self.has_slots.store(false, Ordering::Relaxed);
            std::mem::swap(&mut state.slots, woken);
        }
    }

    /// Waits for the next wake, which wakes `task`. Returns false if there was one already.
    pub(super) fn wait(&self, task: &Waker) -> bool {
        // Cloning and dropping a waker is user code: not under the lock.
        let task = task.clone();
        let mut state = self.state.lock();
        if !state.slots.is_empty() {
            return false;
        }
        let before = state.task.replace(task);
        drop(state);
        drop(before);
        true
    }

    /// Removes all slots, none of which is used, and frees their memory.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        state.slots = VecDeque::new();
        self.has_slots.store(false, Ordering::Relaxed);
    }

    /// Forgets the task: the run is dropped, and the wakers of its items may be kept for long.
    pub(super) fn forget_task(&self) {
        let task = self.state.lock().task.take();
        drop(task);
    }

    fn push(&self, slot: usize) {
        let mut state = self.state.lock();
        state.slots.push_back(slot);
        self.has_slots.store(true, Ordering::Relaxed);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// The waker of the item in one slot.
pub(super) struct ItemWaker {
    queue: Arc<WakeQueue>,
    slot: usize,
    is_woken: AtomicBool,
}

impl ItemWaker {
    pub(super) fn new(queue: &Arc<WakeQueue>, slot: usize) -> Arc<ItemWaker> {
        Arc::new(ItemWaker {
            queue: queue.clone(),
            slot,
            is_woken: AtomicBool::new(false),
        })
    }

    /// Makes this the waker of the next item in its slot. An item that has ended may have left
    /// clones of its waker, which must not wake the next one. Then there is a new waker.
    pub(super) fn renew(waker: &mut Arc<ItemWaker>) {
        match Arc::get_mut(waker) {
            // Only this thread has the waker.
            Some(waker) => waker.is_woken.store(false, Ordering::Relaxed),
            None => *waker = ItemWaker::new(&waker.queue, waker.slot),
        }
    }

    /// Returns whether the item was woken, and was not polled since.
    pub(super) fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::Relaxed)
    }

    /// Clears the flag, before a poll of the item. Returns whether it was set.
    ///
    /// `Acquire` pairs with the release of `wake_by_ref`: the item sees what was written before the
    /// wake. It is a swap, since a wake that finds the flag set changes it as well, and the run
    /// must see what was written before that wake, too.
    #[inline]
    pub(super) fn take_woken(&self) -> bool {
        self.is_woken.swap(false, Ordering::Acquire)
    }
}

impl ArcWake for ItemWaker {
    /// `Release` pairs with `take_woken`.
    fn wake_by_ref(waker: &Arc<Self>) {
        if !waker.is_woken.swap(true, Ordering::Release) {
            waker.queue.push(waker.slot);
        }
    }
}
