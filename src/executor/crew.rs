//! Who of a pool's workers is to look at the queue next.
//!
//! Waking a thread costs more than a short job, so a queued job wakes nobody while somebody is about
//! to look anyway: one worker at most *searches*, and wakes the next when it finds more than it
//! takes. While the queue moves so fast that it is soon empty without help, one worker *watches* it
//! with a timeout instead.
//!
//! Invariants:
//! 1. `workers` counts the threads that run or are being started; each leaves the count once.
//! 2. A worker is in `idle` iff it sleeps or is about to; whoever takes it out wakes it.
//! 3. While the queue isn't empty, one of these holds, or a submitter between its push and its
//!    `summon` will make it hold: somebody searches; somebody watches while somebody else is active;
//!    a worker is starting for each job; or all places are taken by workers that look at the queue
//!    when they are done. A worker that stops searching looks at the queue once more under the lock.
//! 4. Nobody is woken, hired or told under the lock.
//!
//! A worker that waits inside a job lends its place: the others count as if it weren't there.

use crate::sync::Monitor;
use crate::sync::prim::{Instant, Mutex, MutexGuard, lock};
use std::future::Future;
use std::task::Waker;

pub(super) struct Crew {
    roster: Mutex<Roster>,
    /// Where a shutdown waits for the last worker.
    gone: Monitor<()>,
    /// The most workers that aren't waiting inside a job.
    max: usize,
}

struct Roster {
    workers: usize,
    /// Asleep; the last one to sit down is the first to be woken.
    idle: Vec<Seat>,
    /// Somebody is awake, or being woken or started, to look at the queue.
    searching: bool,
    /// Who looks at the queue now and then.
    watching: Option<Seat>,
    /// Busy with their initialisation.
    starting: usize,
    /// Waiting inside a job.
    lent: usize,
    closing: bool,
    /// The state of affairs when the searcher was summoned.
    summoned: Mark,
}

#[derive(Clone)]
pub(super) struct Seat {
    pub(super) worker: usize,
    pub(super) waker: Waker,
}

/// A point in the life of the pool: the time, and how many jobs had begun.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub(super) at: Instant,
    pub(super) begun: usize,
}

/// What the caller does when it has released the lock.
#[must_use]
pub(super) enum Order {
    Nothing,
    Wake(Waker),
    Hire,
}

/// What a worker does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Sleep.
    Sleep,
    /// Look at the queue; as the one who searches?
    Look { searching: bool },
    /// End the thread: it is out of the count.
    Leave,
}

/// How many there are; see [`PoolStats`](super::PoolStats).
#[derive(Clone, Copy)]
pub(super) struct Count {
    pub(super) workers: usize,
    pub(super) idle: usize,
}

impl Roster {
    /// Workers that run a job and don't wait inside it.
    fn active(&self) -> usize {
        let away = self.idle.len()
            + self.lent
            + self.starting
            + usize::from(self.searching)
            + usize::from(self.watching.is_some());
        self.workers.saturating_sub(away)
    }

    fn is_crowded(&self, max: usize) -> bool {
        self.workers - self.lent > max
    }

    /// Sees to it that somebody looks at the queue.
    fn summon(&mut self, max: usize, queued: usize, begun: usize) -> Order {
        let watched = self.watching.is_some() && self.active() > 0;
        if queued == 0 || self.searching || watched || queued <= self.starting {
            return Order::Nothing;
        }
        let order = if let Some(seat) = self.idle.pop().or_else(|| self.watching.take()) {
            Order::Wake(seat.waker)
        } else if self.workers - self.lent < max {
            self.workers += 1;
            Order::Hire
        } else {
            return Order::Nothing;
        };
        self.searching = true;
        self.summoned = Mark { at: Instant::now(), begun };
        order
    }

    fn search(&mut self) -> bool {
        !std::mem::replace(&mut self.searching, true)
    }
}

impl Crew {
    pub(super) fn new(max: usize) -> Self {
        Crew {
            roster: Mutex::new(Roster {
                workers: 0,
                idle: Vec::new(),
                searching: false,
                watching: None,
                starting: 0,
                lent: 0,
                closing: false,
                summoned: Mark { at: Instant::now(), begun: 0 },
            }),
            gone: Monitor::new(()),
            max,
        }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn count(&self) -> Count {
        let roster = lock(&self.roster);
        let watching = usize::from(roster.watching.is_some());
        Count { workers: roster.workers, idle: roster.idle.len() + watching }
    }

    /// Called after a job was queued; `queued` is asked under the lock.
    pub(super) fn summon(&self, queued: impl Fn() -> usize, begun: usize) -> Order {
        lock(&self.roster).summon(self.max, queued(), begun)
    }

    /// The searcher has found a job, or gives up its search for another reason.
    pub(super) fn stop_search(&self, queued: impl Fn() -> usize, begun: usize) -> Order {
        let mut roster = lock(&self.roster);
        roster.searching = false;
        roster.summon(self.max, queued(), begun)
    }

    /// Becomes the one who searches, if nobody is.
    pub(super) fn search(&self) -> bool {
        lock(&self.roster).search()
    }

    /// When and how the searcher was summoned.
    pub(super) fn summoned(&self) -> Mark {
        lock(&self.roster).summoned
    }

    /// A hired searcher begins its initialisation, and lets others be hired meanwhile.
    pub(super) fn begin_start(&self, queued: impl Fn() -> usize, begun: usize) -> Order {
        let mut roster = lock(&self.roster);
        roster.searching = false;
        roster.starting += 1;
        roster.summon(self.max, queued(), begun)
    }

    /// Ends the initialisation; whether the worker is the one who searches.
    pub(super) fn end_start(&self) -> bool {
        let mut roster = lock(&self.roster);
        roster.starting -= 1;
        roster.search()
    }

    /// A worker that ran out of work is about to sleep.
    pub(super) fn sit_down(&self, seat: Seat, searching: bool, queued: impl Fn() -> usize) -> Next {
        let mut roster = lock(&self.roster);
        if searching {
            roster.searching = false;
        }
        if queued() > 0 && roster.search() {
            return Next::Look { searching: true };
        }
        if roster.closing {
            return Next::Look { searching: false };
        }
        if roster.is_crowded(self.max) {
            return self.leave(roster);
        }
        roster.idle.push(seat);
        Next::Sleep
    }

    /// A worker that sat down was woken, or has slept its time.
    pub(super) fn get_up(
        &self,
        worker: usize,
        timed_out: bool,
        queued: impl Fn() -> usize,
    ) -> Next {
        let mut roster = lock(&self.roster);
        let Some(place) = roster.idle.iter().position(|seat| seat.worker == worker) else {
            return Next::Look { searching: true };
        };
        if !roster.closing && !timed_out {
            return Next::Sleep;
        }
        let seat = roster.idle.remove(place);
        let next = if roster.closing {
            Next::Look { searching: false }
        } else if queued() > 0 && roster.search() {
            Next::Look { searching: true }
        } else {
            self.leave(roster)
        };
        drop(seat);
        next
    }

    /// The searcher gives up its search to look at the queue again in a while; whether it may.
    pub(super) fn watch(&self, seat: Seat) -> bool {
        let mut roster = lock(&self.roster);
        // Whoever calls this counts as searching, so it isn't among the active.
        if roster.closing || roster.watching.is_some() || roster.active() == 0 {
            return false;
        }
        roster.searching = false;
        roster.watching = Some(seat);
        true
    }

    /// The while is over. `Sleep` stands for: nobody called, so look whether help is wanted.
    pub(super) fn stop_watch(&self, worker: usize) -> Next {
        let mut roster = lock(&self.roster);
        if roster.watching.as_ref().is_none_or(|seat| seat.worker != worker) {
            return Next::Look { searching: true };
        }
        let seat = roster.watching.take();
        let next = if roster.search() { Next::Sleep } else { Next::Look { searching: false } };
        drop(roster);
        drop(seat);
        next
    }

    /// A worker is about to wait inside a job.
    pub(super) fn lend(&self, searching: bool, queued: impl Fn() -> usize, begun: usize) -> Order {
        let mut roster = lock(&self.roster);
        if searching {
            roster.searching = false;
        }
        roster.lent += 1;
        roster.summon(self.max, queued(), begun)
    }

    /// The worker's wait is over; whether there are too many now.
    pub(super) fn take_back(&self) -> bool {
        let mut roster = lock(&self.roster);
        roster.lent -= 1;
        roster.is_crowded(self.max)
    }

    /// A worker between two jobs leaves if there are too many.
    pub(super) fn leave_if_crowded(
        &self,
        searching: bool,
        queued: impl Fn() -> usize,
        begun: usize,
    ) -> Option<Order> {
        let mut roster = lock(&self.roster);
        if !roster.is_crowded(self.max) {
            return None;
        }
        if searching {
            roster.searching = false;
        }
        roster.workers -= 1;
        Some(roster.summon(self.max, queued(), begun))
    }

    /// A worker leaves, whatever it was about to do.
    pub(super) fn resign(&self, searching: bool, starting: bool) {
        let mut roster = lock(&self.roster);
        if searching {
            roster.searching = false;
        }
        if starting {
            roster.starting -= 1;
        }
        self.leave(roster);
    }

    /// The searcher couldn't be started. `None` when there is nobody who could take its place.
    pub(super) fn hire_failed(&self) -> Option<Order> {
        let mut roster = lock(&self.roster);
        roster.searching = false;
        // It may have sat down because it saw somebody search.
        let replacement = roster.idle.pop();
        roster.searching = replacement.is_some();
        let left = roster.workers - 1 - roster.lent;
        self.leave(roster);
        match replacement {
            Some(seat) => Some(Order::Wake(seat.waker)),
            None => (left > 0).then_some(Order::Nothing),
        }
    }

    fn leave(&self, mut roster: MutexGuard<'_, Roster>) -> Next {
        roster.workers -= 1;
        let last = roster.workers == 0;
        drop(roster);
        if last {
            self.gone.change(|()| ());
        }
        Next::Leave
    }

    /// Lets everybody go as soon as the queue is empty.
    pub(super) fn close(&self) -> Vec<Waker> {
        let mut roster = lock(&self.roster);
        roster.closing = true;
        roster.idle.iter().chain(&roster.watching).map(|seat| seat.waker.clone()).collect()
    }

    /// How many workers there are.
    pub(super) fn left(&self) -> usize {
        lock(&self.roster).workers
    }

    /// Ready when the last worker has left.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send {
        self.gone.until(|()| (self.left() == 0).then_some(()))
    }
}
