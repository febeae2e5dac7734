//! A slab that gives memory back when few of its entries are left.

use slab::Slab;

/// A table keeps room for this many entries in any case.
const KEPT: usize = 64;

/// A table of entries, each at the index that `insert` returns.
pub(super) struct Table<T> {
    entries: Slab<T>,
    /// The capacity when it was last looked at.
    capacity: usize,
    /// With so few entries left, memory is given back. It is a share of the capacity, and half of
    /// the entries that are left if there was nothing to give back. So the work that this takes is
    /// in proportion to the entries that were inserted and removed.
    shrink_at: usize,
}

impl<T> Table<T> {
    pub(super) const fn new() -> Table<T> {
        Table {
            entries: Slab::new(),
            capacity: 0,
            shrink_at: 0,
        }
    }

    pub(super) fn insert(&mut self, entry: T) -> usize {
        let index = self.entries.insert(entry);
        if self.entries.capacity() != self.capacity {
            self.set_capacity();
        }
        index
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.entries.get_mut(index)
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<T> {
        let removed = self.entries.try_remove(index);
        if self.entries.len() <= self.shrink_at && self.capacity > KEPT {
            self.shrink();
        }
        removed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    fn set_capacity(&mut self) {
        self.capacity = self.entries.capacity();
        self.shrink_at = self.capacity / 8;
    }

    /// Gives memory back. An entry stays where it is, so what is before the last one stays, too.
    #[cold]
    fn shrink(&mut self) {
        if self.entries.is_empty() {
            self.entries = Slab::new();
        } else {
            self.entries.shrink_to_fit();
        }
        if self.entries.capacity() < self.capacity {
            self.set_capacity();
        } else {
            self.shrink_at = self.entries.len() / 2;
        }
    }
}
