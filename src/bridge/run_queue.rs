//! What is ready to be polled, who polls it, and what is suspended.
//!
//! A driver is a task on the loop that polls ready work. There are as many drivers as the loop
//! really runs at once, and one to spare, so that a slow poll delays no other work while a worker is
//! free. A driver takes a batch at a time out of the common queue into its seat; others steal from
//! there what a slow poll would keep waiting.
//!
//! Locks: `common` before a seat; `suspended` alone.
//!
//! Invariants:
//! 1. While the queue lives and work is ready, in common or in a seat, a driver is notified, looks
//!    at the queue, or is inside a poll with nobody asleep: whoever makes work ready, or takes a
//!    batch and leaves some, wakes one that sleeps or asks for one more.
//! 2. A driver is in `idle` iff it went to sleep after it found nothing ready, and its waker is
//!    called by whoever takes it out.
//! 3. `notified` counts drivers that were woken or spawned, or that linger, and haven't looked yet.
//!    As many notified drivers as ready items are enough; more would be woken in vain. A driver that
//!    a worker of the loop wakes waits in that worker's own slot, where nobody else can fetch it
//!    while the worker is busy: who pushes from outside doesn't count on it.
//! 4. Once `dead`, nothing is queued or suspended: whoever brings work gets it back to drop it.
//! 5. Work and wakers are dropped and woken after the locks are released.

use crate::sync::prim::atomic::{AtomicBool, Ordering, fence};
use crate::sync::prim::{Mutex, OwnLine, lock};
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

/// The most items a driver takes at a time.
const BATCH: usize = 32;

/// Room for so many items is kept when a burst is over; what is beyond goes back.
const KEPT_ROOM: usize = 1024;

/// The type of ready work is open for the model checks; `S` says where it was submitted.
pub(super) struct RunQueue<R, S> {
    common: OwnLine<Mutex<Common<R, S>>>,
    /// Work that waits to be woken; `None` once dead.
    suspended: OwnLine<Mutex<Option<Slab<Waker>>>>,
    /// Nobody can submit any more: drivers leave when nothing is in flight.
    abandoned: AtomicBool,
    /// The most drivers that are kept without work: as many as the loop has workers.
    spare: usize,
    /// Whether polls can run in parallel.
    elastic: bool,
}

struct Common<R, S> {
    ready: VecDeque<R>,
    seats: Slab<Member<R, S>>,
    /// Drivers that were asked for and have no seat yet.
    spawning: usize,
    /// Drivers asleep.
    idle: Vec<(usize, Waker)>,
    notified: Notified,
    /// The loop is gone, or the bridge cancelled what was left.
    dead: bool,
}

/// How many drivers are notified, by where the wake came from.
#[derive(Default)]
struct Notified {
    outside: usize,
    worker: usize,
}

impl Notified {
    fn by(&mut self, from: From) -> &mut usize {
        match from {
            From::Outside => &mut self.outside,
            From::Worker => &mut self.worker,
        }
    }

    /// How many notified drivers can be counted on.
    fn for_sure(&self, from: From) -> usize {
        match from {
            From::Outside => self.outside,
            From::Worker => self.outside + self.worker,
        }
    }
}

/// Who makes work ready: a thread outside the loop, or a worker of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Outside,
    Worker,
}

/// A driver in the books.
struct Member<R, S> {
    seat: Arc<Seat<R, S>>,
    /// By whom it was notified, until it looks.
    notified: Option<From>,
}

/// Where a driver keeps its batch.
struct Seat<R, S> {
    desk: Mutex<Desk<R, S>>,
}

struct Desk<R, S> {
    batch: VecDeque<R>,
    /// Where the work was submitted that is being polled.
    polling: Option<S>,
}

/// A driver's place in the queue.
pub(super) struct Place<R, S> {
    number: usize,
    seat: Arc<Seat<R, S>>,
    /// It yielded with work left: it wasn't asleep, so nobody notified it.
    yielded: bool,
}

/// What whoever made work ready must do.
pub(super) enum Help {
    Wake(Waker),
    Spawn(From),
    None,
}

/// What a driver does next.
pub(super) enum Next<R> {
    Poll(R, Help),
    /// Look again as soon as the loop has seen to its other tasks.
    Linger,
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
            common: OwnLine(Mutex::new(Common {
                ready: VecDeque::new(),
                seats: Slab::new(),
                spawning: 0,
                idle: Vec::new(),
                notified: Notified::default(),
                dead: false,
            })),
            suspended: OwnLine(Mutex::new(Some(Slab::new()))),
            abandoned: AtomicBool::new(false),
            spare: workers,
            elastic,
        }
    }

    /// The most drivers there may be. A worker inside `block_in_place` is replaced by another:
    /// there is room for as many of those as tokio's blocking pool has threads by default.
    fn most_drivers(&self) -> usize {
        if self.elastic { self.spare + 512 } else { 1 }
    }

    /// Asks for the first driver, before there is work.
    pub(super) fn first_driver(&self) -> Help {
        lock(&self.common.0).ask_for_a_driver(From::Outside)
    }

    /// Queues ready work, or gives it back if the queue is dead.
    pub(super) fn push(&self, item: R, from: From) -> Result<Help, R> {
        let mut common = lock(&self.common.0);
        if common.dead {
            return Err(item);
        }
        common.ready.push_back(item);
        let ready = common.ready.len();
        Ok(self.help(&mut common, ready, from))
    }

    /// Who else should look at `ready` items.
    fn help(&self, common: &mut Common<R, S>, ready: usize, from: From) -> Help {
        let expected = common.notified.for_sure(from);
        if expected >= ready {
            return Help::None;
        }
        if let Some((number, waker)) = common.idle.pop() {
            common.notify(number, from);
            return Help::Wake(waker);
        }
        let drivers = common.seats.len() + common.spawning;
        // One for each worker and one to spare at once; more only when all of them are inside
        // polls, as a worker in `block_in_place` is, which tokio replaces by another.
        let wanted = drivers <= self.spare || expected == 0;
        if wanted && drivers < self.most_drivers() {
            common.ask_for_a_driver(from)
        } else {
            Help::None
        }
    }

    /// Gives a spawned driver its seat; `None` if the queue is dead.
    pub(super) fn enter(&self, from: From) -> Option<Place<R, S>> {
        let desk = Desk { batch: VecDeque::with_capacity(BATCH), polling: None };
        let seat = Arc::new(Seat { desk: Mutex::new(desk) });
        let mut common = lock(&self.common.0);
        common.spawning -= 1;
        if common.dead {
            drop(common);
            return None;
        }
        let member = Member { seat: Arc::clone(&seat), notified: Some(from) };
        let number = common.seats.insert(member);
        drop(common);
        Some(Place { number, seat, yielded: false })
    }

    /// The next thing for a driver to do; `linger` instead of sleeping.
    pub(super) fn next(
        &self,
        place: &mut Place<R, S>,
        waker: &Waker,
        linger: impl FnOnce() -> bool,
        site_of: impl Fn(&R) -> S,
        in_flight: impl Fn() -> usize,
    ) -> Next<R> {
        {
            let mut desk = lock(&place.seat.desk);
            if let Some(item) = desk.batch.pop_front() {
                desk.polling = Some(site_of(&item));
                return Next::Poll(item, Help::None);
            }
            desk.polling = None;
        }
        let mut common = lock(&self.common.0);
        if !std::mem::take(&mut place.yielded) {
            common.looked(place.number);
        }
        if let Some(item) = self.take_batch(&mut common, place) {
            lock(&place.seat.desk).polling = Some(site_of(&item));
            let help = match self.elastic {
                true => {
                    let ready = common.ready.len() + common.in_seats();
                    self.help(&mut common, ready, From::Worker)
                }
                false => Help::None,
            };
            return Next::Poll(item, help);
        }
        let surplus = common.idle.len() > self.spare;
        let done = self.abandoned.load(Ordering::Acquire) && in_flight() == 0;
        if common.dead || surplus || done {
            let member = common.seats.try_remove(place.number);
            drop(common);
            drop(member);
            return Next::Leave;
        }
        if linger() {
            common.notify(place.number, From::Worker);
            return Next::Linger;
        }
        common.idle.push((place.number, waker.clone()));
        Next::Sleep
    }

    /// Fills the driver's batch from the common queue or from another's seat, and takes the first
    /// item.
    fn take_batch(&self, common: &mut Common<R, S>, place: &Place<R, S>) -> Option<R> {
        if let Some(item) = common.ready.pop_front() {
            // In parallel, half of it stays in common for whoever comes next.
            let share = if self.elastic { common.ready.len() / 2 } else { common.ready.len() };
            let more = share.min(BATCH - 1);
            lock(&place.seat.desk).batch.extend(common.ready.drain(..more));
            if common.ready.is_empty() && common.ready.capacity() > KEPT_ROOM {
                common.ready = VecDeque::new();
            }
            return Some(item);
        }
        if !self.elastic {
            return None;
        }
        common.seats.iter().filter(|(number, _)| *number != place.number).find_map(|(_, member)| {
            let mut loot: VecDeque<R> = {
                let mut desk = lock(&member.seat.desk);
                let keep = desk.batch.len() / 2;
                desk.batch.drain(keep..).collect()
            };
            let item = loot.pop_front()?;
            lock(&place.seat.desk).batch.append(&mut loot);
            Some(item)
        })
    }

    /// A driver lets others have its worker for a moment.
    pub(super) fn yields(&self, place: &mut Place<R, S>) {
        place.yielded = true;
        lock(&place.seat.desk).polling = None;
    }

    /// Stores how to wake suspended work; `None` if the queue is dead.
    pub(super) fn suspend(&self, waker: Waker) -> Option<u32> {
        let mut suspended = lock(&self.suspended.0);
        match suspended.as_mut() {
            Some(slab) if slab.len() < u32::MAX as usize => Some(slab.insert(waker) as u32),
            _ => {
                drop(suspended);
                drop(waker);
                None
            }
        }
    }

    /// Forgets suspended work that has ended.
    pub(super) fn unsuspend(&self, place: u32) {
        let mut suspended = lock(&self.suspended.0);
        let Some(slab) = suspended.as_mut() else { return };
        let removed = slab.try_remove(place as usize);
        let surplus =
            (slab.is_empty() && slab.capacity() > KEPT_ROOM).then(|| std::mem::take(slab));
        drop(suspended);
        drop((removed, surplus));
    }

    /// The waker of suspended work, if it still is; its place can have another tenant by now.
    pub(super) fn waker_of(&self, place: u32) -> Option<Waker> {
        lock(&self.suspended.0).as_ref().and_then(|slab| slab.get(place as usize).cloned())
    }

    /// Lets drivers leave when nothing is in flight; returns those to wake for that.
    pub(super) fn abandon(&self) -> Vec<Waker> {
        self.abandoned.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        lock(&self.common.0).wake_all()
    }

    /// After the end of a call: the drivers to wake so that they leave, if it was the last one of
    /// an abandoned queue.
    pub(super) fn leavers(&self, in_flight: impl Fn() -> usize) -> Vec<Waker> {
        // The fence is the one of the release: it, or the driver's own look, sees the other.
        if self.abandoned.load(Ordering::Acquire) && in_flight() == 0 {
            lock(&self.common.0).wake_all()
        } else {
            Vec::new()
        }
    }

    /// Takes everything out and lets nothing in any more.
    pub(super) fn kill(&self) -> Remains<R> {
        let mut common = lock(&self.common.0);
        common.dead = true;
        let mut ready = std::mem::take(&mut common.ready);
        for (_, member) in &common.seats {
            ready.append(&mut lock(&member.seat.desk).batch);
        }
        let mut wakers = common.wake_all();
        drop(common);
        let suspended = lock(&self.suspended.0).take();
        wakers.extend(suspended.into_iter().flatten().map(|(_, waker)| waker));
        Remains { ready, wakers }
    }

    /// Where the work was submitted that is inside a poll.
    pub(super) fn polled(&self) -> Vec<S> {
        let common = lock(&self.common.0);
        common.seats.iter().filter_map(|(_, member)| lock(&member.seat.desk).polling).collect()
    }
}

impl<R, S> Common<R, S> {
    fn ask_for_a_driver(&mut self, from: From) -> Help {
        self.spawning += 1;
        *self.notified.by(from) += 1;
        Help::Spawn(from)
    }

    fn notify(&mut self, number: usize, from: From) {
        if let Some(member) = self.seats.get_mut(number) {
            member.notified = Some(from);
            *self.notified.by(from) += 1;
        }
    }

    /// How much ready work is in seats, where a slow poll can keep it waiting.
    fn in_seats(&self) -> usize {
        self.seats.iter().map(|(_, member)| lock(&member.seat.desk).batch.len()).sum()
    }

    /// A driver looks for the first time since it slept.
    fn looked(&mut self, number: usize) {
        if let Some(from) = self.seats.get_mut(number).and_then(|member| member.notified.take()) {
            *self.notified.by(from) -= 1;
        } else if let Some(position) = self.idle.iter().position(|(idle, _)| *idle == number) {
            // Polled for another reason than a wake of ours. Its waker is one more reference to a
            // running task, so that it may be dropped here.
            drop(self.idle.swap_remove(position));
        }
    }

    fn wake_all(&mut self) -> Vec<Waker> {
        let idle = std::mem::take(&mut self.idle);
        let woken = idle.into_iter().map(|(number, waker)| {
            self.notify(number, From::Outside);
            waker
        });
        woken.collect()
    }
}
