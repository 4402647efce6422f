//! The locks and atomics of the crate: std's, or loom's when the model checks are built.

#[cfg(callbridge_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(callbridge_loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

use std::sync::PoisonError;

/// Locks, ignoring poison: no lock of this crate is ever held while foreign code can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what one side writes off the cache lines of what others read or write (two lines, because
/// processors fetch them in pairs).
#[repr(align(128))]
pub(crate) struct OwnLine<T>(pub(crate) T);
