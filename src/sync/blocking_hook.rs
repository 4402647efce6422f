//! Whom a thread tells that it is about to block: a pool, say, that lends the thread's place to
//! another.

use super::Deadline;
use super::prim::thread_local;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::Waker;

/// Told about the waits of the thread that it is set for.
pub(crate) trait BlockingHook {
    /// The thread is about to wait.
    fn before_wait(&self);
    /// The thread goes on; it may be held up until the deadline that its wait had.
    fn after_wait(&self, deadline: Deadline);

    /// Whether that work, by its id, waits for this very thread; if it comes to that, `waker` is woken.
    fn would_deadlock(&self, _work: usize, _waker: &Waker) -> bool {
        false
    }
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

fn hook() -> Option<Arc<dyn BlockingHook>> {
    HOOK.try_with(|slot| slot.borrow().clone()).ok().flatten()
}

/// Whether this thread would wait for work that waits for this thread, see [`BlockingHook`].
pub(crate) fn would_deadlock(work: usize, waker: &Waker) -> bool {
    hook().is_some_and(|hook| hook.would_deadlock(work, waker))
}

/// The thread counts as waiting while this lives.
pub(super) struct Waiting {
    hook: Option<Arc<dyn BlockingHook>>,
    deadline: Deadline,
}

impl Waiting {
    /// Called right before a wait, without a lock.
    pub(super) fn begin(deadline: Deadline) -> Self {
        let hook = hook();
        if let Some(hook) = &hook {
            let depth = DEPTH.with(Cell::get);
            DEPTH.with(|cell| cell.set(depth + 1));
            if depth == 0 {
                hook.before_wait();
            }
        }
        Waiting { hook, deadline }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(hook) = &self.hook {
            let depth = DEPTH.with(Cell::get) - 1;
            DEPTH.with(|cell| cell.set(depth));
            if depth == 0 {
                hook.after_wait(self.deadline);
            }
        }
    }
}
