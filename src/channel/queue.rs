//! The frames between the senders and the consumer, and how many of them count.
//!
//! Two ways out. *Batched*: the consumer exchanges its empty buffer for the whole queue under one
//! lock and hands the frames out without it; what it was lent and has not handed out still counts
//! against the capacity. *Popped*: one frame at a time under the lock, for the policies that must
//! reach the oldest frame and for what must be accounted frame by frame (weights, watermarks).
//!
//! Invariants:
//! 1. `Queue` is only touched under the channel's lock; `Handed` is shared without it.
//! 2. `lent - seen` is never less than what the consumer really still holds: `seen` lags behind
//!    `Handed`, so a stale view can make the queue look fuller than it is, never emptier.
//! 3. A sender that is about to park sets `WAITING` and then reads the count; the consumer counts
//!    and reads `WAITING` in one step, on the same word. Whichever comes second sees the other, so
//!    no freed slot goes unnoticed. The same with `PATIENT`, for the slot that a turn ends with.
//! 4. Only the consumer counts, so what it reads there itself is exact. `start` is set under the
//!    lock, so whoever reads the count under the lock finds it at `start` or beyond.
//! 5. Control frames take no room. They are in no count of slots, `Handed` included, but in one of
//!    their own, which the consumer lowers under the lock.

use super::buffer::{Buffer, FrameOrGap, Piece, give_room_back};
use crate::sync::prim::CachePadded;
use crate::sync::prim::atomic::{AtomicUsize, Ordering};
use std::collections::VecDeque;

/// Somebody waits for the next slot.
const WAITING: usize = 1;
/// Somebody waits who is content to be served by turns.
const PATIENT: usize = 2;
const ONE: usize = 4;

/// How many frames the consumer has handed out of its batches, and whether a sender waits.
///
/// Padded: the consumer writes it for each frame, the senders what is beside it.
pub(super) struct Handed {
    count: CachePadded<AtomicUsize>,
    /// After so many frames a sender has its turn; a power of two.
    turn: usize,
}

impl Handed {
    pub(super) fn new(turn: usize) -> Self {
        debug_assert!(
            turn.is_power_of_two(),
            "turns stay where they are when the count starts over"
        );
        Handed { count: CachePadded(AtomicUsize::new(0)), turn }
    }

    /// Counts `frames` more; tells how many of those that wait may be served now. (3): one step with the
    /// look at the marks; pairs with `announce`.
    #[inline]
    pub(super) fn add(&self, frames: usize) -> usize {
        let before = self.count.0.fetch_add(frames * ONE, Ordering::AcqRel);
        match before & (WAITING | PATIENT) {
            0 => 0,
            PATIENT => (before / ONE % self.turn + frames) / self.turn,
            _ => usize::MAX,
        }
    }

    /// Announces a waiting sender, who then looks at the count once more. (3): pairs with `add`.
    pub(super) fn announce(&self, patient: bool) {
        self.count.0.fetch_or(if patient { PATIENT } else { WAITING }, Ordering::AcqRel);
    }

    /// Keeps the marks of those that still wait; under the channel's lock, so that no announcement is lost.
    pub(super) fn retract(&self, waiting: bool, patient: bool) {
        let mut over = 0;
        if !waiting {
            over |= WAITING;
        }
        if !patient {
            over |= PATIENT;
        }
        // Marks change under the lock alone.
        if self.count.0.load(Ordering::Relaxed) & over != 0 {
            self.count.0.fetch_and(!over, Ordering::AcqRel);
        }
    }

    /// Whether somebody stands in line; a guess, without the lock.
    pub(super) fn somebody_waits(&self) -> bool {
        self.count.0.load(Ordering::Relaxed) & (WAITING | PATIENT) != 0
    }

    /// How far the consumer has come; starts over at zero some day. Pairs with `add`: the slots counted here
    /// are free.
    pub(super) fn position(&self) -> Position {
        Position(self.count.0.load(Ordering::Acquire) & !(WAITING | PATIENT))
    }
}

/// How many frames had been handed out at some time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Position(usize);

impl Position {
    /// How many frames lie between, fewer than half of all numbers.
    fn since(self, earlier: Position) -> usize {
        self.0.wrapping_sub(earlier.0) / ONE
    }
}

/// The frames that wait, oldest first.
///
/// What a send looks at comes first and lies together.
#[repr(C)]
pub(super) struct Queue<T> {
    /// How many slots frames may take: the capacity without what is reserved.
    pub(super) limit: usize,
    /// The size of the consumer's current batch.
    lent: usize,
    /// How much of it was handed out, as far as is known here.
    seen: usize,
    /// Where the consumer was when it got it.
    start: Position,
    frames: Buffer<T>,
    /// What each frame weighs, beside the frames; stays empty in an unweighed channel.
    weights: VecDeque<usize>,
    /// The sum of `weights`.
    weight: usize,
    /// The control frames that the consumer has not been handed, those that it was lent included.
    controls: usize,
    /// How many control frames the consumer has been handed.
    controls_out: u64,
    /// Whether the consumer wants to know where frames are missing.
    pub(super) notes_gaps: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Queue {
            limit: capacity,
            frames: Buffer::new(),
            weights: VecDeque::new(),
            weight: 0,
            lent: 0,
            seen: 0,
            start: Position(0),
            controls: 0,
            controls_out: 0,
            notes_gaps: false,
        }
    }

    /// The slots the consumer has not been handed, as far as is known (invariant 2).
    pub(super) fn len(&self) -> usize {
        self.frames.len() + self.lent - self.seen
    }

    /// The slots that the consumer has been given no batch of.
    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "nobody follows a frame"))]
    pub(super) fn slots(&self) -> usize {
        self.frames.len()
    }

    /// As [`len`](Self::len), with the frames that take no slot.
    pub(super) fn frames(&self) -> usize {
        self.len() + self.controls
    }

    /// Whether there is nothing to hand out beyond the consumer's batch.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Looks how far the consumer has come.
    pub(super) fn refresh(&mut self, handed: &Handed) {
        self.seen = handed.position().since(self.start);
    }

    /// Frames handed out of the current batch, as far as is known.
    pub(super) fn seen(&self) -> usize {
        self.seen
    }

    pub(super) fn push(&mut self, frame: T, weight: Option<usize>) {
        self.frames.push(frame);
        if let Some(weight) = weight {
            self.weights.push_back(weight);
            self.weight += weight;
        }
    }

    pub(super) fn push_control(&mut self, frame: T) {
        self.frames.push_control(frame);
        self.controls += 1;
    }

    /// Control frames that the consumer has not been handed, and that it has.
    pub(super) fn controls(&self) -> (u64, u64) {
        (self.controls as u64, self.controls_out)
    }

    /// The consumer was handed control frames.
    pub(super) fn handed_controls(&mut self, controls: usize) {
        self.controls -= controls;
        self.controls_out += controls as u64;
    }

    /// A frame that would be pushed now is missing.
    pub(super) fn push_gap(&mut self) {
        self.frames.push_gap();
    }

    /// Hands out what comes first.
    pub(super) fn pop(&mut self) -> Option<FrameOrGap<T>> {
        let piece = self.frames.pop()?;
        match piece {
            Piece::Frame(_) => self.emptied_slot(),
            Piece::Control(_) => self.handed_controls(1),
            Piece::Gap(_) => {}
        }
        Some(piece.into_item())
    }

    /// Takes the oldest frame that a policy may drop.
    #[inline]
    pub(super) fn evict(&mut self) -> Option<T> {
        let victim = self.pop_slot()?;
        if self.notes_gaps {
            self.frames.gap_in_front();
        }
        Some(victim)
    }

    /// Whether there are slots to hand out, and nothing in between.
    pub(super) fn is_plain(&self) -> bool {
        self.frames.is_plain()
    }

    /// The first slot's frame, whatever lies before it.
    pub(super) fn pop_slot(&mut self) -> Option<T> {
        let frame = self.frames.pop_slot();
        self.emptied_slot();
        frame
    }

    fn emptied_slot(&mut self) {
        if let Some(weight) = self.weights.pop_front() {
            self.weight -= weight;
            give_room_back(&mut self.weights);
        }
        self.frames.give_room_back();
    }

    /// Gives the consumer, whose `batch` is used up, everything there is; returns how many frames
    /// the used-up batch had.
    pub(super) fn lend(&mut self, batch: &mut Buffer<T>, handed: &Handed) -> usize {
        debug_assert!(batch.is_empty(), "a batch is exchanged when it is used up");
        let used_up = std::mem::replace(&mut self.lent, self.frames.len());
        self.seen = 0;
        self.start = handed.position();
        std::mem::swap(&mut self.frames, batch);
        self.frames.give_room_back();
        batch.give_room_back();
        used_up
    }

    /// Takes everything away for good, what the consumer was lent included; returns the frames, how
    /// many of the last batch had been handed out, and how many there still were.
    pub(super) fn clear(&mut self, handed: &Handed) -> (Buffer<T>, usize, usize) {
        self.refresh(handed);
        let (handed_out, left) = (self.seen, self.frames());
        self.start = handed.position();
        (self.lent, self.seen, self.weight, self.controls) = (0, 0, 0, 0);
        self.weights.clear();
        (std::mem::replace(&mut self.frames, Buffer::new()), handed_out, left)
    }
}
