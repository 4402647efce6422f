//! What a pool's worker does with its place while it waits: it lends it to another thread, so
//! that a job which waits for a later job of its own pool doesn't wait for ever.

use super::prim::thread_local;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// A place in a pool, held by the thread that works there.
pub(crate) trait Place {
    /// The thread is about to wait: somebody else may work meanwhile.
    fn leave(&self);
    /// The thread goes on.
    fn come_back(&self);
}

thread_local! {
    static PLACE: RefCell<Option<Arc<dyn Place>>> = const { RefCell::new(None) };
    /// Waits within waits: the outermost lends.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Makes `place` the place of this thread, for as long as the thread lives.
pub(crate) fn take_place(place: Arc<dyn Place>) {
    PLACE.with(|slot| *slot.borrow_mut() = Some(place));
}

/// The place is lent as long as this lives; nothing happens on a thread that has none.
pub(crate) struct Lent(Option<Arc<dyn Place>>);

/// Lends this thread's place. Called right before a wait, without a lock.
pub(crate) fn lend() -> Lent {
    let place = PLACE.try_with(|slot| slot.borrow().clone()).ok().flatten();
    if place.is_some() {
        let depth = DEPTH.with(Cell::get);
        DEPTH.with(|cell| cell.set(depth + 1));
        if let (0, Some(place)) = (depth, &place) {
            place.leave();
        }
    }
    Lent(place)
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(place) = &self.0 {
            let depth = DEPTH.with(Cell::get) - 1;
            DEPTH.with(|cell| cell.set(depth));
            if depth == 0 {
                place.come_back();
            }
        }
    }
}
