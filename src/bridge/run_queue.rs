//! What is ready to be polled, who polls it, and what is suspended.
//!
//! A driver is a task on the loop that polls ready work. There are as many drivers as the loop
//! really runs at once, and one to spare, so that a slow poll delays no other work while a worker is
//! free.
//!
//! Invariants:
//! 1. While the queue lives and work is ready, a driver is running, notified, or about to be spawned
//!    by whoever made the work ready.
//! 2. A driver is in `idle` iff it went to sleep after it found nothing ready, and its waker is
//!    called by whoever takes it out.
//! 3. `notified` counts drivers that were woken or spawned and haven't looked yet. As many notified
//!    drivers as ready items are enough; more would be woken in vain.
//! 4. Once `dead`, nothing is queued or suspended: whoever brings work gets it back to drop it.
//! 5. Work and wakers are dropped and woken after the lock is released.

use crate::sync::prim::{Mutex, lock};
use slab::Slab;
use std::collections::VecDeque;
use std::task::Waker;

/// The type of ready work is open for the model checks; `S` says where it was submitted.
pub(super) struct RunQueue<R, S> {
    state: Mutex<State<R, S>>,
    /// The most drivers that are kept without work: as many as the loop has workers.
    spare: usize,
    /// The most drivers there may be.
    cap: usize,
}

struct State<R, S> {
    ready: VecDeque<R>,
    /// Every driver, with the site of what it polls.
    drivers: Slab<Option<S>>,
    /// Drivers asleep.
    idle: Vec<(usize, Waker)>,
    notified: usize,
    /// Work that waits to be woken.
    suspended: Slab<(Waker, S)>,
    /// The loop is gone, or the bridge cancelled what was left.
    dead: bool,
    /// Nobody can submit any more: drivers leave when nothing is in flight.
    abandoned: bool,
}

/// What whoever made work ready must do.
pub(super) enum Help {
    Wake(Waker),
    Spawn,
    None,
}

/// What a driver does next.
pub(super) enum Next<R> {
    Poll(R, Help),
    Sleep,
    Leave,
}

/// What is taken out of a queue that dies, to be dropped or woken without the lock.
pub(super) struct Remains<R> {
    pub(super) ready: VecDeque<R>,
    pub(super) wakers: Vec<Waker>,
}

impl<R, S: Copy> RunQueue<R, S> {
    /// A queue for a loop with `workers` workers; `elastic` if polls can run in parallel.
    pub(super) fn new(workers: usize, elastic: bool) -> Self {
        RunQueue {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                drivers: Slab::new(),
                idle: Vec::new(),
                notified: 0,
                suspended: Slab::new(),
                dead: false,
                abandoned: false,
            }),
            spare: workers,
            // A worker inside block_in_place is replaced by another: leave room for as many of
            // those as tokio's blocking pool has threads by default.
            cap: if elastic { workers + 512 } else { 1 },
        }
    }

    /// Queues ready work, or gives it back if the queue is dead.
    pub(super) fn push(&self, item: R) -> Result<Help, R> {
        let mut state = lock(&self.state);
        if state.dead {
            return Err(item);
        }
        state.ready.push_back(item);
        Ok(self.help(&mut state))
    }

    /// Who else should look at the ready work.
    fn help(&self, state: &mut State<R, S>) -> Help {
        if state.notified >= state.ready.len() {
            Help::None
        } else if let Some((_, waker)) = state.idle.pop() {
            state.notified += 1;
            Help::Wake(waker)
        } else if state.notified == 0 && state.drivers.len() < self.cap {
            state.notified += 1;
            Help::Spawn
        } else {
            Help::None
        }
    }

    /// Enters a driver in the books; `None` if the queue is dead.
    pub(super) fn enter(&self) -> Option<usize> {
        let mut state = lock(&self.state);
        (!state.dead).then(|| state.drivers.insert(None))
    }

    /// A woken driver looks for the first time since.
    pub(super) fn woke(&self, driver: usize) {
        let mut state = lock(&self.state);
        // Still asleep in the books: polled by somebody else's wake.
        if let Some(position) = state.idle.iter().position(|(idle, _)| *idle == driver) {
            let spurious = state.idle.swap_remove(position);
            drop(state);
            drop(spurious);
        } else {
            state.notified = state.notified.saturating_sub(1);
        }
    }

    /// The next thing to poll.
    pub(super) fn next(
        &self,
        driver: usize,
        waker: &Waker,
        site_of: impl Fn(&R) -> S,
        in_flight: impl Fn() -> usize,
    ) -> Next<R> {
        let mut state = lock(&self.state);
        if let Some(item) = state.ready.pop_front() {
            state.drivers[driver] = Some(site_of(&item));
            let help = self.help(&mut state);
            return Next::Poll(item, help);
        }
        state.drivers[driver] = None;
        let surplus = state.idle.len() > self.spare;
        if state.dead || surplus || (state.abandoned && in_flight() == 0) {
            state.drivers.remove(driver);
            return Next::Leave;
        }
        state.idle.push((driver, waker.clone()));
        Next::Sleep
    }

    /// A driver lets others have its worker for a moment.
    pub(super) fn yields(&self, driver: usize) {
        lock(&self.state).drivers[driver] = None;
    }

    /// Stores how to wake suspended work; `None` if the queue is dead.
    pub(super) fn suspend(&self, waker: Waker, site: S) -> Option<usize> {
        let mut state = lock(&self.state);
        if state.dead {
            drop(state);
            return None;
        }
        Some(state.suspended.insert((waker, site)))
    }

    /// Forgets suspended work that has ended.
    pub(super) fn unsuspend(&self, key: usize) {
        let removed = lock(&self.state).suspended.try_remove(key);
        drop(removed);
    }

    /// Lets drivers leave when nothing is in flight; returns those to wake for that.
    pub(super) fn abandon(&self) -> Vec<Waker> {
        let mut state = lock(&self.state);
        state.abandoned = true;
        Self::wake_all(&mut state)
    }

    /// After the last call of an abandoned queue: the drivers to wake so that they leave.
    pub(super) fn abandoned_and_empty(&self) -> Vec<Waker> {
        let mut state = lock(&self.state);
        if state.abandoned { Self::wake_all(&mut state) } else { Vec::new() }
    }

    fn wake_all(state: &mut State<R, S>) -> Vec<Waker> {
        let wakers: Vec<_> = state.idle.drain(..).map(|(_, waker)| waker).collect();
        state.notified += wakers.len();
        wakers
    }

    /// Takes everything out and lets nothing in any more.
    pub(super) fn kill(&self) -> Remains<R> {
        let mut state = lock(&self.state);
        state.dead = true;
        let ready = std::mem::take(&mut state.ready);
        let suspended = std::mem::take(&mut state.suspended);
        let mut wakers = Self::wake_all(&mut state);
        drop(state);
        wakers.extend(suspended.into_iter().map(|(_, (waker, _))| waker));
        Remains { ready, wakers }
    }

    /// The sites of work inside a poll, and of work that waits to be woken.
    pub(super) fn sites(&self) -> (Vec<S>, Vec<S>) {
        let state = lock(&self.state);
        (
            state.drivers.iter().filter_map(|(_, site)| *site).collect(),
            state.suspended.iter().map(|(_, (_, site))| *site).collect(),
        )
    }
}
