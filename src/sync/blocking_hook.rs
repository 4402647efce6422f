//! Whom a thread tells that it is about to block: a pool, say, that lends the thread's place to
//! another.

use super::prim::thread_local;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Told about the waits of the thread that it is set for.
pub(crate) trait BlockingHook {
    /// The thread is about to wait.
    fn before_wait(&self);
    /// The thread goes on.
    fn after_wait(&self);
}

thread_local! {
    static HOOK: RefCell<Option<Arc<dyn BlockingHook>>> = const { RefCell::new(None) };
    /// Waits within waits: the outermost is told.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Sets the hook of this thread, for as long as the thread lives.
pub(crate) fn set_blocking_hook(hook: Arc<dyn BlockingHook>) {
    HOOK.with(|slot| *slot.borrow_mut() = Some(hook));
}

/// The thread counts as waiting while this lives.
pub(super) struct Waiting(Option<Arc<dyn BlockingHook>>);

impl Waiting {
    /// Called right before a wait, without a lock.
    pub(super) fn begin() -> Self {
        let hook = HOOK.try_with(|slot| slot.borrow().clone()).ok().flatten();
        if let Some(hook) = &hook {
            let depth = DEPTH.with(Cell::get);
            DEPTH.with(|cell| cell.set(depth + 1));
            if depth == 0 {
                hook.before_wait();
            }
        }
        Waiting(hook)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(hook) = &self.0 {
            let depth = DEPTH.with(Cell::get) - 1;
            DEPTH.with(|cell| cell.set(depth));
            if depth == 0 {
                hook.after_wait();
            }
        }
    }
}
