//! What each thread is running just now, for reports of what is stuck.
//!
//! A thread notes it in a slot of its own, which nobody else writes; a report looks at all slots.

use super::prim::{Mutex, lock, thread_local};
use std::cell::OnceCell;
use std::panic::Location;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, PoisonError, Weak};

/// Where work was submitted.
pub(crate) type Site = &'static Location<'static>;

struct Slot {
    thread: Option<Box<str>>,
    /// What the thread runs; the innermost last.
    running: Mutex<Vec<Work>>,
    /// Changes when a poll begins and when one ends, and is odd in between. Written by its thread alone, if
    /// somebody wants to know.
    turn: AtomicU64,
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
    let slot = Arc::new(Slot {
        thread,
        running: Mutex::new(Vec::with_capacity(4)),
        turn: AtomicU64::new(0),
    });
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

/// How many want to know of polls; those of others are noted meanwhile, too.
static WATCHERS: AtomicUsize = AtomicUsize::new(0);

/// While it lives, each thread notes when a poll begins and ends.
pub(crate) struct PollsWatched(());

impl PollsWatched {
    pub(crate) fn new() -> Self {
        WATCHERS.fetch_add(1, Relaxed);
        PollsWatched(())
    }
}

impl Drop for PollsWatched {
    fn drop(&mut self) {
        WATCHERS.fetch_sub(1, Relaxed);
    }
}

/// The calling thread polls the work that it has noted last, while this lives.
pub(crate) struct Polling {
    /// What the turn was before, if anybody wants to know.
    before: Option<u64>,
}

impl Polling {
    #[inline]
    pub(crate) fn begin() -> Self {
        if WATCHERS.load(Relaxed) == 0 {
            return Polling { before: None };
        }
        Polling { before: turn(|turn| (turn + 1) | 1) }
    }
}

impl Drop for Polling {
    #[inline]
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // Inside another poll this thread goes on with that one.
            turn(|turn| turn + 1 + before % 2);
        }
    }
}

/// Has the thread take its next turn; what it was.
fn turn(next: impl FnOnce(u64) -> u64) -> Option<u64> {
    let take = |slot: &OnceCell<Arc<Slot>>| {
        let slot = slot.get()?;
        let turn = slot.turn.load(Relaxed);
        // Pairs with the load in `polls_of`.
        slot.turn.store(next(turn), Release);
        Some(turn)
    };
    SLOT.try_with(take).ok().flatten()
}

/// A poll that goes on.
pub(crate) struct Poll {
    pub(crate) work: Work,
    pub(crate) thread: Option<Box<str>>,
    slot: Weak<Slot>,
    turn: u64,
}

impl Poll {
    /// Whether it is the same poll.
    pub(crate) fn is(&self, other: &Poll) -> bool {
        self.turn == other.turn && Weak::ptr_eq(&self.slot, &other.slot)
    }
}

/// The polls of `owner` that go on.
pub(crate) fn polls_of(owner: usize) -> Vec<Poll> {
    let slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let poll_of = |slot: Arc<Slot>| {
        let turn = slot.turn.load(Acquire);
        let work = lock(&slot.running).last().copied()?;
        let thread = slot.thread.clone();
        let found = turn % 2 == 1 && work.owner == owner;
        found.then(|| Poll { work, thread, slot: Arc::downgrade(&slot), turn })
    };
    slots.iter().filter_map(Weak::upgrade).filter_map(poll_of).collect()
}
