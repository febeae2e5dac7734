//! The only door to locks and atomics.
//!
//! Every core takes its primitives from here, so that one alias decides whether they are std's or a model checker's.
//! A lock here is never poisoned: no user code runs under one, so a panic cannot leave its data half-changed.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::{Arc, OnceLock, Weak, atomic};

use std::sync::{self, PoisonError};

pub(crate) use std::sync::MutexGuard;

/// A mutex whose `lock` cannot fail.
pub(crate) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Mutex(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// For `Debug`, which never blocks.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(sync::TryLockError::WouldBlock) => None,
        }
    }
}
