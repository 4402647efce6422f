//! Whether this thread is inside a callback.
//!
//! A number without a destructor: it can be used while the thread or the process exits, and costs no
//! allocation.

use std::cell::Cell;

std::thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Marks this thread as inside a callback for as long as it lives.
pub(super) struct Mark(());

impl Mark {
    pub(super) fn new() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Mark(())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Whether this thread is inside a callback that [`enter`](super::enter()) runs, which is what a
/// [`trampoline!`](crate::trampoline) does.
///
/// There, stopping the library is only asked for, never done: its stop function would wait for the
/// very thread that runs the callback.
///
/// # Examples
///
/// ```
/// use callbridge::ffi::{UserData, enter, in_callback};
///
/// let registration = UserData::new(());
/// let inside = enter::<(), _>(registration.as_ptr(), false, false, |_, _| Ok(in_callback()));
/// assert_eq!((inside, in_callback()), (true, false));
/// ```
#[must_use]
pub fn in_callback() -> bool {
    DEPTH.get() > 0
}
