//! The locks, atomics, threads and clock of the crate: std's, or those of a model checker.
//!
//! loom has no clock, and thread-locals are the system's there, which all of a model's threads share.

#[cfg(callbridge_shuttle)]
pub(crate) use super::model::{Condvar, Instant};
#[cfg(callbridge_loom)]
pub(crate) use loom::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};
#[cfg(callbridge_shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
#[cfg(callbridge_shuttle)]
pub(crate) use shuttle::{thread, thread_local};
#[cfg(not(any(callbridge_loom, callbridge_shuttle)))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(any(callbridge_loom, callbridge_shuttle)))]
pub(crate) use std::thread;
#[cfg(not(callbridge_shuttle))]
pub(crate) use std::{thread_local, time::Instant};

use std::sync::PoisonError;

/// Locks, ignoring poison: no lock of this crate is ever held while foreign code can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what one side writes off the cache lines of what others read or write (two lines, because
/// processors fetch them in pairs).
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);
