//! Who is in flight: the limit, the books, and the wait for the last one out.
//!
//! Submitters write one cache line and the loop another, so that neither waits for the other's
//! line: submitters look at the loop's only when their last look no longer shows a free slot.
//!
//! Invariants:
//! 1. `admitted` counts the calls let in, the columns of `ended` those let out; a call is let in
//!    before it is let out, so their difference, read in the order ended, admitted, is never less
//!    than what is in flight.
//! 2. `seen_ended` lags behind the columns: a stale view shows too few free slots, never too many.
//! 3. A release writes its column, then (after a full fence) reads `asleep`; a sleeper raises
//!    `asleep`, then (after a full fence) reads the columns. One of the two sees the other, and the
//!    sleeper holds `bed` from its look to its sleep: no signal falls between.
//! 4. `CLOSED` is a bit of `admitted`: once it is set, no compare-exchange of an admission succeeds.

use super::stats::BridgeStats;
use crate::future::Failure;
use crate::sync::context::drives_a_loop;
use crate::sync::prim::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use crate::sync::prim::atomic::{AtomicU64, AtomicUsize, fence};
use crate::sync::prim::{Condvar, Mutex, MutexGuard, OwnLine, lock};
use crate::sync::{Deadline, lend};
use std::sync::PoisonError;

/// Set in `admitted` when nobody is let in any more.
const CLOSED: u64 = 1;
/// One call in `admitted`.
const ONE: u64 = 2;

pub(super) struct Ledger {
    entrance: OwnLine<Entrance>,
    exit: OwnLine<Exit>,
    /// How many threads sleep, or are about to.
    asleep: OwnLine<AtomicUsize>,
    bed: Mutex<Bed>,
    /// Where submitters wait for a slot.
    slot_freed: Condvar,
    /// Where closers wait for the last call.
    drained: Condvar,
    /// The most calls in flight; `u64::MAX` for no limit.
    limit: u64,
}

/// What submitters write.
struct Entrance {
    admitted: AtomicU64,
    seen_ended: AtomicU64,
    high_water: AtomicU64,
    refused: AtomicU64,
}

/// What the loop writes.
struct Exit {
    finished: AtomicU64,
    cancelled: AtomicU64,
    panicked: AtomicU64,
    loop_closed: AtomicU64,
}

/// Who sleeps.
struct Bed {
    submitters: usize,
    closers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Full,
    Closed,
    WouldDeadlock,
}

impl Ledger {
    /// A ledger that lets `limit` calls in at once; `usize::MAX` for no limit.
    pub(super) fn new(limit: usize) -> Self {
        Ledger {
            entrance: OwnLine(Entrance {
                admitted: AtomicU64::new(0),
                seen_ended: AtomicU64::new(0),
                high_water: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            }),
            exit: OwnLine(Exit {
                finished: AtomicU64::new(0),
                cancelled: AtomicU64::new(0),
                panicked: AtomicU64::new(0),
                loop_closed: AtomicU64::new(0),
            }),
            asleep: OwnLine(AtomicUsize::new(0)),
            bed: Mutex::new(Bed { submitters: 0, closers: 0 }),
            slot_freed: Condvar::new(),
            drained: Condvar::new(),
            limit: if limit == usize::MAX { u64::MAX } else { limit as u64 },
        }
    }

    pub(super) fn limit(&self) -> Option<usize> {
        (self.limit != u64::MAX).then_some(self.limit as usize)
    }

    pub(super) fn stats(&self) -> BridgeStats {
        let exit = &self.exit.0;
        let (finished, cancelled) = (exit.finished.load(Acquire), exit.cancelled.load(Acquire));
        let (panicked, loop_closed) = (exit.panicked.load(Acquire), exit.loop_closed.load(Acquire));
        let submitted = self.entrance.0.admitted.load(Acquire) / ONE;
        let ended = finished + cancelled + panicked + loop_closed;
        BridgeStats {
            submitted,
            finished,
            cancelled,
            panicked,
            loop_closed,
            in_flight: (submitted - ended) as usize,
            high_water: self.entrance.0.high_water.load(Acquire) as usize,
            refused: self.entrance.0.refused.load(Acquire),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        let ended = self.ended();
        (self.entrance.0.admitted.load(Acquire) / ONE - ended) as usize
    }

    /// How many calls have ended so far.
    pub(super) fn ended(&self) -> u64 {
        let exit = &self.exit.0;
        exit.finished.load(Acquire)
            + exit.cancelled.load(Acquire)
            + exit.panicked.load(Acquire)
            + exit.loop_closed.load(Acquire)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.entrance.0.admitted.load(Acquire) & CLOSED != 0
    }

    /// Lets a call in if there is room.
    pub(super) fn try_admit(&self) -> Result<(), Refusal> {
        self.admit_now().inspect_err(|_| self.count_refusal())
    }

    /// Lets a call in, waiting for a slot until the deadline.
    pub(super) fn admit(&self, deadline: Deadline) -> Result<(), Refusal> {
        let mut admitted = self.admit_now();
        if admitted == Err(Refusal::Full) && !deadline.passed() {
            admitted = if drives_a_loop() {
                Err(Refusal::WouldDeadlock)
            } else {
                let _lent = lend();
                self.wait_for_slot(deadline)
            };
        }
        admitted.inspect_err(|_| self.count_refusal())
    }

    fn admit_now(&self) -> Result<(), Refusal> {
        let entrance = &self.entrance.0;
        let mut word = entrance.admitted.load(Acquire);
        loop {
            if word & CLOSED != 0 {
                return Err(Refusal::Closed);
            }
            let admitted = word / ONE;
            let high_water = entrance.high_water.load(Relaxed);
            let mut in_flight = admitted.saturating_sub(entrance.seen_ended.load(Relaxed));
            if in_flight >= self.limit.min(high_water) {
                let ended = self.ended();
                entrance.seen_ended.fetch_max(ended, Relaxed);
                in_flight = admitted.saturating_sub(ended);
                if in_flight >= self.limit {
                    return Err(Refusal::Full);
                }
            }
            match entrance.admitted.compare_exchange_weak(word, word + ONE, AcqRel, Acquire) {
                Ok(_) => {
                    if in_flight >= high_water {
                        entrance.high_water.fetch_max(in_flight + 1, Relaxed);
                    }
                    return Ok(());
                }
                Err(now) => word = now,
            }
        }
    }

    fn wait_for_slot(&self, deadline: Deadline) -> Result<(), Refusal> {
        let mut bed = self.lie_down();
        bed.submitters += 1;
        let admitted = loop {
            let admitted = self.admit_now();
            if admitted != Err(Refusal::Full) || deadline.passed() {
                break admitted;
            }
            bed = sleep(&self.slot_freed, bed, deadline);
        };
        bed.submitters -= 1;
        self.get_up(bed);
        admitted
    }

    fn count_refusal(&self) {
        self.entrance.0.refused.fetch_add(1, Relaxed);
    }

    /// Lets an ended call out.
    pub(super) fn release(&self, failure: Option<&Failure>) {
        let column = match failure {
            None => &self.exit.0.finished,
            Some(Failure::Cancelled) => &self.exit.0.cancelled,
            Some(Failure::Panicked(_)) => &self.exit.0.panicked,
            Some(
                Failure::LoopClosed
                | Failure::StartFailed(_)
                | Failure::WouldDeadlock
                | Failure::Refused(_),
            ) => &self.exit.0.loop_closed,
        };
        column.fetch_add(1, Release);
        fence(SeqCst);
        if self.asleep.0.load(Relaxed) > 0 {
            self.wake_sleepers();
        }
    }

    #[cold]
    fn wake_sleepers(&self) {
        let bed = lock(&self.bed);
        let (submitters, closers) = (bed.submitters > 0, bed.closers > 0);
        drop(bed);
        if submitters {
            self.slot_freed.notify_one();
        }
        if closers && self.in_flight() == 0 {
            self.drained.notify_all();
        }
    }

    /// Lets nobody in any more and releases every waiting submitter.
    pub(super) fn close(&self) {
        self.entrance.0.admitted.fetch_or(CLOSED, AcqRel);
        // A submitter is before its look, which sees the bit, or asleep.
        drop(lock(&self.bed));
        self.slot_freed.notify_all();
    }

    /// Waits until nothing is in flight; what is left at the deadline.
    pub(super) fn wait_drained(&self, deadline: Deadline) -> usize {
        let mut bed = self.lie_down();
        bed.closers += 1;
        let left = loop {
            let left = self.in_flight();
            if left == 0 || deadline.passed() {
                break left;
            }
            bed = sleep(&self.drained, bed, deadline);
        };
        bed.closers -= 1;
        self.get_up(bed);
        left
    }

    fn lie_down(&self) -> MutexGuard<'_, Bed> {
        let bed = lock(&self.bed);
        self.asleep.0.fetch_add(1, Relaxed);
        fence(SeqCst);
        bed
    }

    fn get_up(&self, bed: MutexGuard<'_, Bed>) {
        self.asleep.0.fetch_sub(1, Relaxed);
        drop(bed);
    }
}

fn sleep<'a>(place: &Condvar, bed: MutexGuard<'a, Bed>, deadline: Deadline) -> MutexGuard<'a, Bed> {
    match deadline.remaining() {
        None => place.wait(bed).unwrap_or_else(PoisonError::into_inner),
        Some(left) => place.wait_timeout(bed, left).unwrap_or_else(PoisonError::into_inner).0,
    }
}
