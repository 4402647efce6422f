//! Calls that wait to be woken: how a cancel and a close reach them.
//!
//! Invariants:
//! 1. Once `aborted`, nobody is in the list, and nobody enters it: who would ends instead.
//! 2. `flag` is stored before the wakers are taken, and looked at when a poll begins. A wake of a task
//!    that is about to be polled does nothing, but that poll sees the flag.
//! 3. Wakers are woken, cloned and dropped after the lock is released.

use crate::sync::prim::atomic::{AtomicBool, Ordering};
use crate::sync::prim::{Mutex, lock};
use crate::sync::wake;
use slab::Slab;
use std::task::Waker;

/// Room for so many is kept when a burst is over; what is beyond goes back.
const KEPT_ROOM: usize = 1024;

pub(super) struct Suspended {
    list: Mutex<List>,
    flag: AtomicBool,
}

struct List {
    wakers: Slab<Waker>,
    aborted: bool,
}

impl Suspended {
    pub(super) fn new() -> Self {
        let list = List { wakers: Slab::new(), aborted: false };
        Suspended { list: Mutex::new(list), flag: AtomicBool::new(false) }
    }

    /// Pairs with the store in `abort`, see invariant 2.
    pub(super) fn is_aborted(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Enters a call; `None` if it is to end.
    pub(super) fn enter(&self, waker: Waker) -> Option<u32> {
        let mut list = lock(&self.list);
        if list.aborted || list.wakers.len() >= u32::MAX as usize {
            drop(list);
            drop(waker);
            return None;
        }
        Some(list.wakers.insert(waker) as u32)
    }

    /// Forgets a call that has ended.
    pub(super) fn leave(&self, place: u32) {
        let mut list = lock(&self.list);
        let waker = list.wakers.try_remove(place as usize);
        let surplus = list.wakers.is_empty() && list.wakers.capacity() > KEPT_ROOM;
        let surplus = surplus.then(|| std::mem::take(&mut list.wakers));
        drop(list);
        drop((waker, surplus));
    }

    /// Wakes a call, if it is still there; its place can have another tenant by now.
    pub(super) fn wake(&self, place: u32) {
        // A task's and a parker's waker is cloned by counting up: no user's code under the lock.
        let waker = lock(&self.list).wakers.get(place as usize).cloned();
        waker.into_iter().for_each(wake);
    }

    /// Lets nobody in any more; the wakers of those who are in.
    pub(super) fn abort(&self) -> Vec<Waker> {
        // Pairs with the load in `is_aborted`; before the list is emptied (2).
        self.flag.store(true, Ordering::Release);
        let mut list = lock(&self.list);
        list.aborted = true;
        let wakers = std::mem::take(&mut list.wakers);
        drop(list);
        wakers.into_iter().map(|(_, waker)| waker).collect()
    }
}
