//! The consumer's side: take frames, or leave.
//!
//! The invariants are at the head of `state`.

use super::buffer::{Buffer, FrameOrGap, Piece};
use super::overflow::{Ending, LossReason};
use super::state::{Shared, State, drop_contained};
use crate::sync::prim::lock;
use crate::sync::{event, wake};
use std::task::Waker;

pub(super) enum Taken {
    /// This many frames, and gaps if the consumer wants them, went into the sink, at least one.
    Items(usize),
    /// There is nothing now; the waker, if one was given, will be woken when there is.
    Nothing,
    Ended(Ending),
}

impl<T> Shared<T> {
    /// Takes up to `max` items (at least 1) out of the batch and the queue. The sink may be called
    /// under the lock.
    pub(super) fn take(
        &self,
        batch: &mut Buffer<T>,
        max: usize,
        sink: &mut impl FnMut(FrameOrGap<T>),
        waker: Option<Waker>,
    ) -> Taken {
        let mut taken = self.hand_out(batch, max, sink);
        if taken == max {
            return Taken::Items(taken);
        }
        let mut state = lock(&self.state);
        if self.rules.batched {
            if state.queue.is_empty() && !state.parked.is_empty() {
                // Before it sleeps: those that wait patiently have what it wants.
                drop(state);
                self.serve_waiting(self.rules.turn.unwrap_or(usize::MAX));
                state = lock(&self.state);
            }
            let used_up = state.queue.lend(batch, &self.handed);
            state.counters.delivered += used_up as u64;
            state.followed.leave(&self.waited, usize::MAX);
        } else {
            // Nothing is taken yet: here the batch holds at most one gap, and gaps are asked for one by one.
            while taken < max && state.queue.is_plain() {
                let Some(frame) = state.queue.pop_slot() else { break };
                sink(FrameOrGap::Frame(frame));
                taken += 1;
            }
            state.counters.delivered += taken as u64;
            state.followed.leave(&self.waited, taken);
            // What lies between the slots was there before the first was taken.
            if taken == 0 && !state.queue.is_empty() {
                let slots = state.queue.slots();
                taken = Self::pop_pieces(&mut state, max, sink);
                let left = slots - state.queue.slots();
                state.followed.leave(&self.waited, left);
            }
        }
        if taken > 0 || !batch.is_empty() {
            let stale = state.consumer.take();
            let serve = !self.rules.batched && state.somebody_waits();
            let tell = self.mark_pressure(&mut state);
            drop(state);
            drop(stale);
            taken += self.hand_out(batch, max - taken, sink);
            if serve {
                self.serve_waiting(usize::MAX);
            }
            if tell {
                self.tell_pressure();
            }
            return Taken::Items(taken);
        }
        if let Some(end) = &state.end {
            return Taken::Ended(end.ending);
        }
        let stale = waker.and_then(|waker| state.consumer.replace(waker));
        drop(state);
        drop(stale);
        Taken::Nothing
    }

    /// Takes out of the queue, under the lock, where something lies between the slots.
    #[cold]
    fn pop_pieces(state: &mut State<T>, max: usize, sink: &mut impl FnMut(FrameOrGap<T>)) -> usize {
        let mut taken = 0;
        while taken < max {
            let Some(item) = state.queue.pop() else { break };
            state.counters.delivered += u64::from(matches!(item, FrameOrGap::Frame(_)));
            sink(item);
            taken += 1;
        }
        taken
    }

    /// Hands frames out of the batch, without the lock unless a sender waits for their slots or one
    /// of them took none.
    #[inline]
    fn hand_out(
        &self,
        batch: &mut Buffer<T>,
        max: usize,
        sink: &mut impl FnMut(FrameOrGap<T>),
    ) -> usize {
        if !batch.is_plain() {
            return if batch.is_empty() { 0 } else { self.hand_out_pieces(batch, max, sink) };
        }
        let slots = max.min(batch.len());
        for frame in std::iter::from_fn(|| batch.pop_slot()).take(slots) {
            sink(FrameOrGap::Frame(frame));
        }
        self.handed_out(slots);
        slots
    }

    /// As [`hand_out`](Self::hand_out), where something lies between the slots.
    #[cold]
    fn hand_out_pieces(
        &self,
        batch: &mut Buffer<T>,
        max: usize,
        sink: &mut impl FnMut(FrameOrGap<T>),
    ) -> usize {
        let (mut slots, mut controls, mut gaps) = (0, 0, 0);
        for piece in batch.take(max) {
            match piece {
                Piece::Frame(_) => slots += 1,
                Piece::Control(_) => controls += 1,
                Piece::Gap(_) => gaps += 1,
            }
            sink(piece.into_item());
        }
        self.handed_out(slots);
        if controls > 0 {
            let mut state = lock(&self.state);
            state.queue.handed_controls(controls);
            state.counters.delivered += controls as u64;
            let serve = !state.flushes.is_empty();
            drop(state);
            if serve {
                self.serve_waiting(usize::MAX);
            }
        }
        slots + controls + gaps
    }

    /// Hands out the next frame of a batch that is plain slots.
    #[inline]
    pub(super) fn hand_out_one(&self, batch: &mut Buffer<T>) -> Option<T> {
        let frame = batch.pop_slot()?;
        self.handed_out(1);
        Some(frame)
    }

    /// Frames have left the batch, and whoever waits for their slots is served.
    #[inline]
    fn handed_out(&self, slots: usize) {
        let most = self.handed.add(slots);
        if most > 0 {
            self.serve_waiting(most);
        }
    }

    /// Leaves a waker for who comes next; `false` if there is something to read beyond the batch.
    pub(super) fn leave_waker(&self, waker: Waker) -> bool {
        let mut state = lock(&self.state);
        let waits = state.queue.is_empty() && state.end.is_none();
        let stale = if waits { state.consumer.replace(waker) } else { Some(waker) };
        drop(state);
        drop(stale);
        waits
    }

    /// From now on the places of missing frames are noted; returns how many are missing already.
    pub(super) fn note_gaps(&self) -> u64 {
        let mut state = lock(&self.state);
        state.queue.notes_gaps = true;
        state.counters.lost.total()
    }

    /// The stream is dropped: ends the channel and empties it.
    pub(super) fn leave(&self, batch: Buffer<T>) {
        let mut state = lock(&self.state);
        let unread = Self::error_not_looked_at(&mut state);
        let notifications = self.end_locked(&mut state, Ending::ConsumerDropped, None);
        let (queued, handed_out, left) = state.queue.clear(&self.handed);
        state.followed.vanish(usize::MAX);
        state.counters.delivered += handed_out as u64;
        state.counters.lose_queued(left, LossReason::ConsumerDropped);
        let waker = state.consumer.take();
        let flushers = state.flushes.take_wakers();
        let tell = self.mark_pressure(&mut state);
        drop(state);
        drop(waker);
        flushers.into_iter().for_each(wake);
        if let Ok(notifications) = notifications {
            notifications.wake_all();
        }
        if let Some(error) = unread {
            event(format_args!("a source ended with an error that nobody looked at"), &error);
        }
        for item in batch.chain(queued).map(Piece::into_item) {
            if let FrameOrGap::Frame(frame) = item {
                self.rules.tell_loss(&frame, LossReason::ConsumerDropped);
                drop_contained(frame);
            }
        }
        if tell {
            self.tell_pressure();
        }
    }
}
