//! What the two ends of a channel share.
//!
//! Invariants:
//! 1. All of `State` changes under its one lock. While it is held nothing is woken, no hook runs,
//!    and no frame, waker or error is dropped: they are moved out and dealt with afterwards.
//! 2. `end` is set once. From then on no frame enters the queue, so the frames before it, the error
//!    and the end reach the consumer in this order.
//! 3. A parked sender's frame waits in `parked`. Whoever frees a slot moves the first such frame
//!    into the queue itself and then wakes its sender: a slot can't be given to a sender that has
//!    given up, and no wake needs to be passed on. A ticket that is no longer in the list has been
//!    served.
//! 4. Tickets below `hurried` are served in their order as slots get free, and later frames queue up
//!    behind, also if they would fit. The others wait patiently: one of them is served each turn of so
//!    many slots, and whoever finds room meanwhile takes it. Who has waited for `Rules::patience` hurries:
//!    each is a thread that says so by itself, and those that pass over the first look for it.
//! 5. While the channel is open and somebody in a hurry is parked, the first parked frame doesn't fit, or
//!    the thread that freed its slot is on its way to the lock. While somebody patient is parked, the
//!    consumer that finds the queue empty serves him before it sleeps.
//! 6. A waker in `consumer` is only there if the queue was empty and the channel open when it was
//!    put in; whoever changes either takes it out and wakes it.
//! 7. The consumer ends the channel and empties the queue under one lock when it leaves, so after
//!    that the queue is empty for good.

use super::backoff::Backoff;
use super::builder::Rules;
use super::error::SourceError;
use super::follow::Followed;
use super::hook::AtWork;
use super::overflow::{Ending, LossReason, Pressure};
use super::queue::{Handed, Queue};
use super::stats::{Counters, Stats};
use crate::sync::prim::atomic::AtomicUsize;
use crate::sync::prim::{Mutex, MutexGuard, lock};
use crate::sync::{Timing, WaitList, contain, wake};
use std::task::Waker;
use std::time::Instant;

pub(super) type Termination = Box<dyn FnOnce(Ending) + Send>;

pub(super) struct Shared<T> {
    pub(super) state: Mutex<State<T>>,
    /// The consumer's progress in its batch, and whether senders are parked.
    pub(super) handed: Handed,
    /// How many strong senders there are.
    pub(super) senders: AtomicUsize,
    pub(super) rules: Rules<T>,
    /// How long frames waited, of those that are followed.
    pub(super) waited: Timing,
    /// How long a sender without room stays awake.
    pub(super) backoff: Backoff,
}

/// What a send looks at comes first and lies together.
#[repr(C)]
pub(super) struct State<T> {
    pub(super) end: Option<End>,
    /// The senders that wait for room, each with its frame.
    pub(super) parked: WaitList<Parked<T>>,
    /// Whoever stands in line with a ticket below this one is in a hurry, see (4).
    pub(super) hurried: u64,
    /// After so many offered frames, who passes over others looks how long they have waited.
    pub(super) look_at: u64,
    /// Who to wake when a frame or the end comes.
    pub(super) consumer: Option<Waker>,
    pub(super) queue: Queue<T>,
    pub(super) counters: Counters,
    pub(super) followed: Followed,
    /// Who waits until the consumer has come so far.
    pub(super) flushes: WaitList<Progress>,
    /// Who waits for the end, and what to call then.
    pub(super) end_waiters: WaitList,
    pub(super) terminations: Vec<Termination>,
    /// An empty buffer for frames evicted together, kept so that evicting allocates nothing.
    pub(super) spare: Vec<T>,
    pub(super) pressure: Crossings,
}

pub(super) struct Parked<T> {
    /// `None` for who waits for a slot alone.
    pub(super) frame: Option<T>,
    pub(super) weight: Option<usize>,
    pub(super) since: Instant,
}

pub(super) struct End {
    pub(super) ending: Ending,
    pub(super) error: Option<SourceError>,
    /// Whether the consumer has asked why it ended, or others are told.
    pub(super) looked_at: bool,
}

/// On which side of the watermarks the queue is, and what the hook knows of it.
#[derive(Default)]
pub(super) struct Crossings {
    is_high: bool,
    told_high: bool,
    /// How many threads are in the hook.
    telling: usize,
    /// Whether more than one has been since it was last idle.
    overlapped: bool,
}

impl<T> State<T> {
    /// Whether the consumer's progress is waited for.
    pub(super) fn somebody_waits(&self) -> bool {
        !(self.parked.is_empty() && self.flushes.is_empty())
    }

    /// Whether the first in line is in a hurry: who comes now stands behind.
    pub(super) fn somebody_hurries(&self) -> bool {
        self.parked.first().is_some_and(|first| first < self.hurried)
    }
}

impl<T> Shared<T> {
    pub(super) fn new(rules: Rules<T>) -> Self {
        Shared {
            state: Mutex::new(State {
                queue: Queue::new(rules.capacity),
                followed: Followed::default(),
                parked: WaitList::new(),
                hurried: 0,
                look_at: 0,
                flushes: WaitList::new(),
                consumer: None,
                end: None,
                end_waiters: WaitList::new(),
                terminations: Vec::new(),
                counters: Counters::default(),
                spare: Vec::new(),
                pressure: Crossings::default(),
            }),
            handed: Handed::new(rules.turn.unwrap_or(1)),
            senders: AtomicUsize::new(1),
            backoff: Backoff::new(rules.capacity),
            waited: if rules.name.is_some() { Timing::new() } else { Timing::none() },
            rules,
        }
    }

    pub(super) fn len(&self) -> usize {
        let mut state = lock(&self.state);
        state.queue.refresh(&self.handed);
        state.queue.frames()
    }

    pub(super) fn size_hint(&self) -> (usize, Option<usize>) {
        let mut state = lock(&self.state);
        state.queue.refresh(&self.handed);
        let queued = state.queue.frames();
        match state.end {
            Some(_) => (queued, Some(queued)),
            // One heavy frame can evict several light ones.
            None if self.rules.weighs() => (0, None),
            None => (queued, None),
        }
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        lock(&self.state).end.as_ref().map(|end| end.ending)
    }

    pub(super) fn stats(&self) -> Stats {
        let mut state = lock(&self.state);
        state.queue.refresh(&self.handed);
        let counters = &state.counters;
        Stats {
            offered: counters.offered,
            delivered: counters.delivered + state.queue.seen() as u64,
            queued: state.queue.frames() as u64,
            lost: counters.lost,
            refused: counters.refused,
            high_water: counters.high_water as u64,
            waiting: state.parked.len() as u64,
            blocked: counters.blocked,
        }
    }

    /// Counts a frame that never was in the queue as lost and tells whoever wants to know.
    pub(super) fn lose(&self, frame: &T, reason: LossReason) {
        self.lose_newest(lock(&self.state), frame, reason);
    }

    /// As [`lose`](Self::lose), under the lock.
    #[cold]
    pub(super) fn lose_newest(
        &self,
        mut state: MutexGuard<'_, State<T>>,
        frame: &T,
        reason: LossReason,
    ) {
        state.counters.lose_offered(reason);
        self.tell_newest_lost(state, frame, reason);
    }

    /// Turns a refusal that nobody will hear of into a loss.
    pub(super) fn lose_refused(&self, frame: &T, reason: LossReason) {
        let mut state = lock(&self.state);
        state.counters.lose_refused(reason);
        self.tell_newest_lost(state, frame, reason);
    }

    fn tell_newest_lost(&self, mut state: MutexGuard<'_, State<T>>, frame: &T, reason: LossReason) {
        let mut consumer = None;
        if state.queue.notes_gaps && state.end.is_none() {
            state.queue.push_gap();
            consumer = state.consumer.take();
        }
        drop(state);
        if let Some(consumer) = consumer {
            wake(consumer);
        }
        self.rules.tell_loss(frame, reason);
    }

    /// Notes whether the queue has crossed a mark; `true` when `tell_pressure` is due.
    pub(super) fn mark_pressure(&self, state: &mut State<T>) -> bool {
        let Some(marks) = &self.rules.watermarks else { return false };
        let (queued, crossings) = (state.queue.len(), &mut state.pressure);
        if crossings.is_high {
            crossings.is_high = queued > marks.low;
        } else {
            crossings.is_high = queued >= marks.high;
        }
        crossings.is_high != crossings.told_high
    }

    /// Tells the newest state, unless somebody has meanwhile. After calls that overlapped, the
    /// last one out tells it once more. What the hook itself brings about is told after it.
    pub(super) fn tell_pressure(&self) {
        let Some(marks) = &self.rules.watermarks else { return };
        let Some(_at_work) = AtWork::begin(&marks.hook) else { return };
        let mut state = lock(&self.state);
        loop {
            let crossings = &mut state.pressure;
            let settled = crossings.telling > 0 || !crossings.overlapped;
            if crossings.is_high == crossings.told_high && settled {
                return;
            }
            crossings.told_high = crossings.is_high;
            crossings.overlapped = crossings.telling > 0;
            crossings.telling += 1;
            let pressure = if crossings.is_high { Pressure::High } else { Pressure::Low };
            drop(state);
            contain("a watermark hook", || (marks.hook)(pressure));
            state = lock(&self.state);
            state.pressure.telling -= 1;
        }
    }
}

/// Drops what is a user's, or holds what is.
pub(super) fn drop_contained<V>(value: V) {
    contain("a destructor", || drop(value));
}

/// How many slots and control frames have left the queue.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    pub(super) slots: u64,
    pub(super) controls: u64,
}

impl Progress {
    pub(super) fn has_reached(self, wanted: Progress) -> bool {
        self.slots >= wanted.slots && self.controls >= wanted.controls
    }
}
