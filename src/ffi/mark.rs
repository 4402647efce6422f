//! Which registrations this thread is inside of.
//!
//! A plain array without a destructor: it can be used while the thread or the process exits, and
//! costs no allocation.

use super::registry::Key;
use std::cell::Cell;

const REMEMBERED: usize = 8;

std::thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static INSIDE: [Cell<Option<Key>>; REMEMBERED] = const { [const { Cell::new(None) }; REMEMBERED] };
}

/// Marks this thread as inside `key` for as long as it lives.
pub(super) struct Mark(());

impl Mark {
    pub(super) fn new(key: Key) -> Self {
        let depth = DEPTH.get();
        INSIDE.with(|inside| {
            if let Some(place) = inside.get(depth) {
                place.set(Some(key));
            }
        });
        DEPTH.set(depth + 1);
        Mark(())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Whether this thread is inside a callback of `key`, or too deep to remember which.
pub(super) fn is_inside(key: Key) -> bool {
    let depth = DEPTH.get();
    depth > REMEMBERED
        || INSIDE.with(|inside| inside[..depth].iter().any(|place| place.get() == Some(key)))
}

/// Whether this thread is inside a callback that a [`trampoline!`](crate::trampoline) made.
///
/// There, stopping the library is only asked for, never done: its stop function would wait for the
/// very thread that runs the callback.
///
/// # Examples
///
/// ```
/// assert!(!callbridge::ffi::in_callback());
/// ```
#[must_use]
pub fn in_callback() -> bool {
    DEPTH.get() > 0
}
