//! What each thread is running just now, for reports of what is stuck.
//!
//! A thread notes it in a slot of its own, which nobody else writes; a report looks at all slots.

use super::prim::{Mutex, lock, thread_local};
use std::cell::OnceCell;
use std::panic::Location;
use std::sync::{Arc, PoisonError, Weak};

/// Where work was submitted.
pub(crate) type Site = &'static Location<'static>;

struct Slot {
    thread: Option<Box<str>>,
    /// What the thread runs; the innermost last.
    running: Mutex<Vec<Work>>,
}

/// Work that a thread runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    /// Whose it is, and which of theirs, by their addresses.
    pub(crate) owner: usize,
    pub(crate) id: usize,
    pub(crate) site: Site,
}

#[cfg(not(callbridge_shuttle))]
static SLOTS: std::sync::Mutex<Vec<Weak<Slot>>> = std::sync::Mutex::new(Vec::new());

// Of one execution: a lock of another one's isn't to be touched.
#[cfg(callbridge_shuttle)]
shuttle::lazy_static! {
    static ref SLOTS: std::sync::Mutex<Vec<Weak<Slot>>> = std::sync::Mutex::new(Vec::new());
}

thread_local! {
    static SLOT: OnceCell<Arc<Slot>> = const { OnceCell::new() };
}

fn register() -> Arc<Slot> {
    let thread = std::thread::current().name().map(Box::from);
    let slot = Arc::new(Slot { thread, running: Mutex::new(Vec::with_capacity(4)) });
    let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    slots.retain(|slot| slot.strong_count() > 0);
    slots.push(Arc::downgrade(&slot));
    drop(slots);
    slot
}

/// The calling thread is running work of `owner` while this lives.
pub(crate) struct Running(());

impl Running {
    #[inline]
    pub(crate) fn note(work: Work) -> Self {
        // loom's threads share one of the system's.
        if !cfg!(callbridge_loom) {
            let note = |slot: &OnceCell<Arc<Slot>>| {
                lock(&slot.get_or_init(register).running).push(work);
            };
            let _ = SLOT.try_with(note);
        }
        Running(())
    }
}

impl Drop for Running {
    #[inline]
    fn drop(&mut self) {
        if !cfg!(callbridge_loom) {
            let _ = SLOT.try_with(|slot| slot.get().map(|slot| lock(&slot.running).pop()));
        }
    }
}

/// What the calling thread is running, the innermost of it.
pub(crate) fn innermost() -> Option<Work> {
    let last = |slot: &OnceCell<Arc<Slot>>| lock(&slot.get()?.running).last().copied();
    SLOT.try_with(last).ok().flatten()
}

/// What threads are running for `owner`, and their names.
pub(crate) fn running_for(owner: usize) -> Vec<(Work, Option<Box<str>>)> {
    let slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut found = Vec::new();
    for slot in slots.iter().filter_map(Weak::upgrade) {
        let running = lock(&slot.running);
        let own = running.iter().filter(|work| work.owner == owner);
        found.extend(own.map(|work| (*work, slot.thread.clone())));
    }
    found
}
