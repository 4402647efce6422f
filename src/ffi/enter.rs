//! What every trampoline runs: from the foreign thread to the handler and back.

use super::cancel::CancelOff;
use super::gate::Left;
use super::mark::Mark;
use super::registry::{self, Key};
use super::user_data::Held;
use super::view::BadArgument;
use crate::sync::{contain, discard, report};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

static NULL: AtomicU64 = AtomicU64::new(0);
static UNKNOWN: AtomicU64 = AtomicU64::new(0);
static LATE: AtomicU64 = AtomicU64::new(0);
static BAD_ARGUMENTS: AtomicU64 = AtomicU64::new(0);
static PANICKED: AtomicU64 = AtomicU64::new(0);
pub(super) static ORPHANED: AtomicU64 = AtomicU64::new(0);

/// What happened to C's calls in this process so far, apart from those that were handled.
///
/// # Examples
///
/// ```
/// let before = callbridge::ffi::process_stats();
/// assert_eq!(before.null, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessStats {
    /// Swallowed: the user data was NULL.
    pub null: u64,
    /// Swallowed: the user data is no pointer that a [`UserData`](super::UserData) gave, or one of
    /// another type.
    pub unknown: u64,
    /// Swallowed: the gate was shut, or the registration over.
    pub late: u64,
    /// Swallowed: an argument was [bad](BadArgument).
    pub bad_arguments: u64,
    /// The handler panicked.
    pub panicked: u64,
    /// Values that were left to the last call inside, because it outlasted their
    /// [`UserData`](super::UserData).
    pub orphaned: u64,
}

/// What happened to C's calls in this process so far, apart from those that were handled.
#[must_use]
pub fn process_stats() -> ProcessStats {
    ProcessStats {
        null: NULL.load(Relaxed),
        unknown: UNKNOWN.load(Relaxed),
        late: LATE.load(Relaxed),
        bad_arguments: BAD_ARGUMENTS.load(Relaxed),
        panicked: PANICKED.load(Relaxed),
        orphaned: ORPHANED.load(Relaxed),
    }
}

/// Runs `body` on the value behind `user_data`: what a [`trampoline!`](crate::trampoline) expands to.
///
/// Any pointer may come, since it is looked up and never followed. While `body` runs,
/// `pthread_cancel` waits, [`in_callback`](super::in_callback) is true and the value stays. Returns
/// `panicked` after a panic; `swallowed`, without running the handler, for a call that is late, that
/// has no or no known user data, or whose arguments `body` refuses.
pub fn enter<T: Send + Sync + 'static, R>(
    user_data: *mut c_void,
    swallowed: R,
    panicked: R,
    body: impl FnOnce(&T) -> Result<R, BadArgument>,
) -> R {
    let _cancel_off = CancelOff::new();
    if user_data.is_null() {
        NULL.fetch_add(1, Relaxed);
        return swallowed;
    }
    let Some((key, slot)) =
        Key::from_ptr(user_data).and_then(|key| Some((key, registry::find(key)?)))
    else {
        UNKNOWN.fetch_add(1, Relaxed);
        return swallowed;
    };
    let Some(inside) = slot.gate.enter(key.generation) else {
        LATE.fetch_add(1, Relaxed);
        if slot.gate.generation() == key.generation {
            slot.late.fetch_add(1, Relaxed);
        }
        return swallowed;
    };
    let mark = Mark::new(key);
    let answer = inside.with(|value| match value.downcast_ref::<Held<T>>() {
        Some(held) => call(held, swallowed, panicked, body),
        None => {
            UNKNOWN.fetch_add(1, Relaxed);
            swallowed
        }
    });
    if let Left::Free(value) = inside.leave() {
        contain("a user-data destructor", || drop(value));
        registry::recycle(key);
    }
    drop(mark);
    answer
}

fn call<T, R>(
    held: &Held<T>,
    swallowed: R,
    panicked: R,
    body: impl FnOnce(&T) -> Result<R, BadArgument>,
) -> R {
    held.calls.fetch_add(1, Relaxed);
    match catch_unwind(AssertUnwindSafe(|| body(&held.value))) {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => {
            BAD_ARGUMENTS.fetch_add(1, Relaxed);
            held.bad_arguments.fetch_add(1, Relaxed);
            swallowed
        }
        Err(payload) => {
            PANICKED.fetch_add(1, Relaxed);
            held.panicked.fetch_add(1, Relaxed);
            report("a C callback", payload.as_ref());
            if let Some(hook) = &held.on_panic {
                let message = crate::sync::panic_message(payload.as_ref());
                contain("a panic hook", || hook(&held.value, message));
            }
            discard(payload);
            panicked
        }
    }
}
