//! The listeners of a node: what is notified when the node is done.

use std::task::Waker;

#[cfg(feature = "tokio-util")]
use super::deferred;
use crate::panic;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Weak};

/// A linked child, the waker of a task that waits for the end, or an observer of a cancellation.
pub(crate) enum Listener<C> {
    Child(Weak<C>),
    Waker(Waker),
    Observer(Weak<dyn CancelObserver>),
}

/// Is notified of a cancellation, in the thread that cancels. Unlike a waker it needs no allocation
/// of its own. It is weak in the list, because it may own the context.
pub(crate) trait CancelObserver: Send + Sync {
    fn cancelled(self: Arc<Self>);
}

enum Entry<C> {
    Used(Listener<C>),
    /// Holds the index of the next free entry, or `NONE`.
    Free(usize),
}

const NONE: usize = usize::MAX;

/// A slab of listeners. Freed entries are reused, so it never grows beyond the peak number of
/// listeners. When the last listener is removed, a large allocation is released.
///
/// A key from before the list was collected or replaced finds nothing.
pub(crate) struct Listeners<C> {
    entries: Vec<Entry<C>>,
    free: usize,
    len: usize,
    /// Not an entry of the slab: it is looked up without a key, and cancelled after the wakers of
    /// this node.
    #[cfg(feature = "tokio-util")]
    token: Option<tokio_util::sync::CancellationToken>,
}

/// The allocation is kept for reuse if it has room for no more entries than this.
const KEPT: usize = 32;

impl<C> Listeners<C> {
    pub(crate) const fn new() -> Listeners<C> {
        Listeners {
            entries: Vec::new(),
            free: NONE,
            len: 0,
            #[cfg(feature = "tokio-util")]
            token: None,
        }
    }

    /// Returns true if there is nothing to notify.
    pub(crate) fn is_empty(&self) -> bool {
        #[cfg(feature = "tokio-util")]
        if self.token.is_some() {
            return false;
        }
        self.len == 0
    }

    /// Adds a listener and returns its key.
    pub(crate) fn insert(&mut self, listener: Listener<C>) -> usize {
        self.len += 1;
        let key = self.free;
        match self.entries.get_mut(key) {
            Some(entry) => {
                if let Entry::Free(next) = *entry {
                    self.free = next;
                }
                *entry = Entry::Used(listener);
                key
            }
            None => {
                self.entries.push(Entry::Used(listener));
                self.entries.len() - 1
            }
        }
    }

    /// Removes the listener at `key` and returns it, so that it is dropped without the lock.
    /// Returns `None` for a listener that has been collected, or dropped with the whole list.
    pub(crate) fn remove(&mut self, key: usize) -> Option<Listener<C>> {
        let entry = self.entries.get_mut(key)?;
        if let Entry::Free(_) = entry {
            return None;
        }
        let Entry::Used(listener) = std::mem::replace(entry, Entry::Free(self.free)) else {
            return None;
        };
        self.free = key;
        self.len -= 1;
        if self.len == 0 {
            self.free = NONE;
            self.entries.clear();
            if self.entries.capacity() > KEPT {
                self.entries = Vec::new();
            }
        }
        Some(listener)
    }

    /// Returns true if the waker at `key` wakes the same task as `waker`, or if there is no waker
    /// any more: in both cases nothing needs to be replaced.
    pub(crate) fn will_wake(&self, key: usize, waker: &Waker) -> bool {
        match self.entries.get(key) {
            Some(Entry::Used(Listener::Waker(current))) => current.will_wake(waker),
            _ => true,
        }
    }

    /// Replaces the waker at `key`, and returns the one that is not needed: the old one, or `waker`
    /// itself if the old one has been taken.
    pub(crate) fn replace_waker(&mut self, key: usize, waker: Waker) -> Waker {
        match self.entries.get_mut(key) {
            Some(Entry::Used(Listener::Waker(current))) => std::mem::replace(current, waker),
            _ => waker,
        }
    }

    /// Moves the wakers, the observers and the token to `wakeups`, and adds the children that are
    /// still alive to `children`. The children stay in the list, since a second canceller must find
    /// them again.
    pub(crate) fn collect(&mut self, wakeups: &mut Vec<Wakeup>, children: &mut Vec<Arc<C>>) {
        let taken = || Entry::Free(NONE);
        for entry in &mut self.entries {
            match entry {
                Entry::Used(Listener::Child(child)) => children.extend(child.upgrade()),
                Entry::Used(Listener::Waker(_) | Listener::Observer(_)) => {
                    match std::mem::replace(entry, taken()) {
                        Entry::Used(Listener::Waker(waker)) => wakeups.push(Wakeup::Waker(waker)),
                        Entry::Used(Listener::Observer(observer)) => {
                            wakeups.push(Wakeup::Observer(observer));
                        }
                        Entry::Used(Listener::Child(_)) | Entry::Free(_) => {}
                    }
                }
                Entry::Free(_) => {}
            }
        }
        #[cfg(feature = "tokio-util")]
        wakeups.extend(self.token.take().map(Wakeup::Token));
    }
}

#[cfg(feature = "tokio-util")]
impl<C> Listeners<C> {
    /// Returns the token, if there is one.
    pub(crate) fn token(&self) -> Option<tokio_util::sync::CancellationToken> {
        self.token.clone()
    }

    /// Returns the token. Stores `new` as the token if there is none.
    pub(crate) fn token_or(
        &mut self,
        new: tokio_util::sync::CancellationToken,
    ) -> tokio_util::sync::CancellationToken {
        self.token.get_or_insert(new).clone()
    }
}

/// Where a node keeps the key of its own entry among the listeners of a node above.
///
/// It holds the key plus one, or 0 for none. Nothing else is published through it: the listeners
/// are read and changed under their lock.
pub(crate) struct ListenerKey(AtomicUsize);

impl ListenerKey {
    pub(crate) fn none() -> ListenerKey {
        ListenerKey(AtomicUsize::new(0))
    }

    /// Keeps `key` unless it keeps another one, and returns whether it did.
    ///
    /// A compare-and-exchange, since two threads may link one node: the key of the first is kept,
    /// and the second removes its own entry. Pairs with `take`.
    pub(crate) fn set_if_none(&self, key: usize) -> bool {
        self.0
            .compare_exchange(0, key + 1, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Keeps `key`, for a node that only this thread can link. `Release` pairs with `take`.
    pub(crate) fn set(&self, key: usize) {
        self.0.store(key + 1, Ordering::Release);
    }

    /// Takes the key. The thread that gets it removes the entry.
    ///
    /// The swap gives the key to one thread only: a second removal would hit another listener, to
    /// which the freed entry has been given since. The load before it saves the write where there
    /// is no key. Both pair with `set` and `set_if_none`.
    pub(crate) fn take(&self) -> Option<usize> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            _ => self.0.swap(0, Ordering::AcqRel).checked_sub(1),
        }
    }
}

/// A waker to wake, an observer to notify, or a token to cancel, once every lock is released.
pub(crate) enum Wakeup {
    Waker(Waker),
    Observer(Weak<dyn CancelObserver>),
    #[cfg(feature = "tokio-util")]
    Token(tokio_util::sync::CancellationToken),
}

/// Performs all wake-ups, even if some of them panic. Resumes the first panic after the last
/// wake-up.
pub(crate) fn wake_all(wakeups: Vec<Wakeup>) {
    let mut first = None;
    for wakeup in wakeups {
        let woken = panic::catch(|| match wakeup {
            Wakeup::Waker(waker) => waker.wake(),
            Wakeup::Observer(observer) => {
                if let Some(observer) = observer.upgrade() {
                    observer.cancelled();
                }
            }
            #[cfg(feature = "tokio-util")]
            Wakeup::Token(token) => deferred::cancel(&token),
        });
        match woken {
            Err(payload) if first.is_none() => first = Some(payload),
            Err(payload) => panic::discard(payload),
            Ok(()) => {}
        }
    }
    if let Some(payload) = first {
        panic::resume(payload);
    }
}
