//! Which of a pool's threads looks at the queue next, and how many may run jobs.
//!
//! A thread holds a *place* while it looks at the queue or runs a job. It holds none while it sleeps,
//! while it waits inside a job, and while it delivers a result: the others count as if it weren't there.
//!
//! Waking a thread costs more than a short job, so a queued job wakes nobody while somebody is about to
//! look anyway: one thread at most *looks*, and calls the next when it finds more than it takes.
//!
//! Invariants:
//! 1. `threads` counts those that run or are being started; each leaves the count once.
//! 2. `active` counts the places that are held. It is above `max` only if the limit was lowered, if a
//!    thread came back from a wait and found no place in time, or if one that came back takes over from
//!    the one that looks, which then gets no job.
//! 3. A thread is in `idle` iff it sleeps, or is about to, and in `returning` iff it waits for a place.
//!    Whoever takes it out gives it a place and wakes it.
//! 4. While the queue isn't empty, one of these holds, under the lock: somebody looks; `active >= max`,
//!    and all of them look when their jobs are done; a thread is starting for each job; or no thread can
//!    be had, since nobody is idle and there are all `max` and `spare` threads.
//! 5. A place that is given up goes to who is `returning` before anybody looks at the queue.
//! 6. Nobody is woken, started or told under the lock.

use crate::sync::prim::CachePadded;
use crate::sync::prim::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::{Deadline, Monitor, WaitError};
use std::collections::VecDeque;
use std::future::Future;
use std::task::Waker;

pub(super) struct Workers {
    /// Apart from the hints, which a busy thread looks at after each job.
    state: CachePadded<Monitor<State>>,
    /// Hints of what is under the lock: that who has a place may have to give it up, and that the pool
    /// is closed.
    crowded: AtomicBool,
    closed: AtomicBool,
}

struct State {
    /// The most places.
    max: usize,
    /// How many threads there may be beyond that.
    spare: usize,
    threads: usize,
    active: usize,
    /// Busy with their initialisation, each with a place.
    starting: usize,
    /// One of the active is about to look at the queue.
    looking: bool,
    /// The last one to sit down is the first to be woken.
    idle: Vec<IdleWorker>,
    /// Their waits inside jobs are over.
    returning: VecDeque<IdleWorker>,
    /// How many places have been handed to who is returning.
    handed: u64,
    open: bool,
    /// Jobs accepted.
    submitted: u64,
    /// The most threads there have been.
    largest: usize,
}

/// Where a thread sleeps.
#[derive(Clone)]
pub(super) struct IdleWorker {
    pub(super) worker: usize,
    pub(super) waker: Waker,
}

/// What the caller does when the lock is released.
#[must_use]
pub(super) enum Action {
    Nothing,
    Wake(Waker),
    Start,
}

/// What a worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It has a place: look at the queue, and if so as the one who looks.
    Work {
        looking: bool,
    },
    Sleep,
    /// End the thread: it is out of the count.
    Leave,
}

/// How many there are; see [`PoolStats`](super::PoolStats).
#[derive(Clone, Copy)]
pub(super) struct Count {
    pub(super) threads: usize,
    pub(super) idle: usize,
    pub(super) largest: usize,
    pub(super) submitted: u64,
}

impl State {
    /// Whether there is a place for who comes back from a wait: the one that looks has no job yet.
    fn has_place(&self) -> bool {
        self.active - usize::from(self.looking) < self.max
    }

    /// Sees to it that a free place is used.
    fn call(&mut self, queued: usize) -> Action {
        if !self.has_place() {
            return Action::Nothing;
        }
        if let Some(idle) = self.returning.pop_front() {
            self.active += 1;
            self.handed += 1;
            return Action::Wake(idle.waker);
        }
        if queued == 0 || self.looking {
            return Action::Nothing;
        }
        let action = if let Some(idle) = self.idle.pop() {
            Action::Wake(idle.waker)
        } else if queued > self.starting && !self.has_all_threads() {
            self.threads += 1;
            self.largest = self.largest.max(self.threads);
            Action::Start
        } else {
            return Action::Nothing;
        };
        self.active += 1;
        self.looking = true;
        action
    }

    /// What a thread without a place does.
    fn rest(&mut self, idle: IdleWorker, queued: usize) -> Next {
        let wanted = queued > 0 && !self.looking && self.returning.is_empty();
        if wanted && self.active < self.max {
            self.active += 1;
            self.looking = true;
            Next::Work { looking: true }
        } else if !self.open || self.active + self.idle.len() >= self.max {
            self.threads -= 1;
            Next::Leave
        } else {
            self.idle.push(idle);
            Next::Sleep
        }
    }

    fn is_crowded(&self) -> bool {
        self.active > self.max || !self.returning.is_empty()
    }

    /// Whether there are as many threads as there may be.
    fn has_all_threads(&self) -> bool {
        self.threads >= self.max.saturating_add(self.spare)
    }

    /// Whether all threads sleep, or have left.
    fn is_at_rest(&self) -> bool {
        self.threads == self.idle.len()
    }
}

impl Workers {
    pub(super) fn new(max: usize, spare: usize) -> Self {
        let state = State {
            max,
            spare,
            threads: 0,
            active: 0,
            starting: 0,
            looking: false,
            idle: Vec::new(),
            returning: VecDeque::new(),
            handed: 0,
            open: true,
            submitted: 0,
            largest: 0,
        };
        Workers {
            state: CachePadded(Monitor::new(state)),
            crowded: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let (result, came_to_rest) = self.state.0.with(|state| {
            let before = state.is_at_rest();
            let result = change(state);
            if self.is_crowded() != state.is_crowded() {
                self.crowded.store(state.is_crowded(), Relaxed);
            }
            (result, state.is_at_rest() && !before)
        });
        if came_to_rest {
            // Whoever looked before is woken; whoever looks now sees it.
            self.state.0.change(|_| ());
        }
        result
    }

    pub(super) fn count(&self) -> Count {
        self.state.0.with(|state| Count {
            threads: state.threads,
            idle: state.idle.len(),
            largest: state.largest,
            submitted: state.submitted,
        })
    }

    pub(super) fn max(&self) -> usize {
        self.state.0.with(|state| state.max)
    }

    /// Changes the number of places; called again until there is nothing more to do.
    pub(super) fn set_max(&self, max: usize, queued: usize) -> Action {
        self.change(|state| {
            state.max = max;
            state.call(queued)
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.0.with(|state| state.open)
    }

    /// Queues a job by `push`, which says how many are queued then; `None` when none is accepted.
    pub(super) fn submit(&self, push: impl FnOnce() -> usize) -> Option<Action> {
        self.change(|state| {
            state.open.then(|| {
                state.submitted += 1;
                let queued = push();
                state.call(queued)
            })
        })
    }

    /// As [`submit`](Self::submit), also of a closed pool, as long as there is a thread.
    pub(super) fn submit_late(&self, push: impl FnOnce() -> usize) -> Option<Action> {
        self.change(|state| {
            (state.threads > 0).then(|| {
                state.submitted += 1;
                let queued = push();
                state.call(queued)
            })
        })
    }

    /// Starts a thread before there is work for it.
    pub(super) fn start_one(&self) {
        self.change(|state| {
            (state.threads, state.active, state.largest) = (1, 1, 1);
            state.looking = true;
        });
    }

    /// The thread that was to look couldn't be started. `None` when nobody else could do its work.
    pub(super) fn start_failed(&self) -> Option<Action> {
        self.change(|state| {
            state.threads -= 1;
            // It may have sat down because it saw somebody look.
            if let Some(idle) = state.idle.pop() {
                return Some(Action::Wake(idle.waker));
            }
            state.active -= 1;
            state.looking = false;
            (state.active > 0).then_some(Action::Nothing)
        })
    }

    /// The one that looks has found a job: whether it still has a place to run it in.
    pub(super) fn found_job(&self, queued: impl Fn() -> usize) -> (bool, Action) {
        self.change(|state| {
            state.looking = false;
            if state.active > state.max {
                state.active -= 1;
                return (false, Action::Nothing);
            }
            (true, state.call(queued()))
        })
    }

    /// Becomes the one that looks, if nobody is.
    pub(super) fn look(&self) -> bool {
        self.change(|state| !std::mem::replace(&mut state.looking, true))
    }

    /// A thread that was to look begins its initialisation, and lets others be called meanwhile.
    pub(super) fn begin_start(&self, queued: impl Fn() -> usize) -> Action {
        self.change(|state| {
            state.looking = false;
            state.starting += 1;
            state.call(queued())
        })
    }

    /// Ends the initialisation; whether the thread is the one that looks.
    pub(super) fn end_start(&self) -> bool {
        self.change(|state| {
            state.starting -= 1;
            !std::mem::replace(&mut state.looking, true)
        })
    }

    /// Whether no thread can be had.
    pub(super) fn is_full(&self) -> bool {
        self.state.0.with(|state| state.has_all_threads() && state.idle.is_empty())
    }

    /// Whether a thread with a place is to look whether it keeps it.
    pub(super) fn wants_attention(&self) -> bool {
        self.is_crowded() || self.closed.load(Relaxed)
    }

    /// Whether there are more threads for a place than places.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded.load(Relaxed)
    }

    /// A thread that has found nothing to do, or is one too many, gives up its place.
    pub(super) fn sit_down(
        &self,
        idle: IdleWorker,
        looking: bool,
        queued: impl Fn() -> usize,
    ) -> (Next, Action) {
        self.change(|state| {
            state.looking &= !looking;
            state.active -= 1;
            let action = state.call(0);
            (state.rest(idle, queued()), action)
        })
    }

    /// A thread that sat down was woken, or has slept its time.
    pub(super) fn get_up(&self, worker: usize, timed_out: bool) -> Next {
        self.change(|state| {
            let Some(position) = state.idle.iter().position(|idle| idle.worker == worker) else {
                return (Next::Work { looking: true }, None);
            };
            if state.open && !timed_out {
                return (Next::Sleep, None);
            }
            state.threads -= 1;
            (Next::Leave, Some(state.idle.remove(position)))
        })
        .0
    }

    /// A thread is about to wait inside a job, or to deliver a result: it gives up its place.
    pub(super) fn lend(&self, looking: bool, queued: impl Fn() -> usize) -> Action {
        self.change(|state| {
            state.looking &= !looking;
            state.active -= 1;
            state.call(queued())
        })
    }

    /// A thread's wait is over. `None` when it has a place; otherwise it is to wait for one, and learns
    /// how many have been handed over so far.
    pub(super) fn come_back(&self, idle: IdleWorker) -> Option<u64> {
        self.change(|state| {
            if state.returning.is_empty() && state.has_place() {
                state.active += 1;
                return None;
            }
            state.returning.push_back(idle);
            Some(state.handed)
        })
    }

    /// As [`come_back`](Self::come_back), for a thread that has waited for a while.
    pub(super) fn still_returning(&self, worker: usize) -> Option<u64> {
        self.state.0.with(|state| {
            let returning = state.returning.iter().any(|idle| idle.worker == worker);
            returning.then_some(state.handed)
        })
    }

    /// A thread has waited long enough, and takes a place that there isn't.
    pub(super) fn take_place(&self, worker: usize) {
        self.change(|state| {
            let position = state.returning.iter().position(|idle| idle.worker == worker);
            let idle = position.and_then(|at| state.returning.remove(at));
            state.active += usize::from(idle.is_some());
        });
    }

    /// A thread has delivered its result, without a place.
    pub(super) fn end_delivery(&self, idle: IdleWorker, queued: impl Fn() -> usize) -> Next {
        self.change(|state| state.rest(idle, queued()))
    }

    /// A thread with a place leaves, whatever it was about to do.
    pub(super) fn resign(
        &self,
        looking: bool,
        starting: bool,
        queued: impl Fn() -> usize,
    ) -> Action {
        self.change(|state| {
            state.looking &= !looking;
            state.starting -= usize::from(starting);
            state.threads -= 1;
            state.active -= 1;
            state.call(queued())
        })
    }

    /// Accepts nothing more, and lets everybody go as soon as the queue is empty.
    pub(super) fn close(&self) -> Vec<Waker> {
        let wakers = self.change(|state| {
            state.open = false;
            state.idle.iter().map(|idle| idle.waker.clone()).collect()
        });
        self.closed.store(true, Relaxed);
        self.tell();
        wakers
    }

    /// Waits for the close, at most until the deadline.
    pub(super) fn wait_closed(&self, deadline: Deadline) {
        let _closed = self.state.0.wait(deadline, |state| (!state.open).then_some(()));
    }

    /// Ready when all threads sleep, or have left, and `done` says that there is nothing more.
    pub(super) fn at_rest(&self, done: impl Fn(u64) -> bool) -> impl Future<Output = ()> {
        self.state.0.until(move |state| (state.is_at_rest() && done(state.submitted)).then_some(()))
    }

    /// As [`at_rest`](Self::at_rest), for a thread that may block.
    pub(super) fn wait_at_rest(
        &self,
        deadline: Deadline,
        done: impl Fn(u64) -> bool,
    ) -> Result<(), WaitError> {
        self.state.0.wait(deadline, move |state| {
            (state.is_at_rest() && done(state.submitted)).then_some(())
        })
    }

    /// Has who waits for rest look again.
    pub(super) fn tell(&self) {
        self.state.0.change(|_| ());
    }
}
