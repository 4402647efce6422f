//! A limit, and those who wait for room under it: a bridge's calls in flight, a limiter's permits.
//!
//! Whoever acquires writes one cache line and whoever releases another, so that a thread that submits
//! and a loop that works don't wait for each other's line.
//!
//! Invariants:
//! 1. `entered` counts the permits acquired, `left` those given back. A permit is entered before it
//!    leaves, so `entered - left`, read in the order left, entered, is never less than what is in use.
//! 2. `seen_left` lags behind `left`: a stale view shows too little room, never too much.
//! 3. A release changes `left`, then reads `waiting`; who joins the line changes `waiting`, then `left`,
//!    by nothing. Changes of `left` have an order, and the later one has seen what came before the
//!    earlier one: either the release sees who waits, or who waits sees the room.
//! 4. The first `granted` parties of the line have a permit that they haven't fetched: a freed place
//!    belongs to the first in line at once, so nobody can overtake it. One that leaves hands it on.
//! 5. `CLOSED` is a bit of `entered`: once it is set, no compare-exchange of an acquisition succeeds.
//! 6. Wakers are woken, cloned and dropped after the lock is released.

use super::prim::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use super::prim::atomic::{AtomicU64, AtomicUsize};
use super::prim::{CachePadded, Mutex, lock};
use super::{WaitList, wake};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Set in `entered` when nobody is let in any more.
const CLOSED: u64 = 1;
/// One permit in `entered`.
const ONE: u64 = 2;

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPermit {
    Full,
    Closed,
}

pub(crate) struct Limiter {
    entrance: CachePadded<Entrance>,
    /// How many permits were given back.
    left: CachePadded<AtomicU64>,
    rules: CachePadded<Rules>,
    line: Mutex<Line>,
}

/// What those who acquire write.
struct Entrance {
    entered: AtomicU64,
    seen_left: AtomicU64,
    high_water: AtomicU64,
}

/// What is read by everybody, and rarely written.
struct Rules {
    limit: AtomicU64,
    /// How many stand in line without a grant.
    waiting: AtomicUsize,
}

struct Line {
    parties: WaitList,
    granted: usize,
}

impl Limiter {
    /// A limiter of `limit` permits; `usize::MAX` for no limit.
    pub(crate) fn new(limit: usize) -> Self {
        Limiter {
            entrance: CachePadded(Entrance {
                entered: AtomicU64::new(0),
                seen_left: AtomicU64::new(0),
                high_water: AtomicU64::new(0),
            }),
            left: CachePadded(AtomicU64::new(0)),
            rules: CachePadded(Rules {
                limit: AtomicU64::new(limit as u64),
                waiting: AtomicUsize::new(0),
            }),
            line: Mutex::new(Line { parties: WaitList::new(), granted: 0 }),
        }
    }

    /// The limit; `None` for none.
    pub(crate) fn limit(&self) -> Option<usize> {
        let limit = self.rules.0.limit.load(Relaxed) as usize;
        (limit != usize::MAX).then_some(limit)
    }

    /// How many permits were acquired so far. (1): read after `left`.
    pub(crate) fn entered(&self) -> u64 {
        self.entrance.0.entered.load(Acquire) / ONE
    }

    /// How many permits were given back so far. (1): pairs with the addition in `release`, whose permit was
    /// entered before.
    pub(crate) fn left(&self) -> u64 {
        self.left.0.load(Acquire)
    }

    pub(crate) fn in_use(&self) -> usize {
        let left = self.left();
        (self.entered() - left) as usize
    }

    /// The most permits that were in use at once.
    pub(crate) fn high_water(&self) -> usize {
        self.entrance.0.high_water.load(Relaxed) as usize
    }

    /// How many wait, without those that have been granted a permit.
    pub(crate) fn waiting(&self) -> usize {
        self.rules.0.waiting.load(Relaxed)
    }

    /// (5): pairs with `close`.
    pub(crate) fn is_closed(&self) -> bool {
        self.entrance.0.entered.load(Acquire) & CLOSED != 0
    }

    /// Acquires a permit if there is room and nobody waits for it; says how many were acquired before.
    #[inline]
    pub(crate) fn try_acquire(&self) -> Result<u64, NoPermit> {
        if self.waiting() > 0 && !self.is_closed() { Err(NoPermit::Full) } else { self.enter() }
    }

    fn enter(&self) -> Result<u64, NoPermit> {
        let entrance = &self.entrance.0;
        let limit = self.rules.0.limit.load(Relaxed);
        let mut word = entrance.entered.load(Acquire);
        loop {
            if word & CLOSED != 0 {
                return Err(NoPermit::Closed);
            }
            let entered = word / ONE;
            let high_water = entrance.high_water.load(Relaxed);
            let mut in_use = entered.saturating_sub(entrance.seen_left.load(Relaxed));
            if in_use >= limit.min(high_water) {
                let left = self.left();
                entrance.seen_left.fetch_max(left, Relaxed);
                in_use = entered.saturating_sub(left);
                if in_use >= limit {
                    return Err(NoPermit::Full);
                }
            }
            // (1), (5): in one order with `close` and the other entries; pairs with the load in `entered`.
            match entrance.entered.compare_exchange_weak(word, word + ONE, AcqRel, Acquire) {
                Ok(_) => {
                    if in_use >= high_water {
                        entrance.high_water.fetch_max(in_use + 1, Relaxed);
                    }
                    return Ok(entered);
                }
                Err(now) => word = now,
            }
        }
    }

    /// Whether a permit that was just given back could be had again: neither closed, nor waited for.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.waiting() == 0 && !self.is_closed()
    }

    /// Counts permits as acquired that were one after the other the same one, which its owner still has.
    pub(crate) fn enter_again(&self, permits: u64) {
        self.entrance.0.entered.fetch_add(permits * ONE, AcqRel);
    }

    /// Gives a permit back.
    #[inline]
    pub(crate) fn release(&self) {
        self.release_many(1);
    }

    /// Gives permits back.
    #[inline]
    pub(crate) fn release_many(&self, permits: u64) {
        // (3): pairs with the change by nothing in `poll_acquire`.
        self.left.0.fetch_add(permits, AcqRel);
        if self.rules.0.waiting.load(Relaxed) > 0 {
            self.grant_and_wake();
        }
    }

    /// Changes the limit.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.rules.0.limit.store(limit as u64, Relaxed);
        self.grant_and_wake();
    }

    /// Lets nobody in any more; who waits is told.
    pub(crate) fn close(&self) {
        // (5): pairs with the exchange in `enter`.
        self.entrance.0.entered.fetch_or(CLOSED, AcqRel);
        let wakers = lock(&self.line).parties.take_wakers();
        wakers.into_iter().for_each(wake);
    }

    #[cold]
    fn grant_and_wake(&self) {
        let wakers = self.grant(&mut lock(&self.line));
        wakers.into_iter().for_each(wake);
    }

    /// Grants what room there is to the first in line, whom the caller wakes.
    fn grant(&self, line: &mut Line) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while line.granted < line.parties.len() && self.enter().is_ok() {
            wakers.extend(line.parties.waker_mut(line.granted).and_then(Option::take));
            line.granted += 1;
            self.rules.0.waiting.fetch_sub(1, Relaxed);
        }
        wakers
    }

    fn poll_acquire(&self, ticket: &mut Option<u64>, waker: Waker) -> Poll<Result<(), NoPermit>> {
        let mut line = lock(&self.line);
        let mut stale = None;
        let number = match *ticket {
            Some(number) => {
                if !line.is_granted(number) {
                    stale = line.parties.replace_waker(number, waker);
                }
                number
            }
            None => {
                self.rules.0.waiting.fetch_add(1, Relaxed);
                // (3): pairs with `release`.
                self.left.0.fetch_add(0, AcqRel);
                *ticket.insert(line.parties.push((), waker))
            }
        };
        let wakers = self.grant(&mut line);
        let outcome = if line.is_granted(number) {
            line.granted -= 1;
            stale = line.parties.remove(number).and_then(|(_, waker)| waker);
            *ticket = None;
            Poll::Ready(Ok(()))
        } else if self.is_closed() {
            Poll::Ready(Err(NoPermit::Closed))
        } else {
            Poll::Pending
        };
        drop(line);
        drop(stale);
        wakers.into_iter().for_each(wake);
        outcome
    }

    /// Leaves the line; whether with a grant, which is the caller's then.
    fn leave(&self, ticket: u64) -> bool {
        let mut line = lock(&self.line);
        let granted = line.is_granted(ticket);
        let waker = line.parties.remove(ticket);
        match granted {
            true => line.granted -= 1,
            false => drop(self.rules.0.waiting.fetch_sub(1, Relaxed)),
        }
        drop(line);
        drop(waker);
        granted
    }
}

impl Line {
    fn is_granted(&self, ticket: u64) -> bool {
        self.granted > 0
            && self.parties.position(ticket).is_some_and(|position| position < self.granted)
    }
}

/// A permit in turn; fails when the limiter is closed.
pub(crate) struct AcquirePermit {
    limiter: Arc<Limiter>,
    /// The place in line, once there is one.
    ticket: Option<u64>,
}

impl AcquirePermit {
    pub(crate) fn new(limiter: &Arc<Limiter>) -> Self {
        AcquirePermit { limiter: Arc::clone(limiter), ticket: None }
    }

    /// Stops waiting; whether a permit was granted by now, which is the caller's.
    pub(crate) fn leave(mut self) -> bool {
        self.ticket.take().is_some_and(|ticket| self.limiter.leave(ticket))
    }
}

impl Future for AcquirePermit {
    type Output = Result<(), NoPermit>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match this.ticket.map_or_else(|| this.limiter.try_acquire(), |_| Err(NoPermit::Full)) {
            Err(NoPermit::Full) => this.limiter.poll_acquire(&mut this.ticket, cx.waker().clone()),
            settled => Poll::Ready(settled.map(|_| ())),
        }
    }
}

impl Drop for AcquirePermit {
    fn drop(&mut self) {
        if self.ticket.is_some_and(|ticket| self.limiter.leave(ticket)) {
            self.limiter.release();
        }
    }
}
