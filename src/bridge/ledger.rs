//! Who is in flight: the limit, the books, and the wait for the last one out.
//!
//! Invariants:
//! 1. `in_flight` counts exactly the calls admitted and not released.
//! 2. A release signals a waiting submitter iff one is asleep; a submitter that is signalled looks
//!    again under the lock, so a signal that meets a timed-out sleeper either lets it in or is
//!    matched by a newcomer that took the slot.
//! 3. Once `closed`, nobody is admitted and every sleeping submitter is signalled.
//! 4. `drained` is signalled when `in_flight` falls to 0 while someone waits for that.

use super::stats::BridgeStats;
use crate::future::Failure;
use crate::sync::Deadline;
use crate::sync::context::drives_a_loop;
use crate::sync::prim::{Condvar, Mutex, MutexGuard, lock};
use std::sync::PoisonError;

pub(super) struct Ledger {
    books: Mutex<Books>,
    /// Where submitters wait for a slot.
    slot_freed: Condvar,
    /// Where closers wait for the last call.
    drained: Condvar,
    /// The most calls in flight; `usize::MAX` for no limit.
    limit: usize,
}

struct Books {
    stats: BridgeStats,
    /// Submitters asleep.
    submitters: usize,
    /// Closers asleep.
    closers: usize,
    closed: bool,
}

impl Books {
    fn count_refusal(&mut self, admitted: Result<(), Refusal>) -> Result<(), Refusal> {
        if admitted.is_err() {
            self.stats.refused += 1;
        }
        admitted
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Full,
    Closed,
    WouldDeadlock,
}

impl Ledger {
    pub(super) fn new(limit: usize) -> Self {
        Ledger {
            books: Mutex::new(Books {
                stats: BridgeStats::default(),
                submitters: 0,
                closers: 0,
                closed: false,
            }),
            slot_freed: Condvar::new(),
            drained: Condvar::new(),
            limit,
        }
    }

    pub(super) fn limit(&self) -> Option<usize> {
        (self.limit != usize::MAX).then_some(self.limit)
    }

    pub(super) fn stats(&self) -> BridgeStats {
        lock(&self.books).stats
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.books).closed
    }

    /// Admits a call if there is room.
    pub(super) fn try_admit(&self) -> Result<(), Refusal> {
        let mut books = lock(&self.books);
        let admitted = self.admit_now(&mut books);
        books.count_refusal(admitted)
    }

    /// Admits a call, waiting for a slot until the deadline.
    pub(super) fn admit(&self, deadline: Deadline) -> Result<(), Refusal> {
        let mut books = lock(&self.books);
        let mut admitted = self.admit_now(&mut books);
        if admitted == Err(Refusal::Full) && !deadline.passed() {
            drop(books);
            // Asked without the lock: the answer may come from another crate's code.
            let would_deadlock = drives_a_loop();
            books = lock(&self.books);
            if would_deadlock {
                admitted = Err(Refusal::WouldDeadlock);
            } else {
                (books, admitted) = self.wait_for_slot(books, deadline);
            }
        }
        books.count_refusal(admitted)
    }

    fn admit_now(&self, books: &mut Books) -> Result<(), Refusal> {
        if books.closed {
            return Err(Refusal::Closed);
        }
        if books.stats.in_flight >= self.limit {
            return Err(Refusal::Full);
        }
        books.stats.in_flight += 1;
        books.stats.submitted += 1;
        books.stats.high_water = books.stats.high_water.max(books.stats.in_flight);
        Ok(())
    }

    fn wait_for_slot<'a>(
        &self,
        mut books: MutexGuard<'a, Books>,
        deadline: Deadline,
    ) -> (MutexGuard<'a, Books>, Result<(), Refusal>) {
        loop {
            let admitted = self.admit_now(&mut books);
            if admitted != Err(Refusal::Full) || deadline.passed() {
                return (books, admitted);
            }
            books.submitters += 1;
            books = sleep(&self.slot_freed, books, deadline);
            books.submitters -= 1;
        }
    }

    /// Takes an ended call out; returns what is left in flight.
    pub(super) fn release(&self, failure: Option<&Failure>) -> usize {
        let mut books = lock(&self.books);
        books.stats.in_flight -= 1;
        let column = match failure {
            None => &mut books.stats.finished,
            Some(Failure::Cancelled) => &mut books.stats.cancelled,
            Some(Failure::Panicked(_)) => &mut books.stats.panicked,
            Some(Failure::LoopClosed | Failure::WouldDeadlock) => &mut books.stats.loop_closed,
        };
        *column += 1;
        let left = books.stats.in_flight;
        let signal_submitter = books.submitters > 0;
        let signal_closers = left == 0 && books.closers > 0;
        drop(books);
        if signal_submitter {
            self.slot_freed.notify_one();
        }
        if signal_closers {
            self.drained.notify_all();
        }
        left
    }

    /// Admits nobody any more and releases every waiting submitter.
    pub(super) fn close(&self) {
        let mut books = lock(&self.books);
        books.closed = true;
        let signal = books.submitters > 0;
        drop(books);
        if signal {
            self.slot_freed.notify_all();
        }
    }

    /// Waits until nothing is in flight; what is left at the deadline.
    pub(super) fn wait_drained(&self, deadline: Deadline) -> usize {
        let mut books = lock(&self.books);
        while books.stats.in_flight > 0 && !deadline.passed() {
            books.closers += 1;
            books = sleep(&self.drained, books, deadline);
            books.closers -= 1;
        }
        books.stats.in_flight
    }
}

fn sleep<'a>(
    place: &Condvar,
    books: MutexGuard<'a, Books>,
    deadline: Deadline,
) -> MutexGuard<'a, Books> {
    match deadline.remaining() {
        None => place.wait(books).unwrap_or_else(PoisonError::into_inner),
        Some(left) => place.wait_timeout(books, left).unwrap_or_else(PoisonError::into_inner).0,
    }
}
