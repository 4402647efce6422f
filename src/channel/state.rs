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
//! 4. While somebody is parked, later frames queue up behind, also if they would fit.
//! 5. While the channel is open and somebody is parked, the first parked frame doesn't fit, or the
//!    thread that freed its slot is on its way to the lock.
//! 6. A waker in `consumer` is only there if the queue was empty and the channel open when it was
//!    put in; whoever changes either takes it out and wakes it.
//! 7. The consumer ends the channel and empties the queue under one lock when it leaves, so after
//!    that the queue is empty for good.

use super::backoff::Backoff;
use super::builder::Rules;
use super::error::SourceError;
use super::overflow::{Ending, LossReason};
use super::queue::{Handed, Queue};
use super::stats::{Books, Stats};
use crate::sync::WaitList;
use crate::sync::prim::atomic::AtomicUsize;
use crate::sync::prim::{Mutex, lock};
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
    /// How long a sender without room stays awake.
    pub(super) backoff: Backoff,
}

pub(super) struct State<T> {
    pub(super) queue: Queue<T>,
    /// The senders that wait for room, each with its frame.
    pub(super) parked: WaitList<Parked<T>>,
    /// Who to wake when a frame or the end comes.
    pub(super) consumer: Option<Waker>,
    pub(super) end: Option<End>,
    /// Who waits for the end, and what to call then.
    pub(super) end_waiters: WaitList,
    pub(super) terminations: Vec<Termination>,
    pub(super) books: Books,
    /// An empty buffer for frames evicted together, kept so that evicting allocates nothing.
    pub(super) spare: Vec<T>,
    pub(super) pressure: Crossings,
}

pub(super) struct Parked<T> {
    pub(super) frame: T,
    pub(super) weight: Option<usize>,
    pub(super) since: Instant,
}

pub(super) struct End {
    pub(super) ending: Ending,
    pub(super) error: Option<SourceError>,
}

/// How often the watermarks were crossed: odd means high, even means low.
#[derive(Default)]
pub(super) struct Crossings {
    seen: u64,
    told: u64,
    /// Whether some thread is telling them, in their order.
    telling: bool,
}

impl<T> Shared<T> {
    pub(super) fn new(rules: Rules<T>) -> Self {
        Shared {
            state: Mutex::new(State {
                queue: Queue::new(),
                parked: WaitList::new(),
                consumer: None,
                end: None,
                end_waiters: WaitList::new(),
                terminations: Vec::new(),
                books: Books::default(),
                spare: Vec::new(),
                pressure: Crossings::default(),
            }),
            handed: Handed::new(),
            senders: AtomicUsize::new(1),
            backoff: Backoff::new(rules.capacity),
            rules,
        }
    }

    pub(super) fn len(&self) -> usize {
        let mut state = lock(&self.state);
        state.queue.refresh(&self.handed);
        state.queue.len()
    }

    pub(super) fn size_hint(&self) -> (usize, Option<usize>) {
        let mut state = lock(&self.state);
        state.queue.refresh(&self.handed);
        let queued = state.queue.len();
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
        let books = &state.books;
        Stats {
            offered: books.offered,
            delivered: books.delivered + state.queue.seen() as u64,
            queued: state.queue.len() as u64,
            lost: books.lost,
            refused: books.refused,
            high_water: books.high_water as u64,
            waiting: state.parked.len() as u64,
            blocked: books.blocked,
        }
    }

    /// Books a frame that never was in the queue as lost and tells the hook.
    pub(super) fn lose(&self, frame: &T, reason: LossReason) {
        lock(&self.state).books.lose_offered(reason);
        self.rules.tell_loss(frame, reason);
    }

    /// Turns a refusal that nobody will hear of into a loss.
    pub(super) fn lose_refused(&self, frame: &T, reason: LossReason) {
        lock(&self.state).books.lose_refused(reason);
        self.rules.tell_loss(frame, reason);
    }

    /// Notes whether the queue has crossed a mark; `true` when `tell_pressure` is due.
    pub(super) fn mark_pressure(&self, state: &mut State<T>) -> bool {
        let Some(marks) = &self.rules.watermarks else { return false };
        let (queued, crossings) = (state.queue.len(), &mut state.pressure);
        let is_high = crossings.seen % 2 == 1;
        if if is_high { queued <= marks.low } else { queued >= marks.high } {
            crossings.seen += 1;
        }
        crossings.told < crossings.seen && !crossings.telling
    }

    /// Tells every crossing in its order. A crossing that comes meanwhile, also from inside the
    /// hook, is left to the thread that is already telling.
    pub(super) fn tell_pressure(&self) {
        use super::overflow::Pressure;
        let Some(marks) = &self.rules.watermarks else { return };
        let mut state = lock(&self.state);
        if state.pressure.telling {
            return;
        }
        state.pressure.telling = true;
        while state.pressure.told < state.pressure.seen {
            state.pressure.told += 1;
            let is_high = state.pressure.told % 2 == 1;
            drop(state);
            let pressure = if is_high { Pressure::High } else { Pressure::Low };
            crate::sync::contain("a watermark hook", || (marks.hook)(pressure));
            state = lock(&self.state);
        }
        state.pressure.telling = false;
    }
}
