//! The gate in front of a value that C's threads use: who may look at it, and who frees it.
//!
//! Invariants:
//! 1. `value` is read only by a call that counts as inside, and a call gets inside only through a
//!    gate that is open, of the generation that it names.
//! 2. `value` is written only in a state that just one thread can reach and that lets nobody in:
//!    `BUSY`, claimed by a compare-exchange from `FREE` or from shut with nobody inside, or by the
//!    last call to leave an `ORPHAN`.
//! 3. The last call inside a shut gate wakes the owner, or takes the value if the owner is gone:
//!    the word that it decremented tells which, so never both and never neither.
//! 4. A gate is never freed while a pointer that names it can be with C, only used again under
//!    the next generation. The lock is held for the swap of the waker and nothing else: wakers are
//!    cloned, woken and dropped outside.
#![allow(unsafe_code)]

use crate::sync::contain;
use crate::sync::prim::atomic::AtomicU64;
use crate::sync::prim::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::prim::{Mutex, lock};
use std::task::Waker;

#[cfg(callbridge_loom)]
use loom::cell::UnsafeCell;
#[cfg(not(callbridge_loom))]
use plain::UnsafeCell;

#[cfg(not(callbridge_loom))]
mod plain {
    /// std's cell with the calls of loom's.
    #[derive(Debug)]
    pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) fn new(value: T) -> Self {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}

const SHUT: u64 = 1 << 31;
/// The owner is gone: the last call frees the value.
const ORPHAN: u64 = 1 << 30;
/// One thread is putting the value in or taking it out.
const BUSY: u64 = 1 << 29;
/// There is no value.
const FREE: u64 = 1 << 28;
const INSIDE: u64 = FREE - 1;
const GENERATION: u32 = 32;

/// Generations run from 1 to this, and then from 1 again. With the index of the gate they fit into
/// the pointer that C holds.
pub(super) const LAST_GENERATION: u32 =
    if usize::BITS < 64 { (1 << 16) - 1 } else { (1 << 23) - 1 };

fn generation(state: u64) -> u32 {
    (state >> GENERATION) as u32
}

pub(super) struct Gate<V> {
    /// The generation in the upper half; the flags and the number of calls inside in the lower.
    state: AtomicU64,
    /// What calls inside look at.
    value: UnsafeCell<Option<V>>,
    /// Who waits for the last call to leave.
    waiter: Mutex<Option<Waker>>,
}

// SAFETY: the value moves between threads (`Send`) and is looked at by several at once (`Sync`);
// its cell is otherwise touched by one thread at a time, by invariant 2.
unsafe impl<V: Send + Sync> Sync for Gate<V> {}

/// What became of the value when its owner let go.
pub(super) enum Released<V> {
    Value(V),
    /// Calls are inside: the last of them frees it.
    Left,
}

/// What the last of a kind of calls has to do after it left.
pub(super) enum Left<V> {
    Nothing,
    /// The owner is gone: drop the value, and use the gate again.
    Free(V),
}

impl<V> Gate<V> {
    pub(super) fn new() -> Self {
        Gate {
            state: AtomicU64::new(SHUT | FREE),
            value: UnsafeCell::new(None),
            waiter: Mutex::new(None),
        }
    }

    /// Puts a value behind a free gate and opens it under the next generation.
    ///
    /// Gives the value back if the gate isn't free.
    pub(super) fn open(&self, value: V) -> Result<u32, V> {
        let before = self.state.load(Relaxed);
        let claimed = (before & !FREE) | BUSY;
        // (2): pairs with the store in `take`, so that the old value is out before a new one is put in.
        if before & FREE == 0
            || self.state.compare_exchange(before, claimed, Acquire, Relaxed).is_err()
        {
            return Err(value);
        }
        // SAFETY: `BUSY` was claimed from `FREE` just above: nobody else touches the cell
        // (invariant 2).
        self.value.with_mut(|cell| unsafe { *cell = Some(value) });
        let next = generation(before) % LAST_GENERATION + 1;
        // (1): pairs with the exchange in `enter`: who gets in sees the value.
        self.state.store(u64::from(next) << GENERATION, Release);
        Ok(next)
    }

    /// Lets a call in, unless the gate is shut or of another generation.
    pub(super) fn enter(&self, wanted: u32) -> Option<Inside<'_, V>> {
        let mut state = self.state.load(Relaxed);
        loop {
            if generation(state) != wanted || state & SHUT != 0 || state & INSIDE == INSIDE {
                return None;
            }
            // (1): pairs with the store in `open`.
            match self.state.compare_exchange_weak(state, state + 1, Acquire, Relaxed) {
                Ok(_) => return Some(Inside { gate: self }),
                Err(now) => state = now,
            }
        }
    }

    /// Lets nobody in any more. Whether it was this call that shut the gate.
    ///
    /// For the owner of the open generation alone. (3): in one order with the entries and the leaves.
    pub(super) fn shut(&self) -> bool {
        self.state.fetch_or(SHUT, AcqRel) & SHUT == 0
    }

    /// Pairs with `shut`.
    pub(super) fn is_shut(&self) -> bool {
        self.state.load(Acquire) & SHUT != 0
    }

    /// Pairs with `leave`, as in `is_idle`.
    pub(super) fn inside(&self) -> usize {
        (self.state.load(Acquire) & INSIDE) as usize
    }

    /// Whether the gate is shut and nobody inside; if not, `waker` is told when that is so.
    pub(super) fn idle_or_tell(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let old = lock(&self.waiter).replace(waker);
        drop(old);
        let idle = self.is_idle();
        if idle {
            self.forget_waiter();
        }
        idle
    }

    /// Whether the gate is shut and nobody inside. Pairs with the subtraction in `leave`: what the calls did
    /// has been done.
    pub(super) fn is_idle(&self) -> bool {
        self.state.load(Acquire) & (SHUT | INSIDE) == SHUT
    }

    /// Whoever waited has given up, or has no reason to wait any more.
    pub(super) fn forget_waiter(&self) {
        let waiter = lock(&self.waiter).take();
        contain("a waker", || drop(waiter));
    }

    /// The owner lets go: shuts the gate and takes the value, or leaves it to the last call.
    pub(super) fn release(&self) -> Released<V> {
        self.shut();
        let mut state = self.state.load(Acquire);
        loop {
            let idle = state & INSIDE == 0;
            let next = if idle { state | BUSY } else { state | ORPHAN };
            // (2), (3): pairs with the subtraction in `leave`, which either was before and left the gate
            // idle, or comes later and finds `ORPHAN`.
            match self.state.compare_exchange_weak(state, next, AcqRel, Acquire) {
                Ok(_) if idle => return self.take().map_or(Released::Left, Released::Value),
                Ok(_) => return Released::Left,
                Err(now) => state = now,
            }
        }
    }

    /// Takes the value out and frees the gate, for the one thread that made it `BUSY` (or that is
    /// the last to leave an orphan).
    fn take(&self) -> Option<V> {
        // SAFETY: shut and nobody inside, so no call reads the cell; and the caller is the one
        // thread that may write it (invariant 2).
        let value = self.value.with_mut(|cell| unsafe { (*cell).take() });
        self.forget_waiter();
        let state = self.state.load(Relaxed);
        let generation = state & !((1 << GENERATION) - 1);
        // (2): pairs with the exchange in `open`.
        self.state.store(generation | SHUT | FREE, Release);
        value
    }

    fn leave(&self) -> Left<V> {
        // (3): releases what this call did to whoever finds the gate idle; the last one acquires it.
        let after = self.state.fetch_sub(1, AcqRel) - 1;
        match after & (SHUT | ORPHAN | INSIDE) {
            SHUT => {
                let waiter = lock(&self.waiter).take();
                if let Some(waiter) = waiter {
                    contain("a waker", || waiter.wake());
                }
                Left::Nothing
            }
            all if all == SHUT | ORPHAN => self.take().map_or(Left::Nothing, Left::Free),
            _ => Left::Nothing,
        }
    }
}

/// A call that is inside. Forgetting it keeps the value for ever, which is safe.
pub(super) struct Inside<'a, V> {
    gate: &'a Gate<V>,
}

impl<V> Inside<'_, V> {
    /// Lends the value for as long as the call is inside.
    pub(super) fn with<R>(&self, look: impl FnOnce(&V) -> R) -> R {
        self.gate.value.with(|cell| {
            // SAFETY: this call is inside, so the cell holds a value and nobody writes it
            // (invariants 1 and 2); the borrow ends with `look`, before `leave`.
            let value = unsafe { (*cell).as_ref() };
            look(value.expect("a call is only inside where there is a value"))
        })
    }

    pub(super) fn leave(self) -> Left<V> {
        self.gate.leave()
    }
}
