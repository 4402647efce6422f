//! Hooks that are at work on this thread, so that none runs inside itself.

use crate::sync::prim::thread_local;
use std::cell::Cell;

/// How deep the hooks of different channels may be nested.
const DEPTH: usize = 8;

thread_local! {
    /// The keys of the hooks at work, 0 where there is none. Has no destructor, so that it is there
    /// for frames that are lost while the thread ends.
    static AT_WORK: Cell<[usize; DEPTH]> = const { Cell::new([0; DEPTH]) };
}

/// A hook at work, for as long as it lives.
pub(super) struct AtWork {
    place: usize,
}

impl AtWork {
    /// `None` if this hook is at work on this thread already, or too many others are.
    pub(super) fn begin<H>(hook: &H) -> Option<Self> {
        // Where the hook lies in its channel tells it from all others.
        let key = std::ptr::from_ref(hook).addr();
        let mut keys = AT_WORK.try_with(Cell::get).ok()?;
        let place = keys.iter().position(|other| *other == 0).filter(|_| !keys.contains(&key))?;
        keys[place] = key;
        let _ = AT_WORK.try_with(|all| all.set(keys));
        Some(AtWork { place })
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let _ = AT_WORK.try_with(|all| {
            let mut keys = all.get();
            keys[self.place] = 0;
            all.set(keys);
        });
    }
}
