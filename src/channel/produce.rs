//! The sender's side: offer a frame, wait for room, give up.
//!
//! The invariants are at the head of `state`.

use super::buffer::kept_slots;
use super::error::SendError;
use super::overflow::{Fallback, LossReason, Overflow, Sent};
use super::state::{Parked, Shared, State, drop_contained};
use crate::sync::prim::{MutexGuard, lock};
use crate::sync::{Deadline, WaitError, may_wait, park_until, wake};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// After so many frames a send looks at the clock for those that wait: its time is then a part of the frames'.
const LOOK_EVERY: u64 = 16;

const UNTOUCHED: &str = "a frame that isn't accepted stays where it is";

/// What to do with a frame that doesn't fit.
pub(super) enum OnFull {
    /// Hand it back as `Full`; the caller will offer it again, so the counters don't know it yet.
    Ask,
    /// Hand it back for good.
    Refuse,
    /// The same, for a frame whose slot is reserved: it gives the reservation up and takes the slot.
    Reserved,
    Drop,
    Evict,
    /// Let it wait in line, where its sender has been waiting since then; if patiently, the sender will
    /// hurry later.
    Park {
        waker: Waker,
        since: Instant,
        patient: bool,
    },
}

impl OnFull {
    /// What a policy that doesn't wait does.
    pub(super) fn at_once(policy: Overflow) -> Self {
        match policy {
            Overflow::DropNewest => OnFull::Drop,
            Overflow::DropOldest | Overflow::Latest => OnFull::Evict,
            _ => OnFull::Refuse,
        }
    }
}

pub(super) type Outcome<T> = Result<Sent<T>, SendError<T>>;

pub(super) enum Offered<T> {
    Settled(Outcome<T>),
    /// The frame waits in line under this ticket.
    Parked(u64),
}

impl<T> Shared<T> {
    /// What `Sender::send` does.
    #[inline]
    pub(super) fn send(&self, frame: T) -> Outcome<T> {
        let mut frame = Some(frame);
        match self.send_at_once(&mut frame) {
            Some(remaining) => Ok(Sent::Queued { remaining }),
            None => self.send_otherwise(frame.expect(UNTOUCHED)),
        }
    }

    /// The short way for a frame that fits without further ado; tells how many more would fit.
    /// `None` leaves the frame where it is, with nothing done and nothing booked.
    ///
    /// The frame isn't passed by value and back: a result that may hold it is put together in
    /// memory, and reading it back waited for the lock's stores, which took longer than the rest.
    #[inline]
    fn send_at_once(&self, frame: &mut Option<T>) -> Option<usize> {
        if !self.rules.batched {
            return None;
        }
        let mut state = self.lock_to_send();
        if state.end.is_some() || state.somebody_hurries() || !self.has_room(&mut state, None) {
            return None;
        }
        let consumer = self.accept(&mut state, frame.take()?, None);
        let remaining = self.remaining(&state);
        drop(state);
        if let Some(consumer) = consumer {
            wake(consumer);
        }
        Some(remaining)
    }

    /// Locks the state for who may pass over others. Once in so many frames it looks how long the first in line
    /// has been patient: its own thread may take long to wake up and say so, where many others want to run.
    #[inline]
    pub(super) fn lock_to_send(&self) -> MutexGuard<'_, State<T>> {
        let mut state = lock(&self.state);
        if state.parked.is_empty() || state.counters.offered < state.look_at {
            return state;
        }
        state.look_at = state.counters.offered + LOOK_EVERY;
        if self.hurry_first(&mut state) {
            drop(state);
            self.serve_waiting(usize::MAX);
            state = lock(&self.state);
        }
        state
    }

    fn send_otherwise(&self, frame: T) -> Outcome<T> {
        let on_full = match self.rules.overflow {
            Overflow::Block => return self.send_waiting(frame, None, OnFull::Refuse),
            Overflow::BlockFor(limit, fallback) => {
                let at_last = match fallback {
                    Fallback::DropNewest => OnFull::Drop,
                    Fallback::DropOldest => OnFull::Evict,
                    Fallback::Fail => OnFull::Refuse,
                };
                return self.send_waiting(frame, Some(limit), at_last);
            }
            policy => OnFull::at_once(policy),
        };
        let weight = self.rules.weigh(&frame);
        self.offer_now(frame, weight, on_full)
    }

    #[inline]
    pub(super) fn try_send(&self, frame: T) -> Outcome<T> {
        let mut frame = Some(frame);
        match self.send_at_once(&mut frame) {
            Some(remaining) => Ok(Sent::Queued { remaining }),
            None => self.try_send_otherwise(frame.expect(UNTOUCHED)),
        }
    }

    fn try_send_otherwise(&self, frame: T) -> Outcome<T> {
        let weight = self.rules.weigh(&frame);
        self.offer_now(frame, weight, OnFull::Refuse)
    }

    /// Waits for room up to `limit`, then does `at_last`, which must not park.
    pub(super) fn send_waiting(
        &self,
        frame: T,
        limit: Option<Duration>,
        at_last: OnFull,
    ) -> Outcome<T> {
        let weight = self.rules.weigh(&frame);
        // Noted before the queue is found full, so that no progress after that is overlooked.
        let before = self.handed.position();
        let frame = match self.offer_now(frame, weight, OnFull::Ask) {
            Err(SendError::Full(frame)) => frame,
            settled => return settled,
        };
        let give_up = |frame| self.offer_now(frame, weight, at_last).map_err(SendError::in_time);
        let (since, deadline) = (Instant::now(), Deadline::after(limit));
        match may_wait(deadline) {
            Ok(()) => {}
            Err(WaitError::WouldDeadlock) => {
                self.book_refusal();
                return Err(SendError::WouldDeadlock(frame));
            }
            Err(_) => return give_up(frame),
        }
        let made_progress = || self.handed.position() != before;
        let mut frame = Some(frame);
        // Beside others that wait, one more that is awake would only be in the way.
        if self.rules.spins
            && !self.handed.somebody_waits()
            && self.backoff.pause_sending(deadline, made_progress)
        {
            if let Some(remaining) = self.send_at_once(&mut frame) {
                return Ok(Sent::Queued { remaining });
            }
        }
        let mut ticket = None;
        // Who waits alone gets the first room there is.
        let patient = self.rules.turn.is_some() && self.handed.somebody_waits();
        let patient_until = if patient { deadline.or_after(self.rules.patience) } else { deadline };
        let mut settled = park_until(patient_until, |cx| {
            let settled = match ticket {
                Some(ticket) => self.settle(ticket),
                None => {
                    let waker = cx.waker().clone();
                    let on_full = OnFull::Park { waker, since, patient };
                    match self.offer(frame.take().expect(UNTOUCHED), weight, on_full) {
                        Offered::Settled(outcome) => Some(outcome),
                        Offered::Parked(number) => {
                            ticket = Some(number);
                            None
                        }
                    }
                }
            };
            settled.map_or(Poll::Pending, Poll::Ready)
        });
        if let (None, Some(ticket), true) = (&settled, ticket, patient_until != deadline) {
            let mut hurries = false;
            settled = park_until(deadline, |cx| {
                if !std::mem::replace(&mut hurries, true) {
                    self.hurry(ticket, cx.waker().clone());
                }
                self.settle(ticket).map_or(Poll::Pending, Poll::Ready)
            });
        }
        settled.unwrap_or_else(|| match ticket.and_then(|ticket| self.withdraw(ticket)) {
            Some(frame) => give_up(frame),
            None => self.served(),
        })
    }

    pub(super) fn offer_now(&self, frame: T, weight: Option<usize>, on_full: OnFull) -> Outcome<T> {
        match self.offer(frame, weight, on_full) {
            Offered::Settled(outcome) => outcome,
            Offered::Parked(_) => unreachable!("only `OnFull::Park` parks"),
        }
    }

    /// Puts a frame behind what is queued, whatever room there is.
    pub(super) fn send_control(&self, frame: T) -> Result<(), SendError<T>> {
        let mut state = lock(&self.state);
        state.counters.offered += 1;
        if state.end.is_some() {
            state.counters.refused += 1;
            return Err(SendError::Closed(frame));
        }
        state.queue.push_control(frame);
        let consumer = state.consumer.take();
        drop(state);
        if let Some(consumer) = consumer {
            wake(consumer);
        }
        Ok(())
    }

    pub(super) fn offer(&self, frame: T, weight: Option<usize>, on_full: OnFull) -> Offered<T> {
        let mut state = self.lock_to_send();
        let mut may_enter = !state.somebody_hurries();
        if let OnFull::Reserved = on_full {
            // Under this very lock the slot goes to its frame, ahead of those that wait for others.
            state.queue.limit += 1;
            may_enter = true;
        }
        if state.end.is_some() {
            state.counters.refuse();
            return refused(SendError::Closed(frame));
        }
        if weight.is_some_and(|weight| weight > self.rules.budget()) {
            self.lose_newest(state, &frame, LossReason::TooHeavy);
            return refused(SendError::TooHeavy(frame));
        }
        if may_enter && self.has_room(&mut state, weight) {
            return Offered::Settled(Ok(self.accept_now(state, frame, weight)));
        }
        match on_full {
            OnFull::Ask => refused(SendError::Full(frame)),
            OnFull::Refuse | OnFull::Reserved => {
                state.counters.refuse();
                refused(SendError::Full(frame))
            }
            OnFull::Evict if state.queue.limit > 0 => {
                Offered::Settled(Ok(self.evict_for(state, frame, weight)))
            }
            // Where every slot is reserved there is nothing to evict.
            OnFull::Drop | OnFull::Evict => {
                self.lose_newest(state, &frame, LossReason::Overflow);
                Offered::Settled(Ok(Sent::Dropped(frame)))
            }
            OnFull::Park { waker, since, patient } => {
                // Only now, with the announcement out, is "full" final (see `queue`, invariant 3).
                self.handed.announce(patient);
                if may_enter && self.has_room(&mut state, weight) {
                    self.retract_if_idle(&state);
                    return Offered::Settled(Ok(self.accept_now(state, frame, weight)));
                }
                if !patient {
                    state.hurried = state.parked.next() + 1;
                }
                let parked = Parked { frame: Some(frame), weight, since };
                Offered::Parked(state.parked.push(parked, waker))
            }
        }
    }

    /// What became of a parked frame; `None` while it still waits.
    pub(super) fn settle(&self, ticket: u64) -> Option<Outcome<T>> {
        let mut state = lock(&self.state);
        if !state.parked.contains(ticket) {
            drop(state);
            return Some(self.served());
        }
        state.end.as_ref()?;
        let (parked, waker) = state.parked.remove(ticket)?;
        state.counters.refuse();
        state.counters.waited(parked.since.elapsed());
        drop(state);
        drop(waker);
        parked.frame.map(|frame| Err(SendError::Closed(frame)))
    }

    /// Takes a parked frame out of the line; `None` if it has been served. The counters don't know it.
    pub(super) fn withdraw(&self, ticket: u64) -> Option<T> {
        self.leave_line(ticket)?.frame
    }

    /// Takes out of the line who stands there under this ticket; `None` if it has been served.
    pub(super) fn leave_line(&self, ticket: u64) -> Option<Parked<T>> {
        let mut state = lock(&self.state);
        let (parked, waker) = state.parked.remove(ticket)?;
        state.counters.waited(parked.since.elapsed());
        self.retract_if_idle(&state);
        drop(state);
        drop(waker);
        // The next in line may weigh less and fit where this one didn't.
        self.serve_waiting(usize::MAX);
        Some(parked)
    }

    /// Moves up to `most` parked frames into the queue as long as the first one fits, waking each sender;
    /// wakes whoever has waited for the consumer to come so far.
    pub(super) fn serve_waiting(&self, most: usize) {
        let mut served = 0;
        loop {
            let mut state = lock(&self.state);
            if let Some((_, flusher)) = self.pop_flush(&mut state) {
                drop(state);
                flusher.into_iter().for_each(wake);
                continue;
            }
            let Some(first) = state.parked.front() else { return };
            let weight = first.weight;
            if served == most || state.end.is_some() || !self.has_room(&mut state, weight) {
                return;
            }
            served += 1;
            let Some((parked, sender)) = state.parked.pop_front() else { return };
            self.retract_if_idle(&state);
            state.counters.waited(parked.since.elapsed());
            let consumer = match parked.frame {
                Some(frame) => self.accept(&mut state, frame, weight),
                None => {
                    state.queue.limit -= 1;
                    None
                }
            };
            let tell = self.mark_pressure(&mut state);
            drop(state);
            [sender, consumer].into_iter().flatten().for_each(wake);
            if tell {
                self.tell_pressure();
            }
        }
    }

    /// Has the first in line hurry if it has been patient for long enough; tells whether it hurries only now.
    #[cold]
    fn hurry_first(&self, state: &mut State<T>) -> bool {
        let (Some(ticket), Some(first)) = (state.parked.first(), state.parked.front()) else {
            return false;
        };
        if ticket < state.hurried || first.since.elapsed() < self.rules.patience {
            return false;
        }
        state.hurried = ticket + 1;
        self.handed.announce(false);
        true
    }

    /// The consumer need not look for anybody who waits, if nobody does.
    pub(super) fn retract_if_idle(&self, state: &State<T>) {
        let waiting = state.somebody_hurries() || !state.flushes.is_empty();
        self.handed.retract(waiting, !state.parked.is_empty());
    }

    /// Whoever waits under this ticket has been patient for long enough, and so have those before it.
    fn hurry(&self, ticket: u64, waker: Waker) {
        let mut state = lock(&self.state);
        let stale = state.parked.replace_waker(ticket, waker);
        if state.parked.contains(ticket) {
            state.hurried = state.hurried.max(ticket + 1);
            self.handed.announce(false);
        }
        drop(state);
        drop(stale);
        // Slots that had got free before the announcement.
        self.serve_waiting(usize::MAX);
    }

    pub(super) fn book_refusal(&self) {
        lock(&self.state).counters.refuse();
    }

    /// Exchanges the waker of a frame that still waits.
    pub(super) fn replace_waker(&self, ticket: u64, waker: Waker) {
        let stale = lock(&self.state).parked.replace_waker(ticket, waker);
        drop(stale);
    }

    fn served(&self) -> Outcome<T> {
        Ok(Sent::Queued { remaining: self.remaining(&lock(&self.state)) })
    }

    #[inline]
    pub(super) fn has_room(&self, state: &mut State<T>, weight: Option<usize>) -> bool {
        let queue = &mut state.queue;
        if queue.len() >= queue.limit {
            queue.refresh(&self.handed);
        }
        queue.len() < queue.limit
            && queue.weight().saturating_add(weight.unwrap_or(0)) <= self.rules.budget()
    }

    #[inline]
    fn remaining(&self, state: &State<T>) -> usize {
        let slots = match self.rules.capacity {
            usize::MAX => usize::MAX,
            _ => state.queue.limit.saturating_sub(state.queue.len()),
        };
        // Channels that batch weigh nothing: the quick way asks no more.
        if !self.rules.batched && self.rules.weighs() {
            return slots.min(self.rules.budget() - state.queue.weight());
        }
        slots
    }

    /// Puts a frame that fits into the queue; returns whom to wake.
    #[inline]
    fn accept(&self, state: &mut State<T>, frame: T, weight: Option<usize>) -> Option<Waker> {
        state.counters.offered += 1;
        let (wakes, queue) = (state.consumer.is_some(), &state.queue);
        state.followed.arrive(&self.waited, wakes, || queue.slots());
        state.queue.push(frame, weight);
        if state.queue.len() > state.counters.high_water {
            state.queue.refresh(&self.handed);
            state.counters.high_water = state.counters.high_water.max(state.queue.len());
        }
        state.consumer.take()
    }

    fn accept_now(
        &self,
        mut state: MutexGuard<'_, State<T>>,
        frame: T,
        weight: Option<usize>,
    ) -> Sent<T> {
        let consumer = self.accept(&mut state, frame, weight);
        let remaining = self.remaining(&state);
        let tell = self.mark_pressure(&mut state);
        drop(state);
        if let Some(consumer) = consumer {
            wake(consumer);
        }
        if tell {
            self.tell_pressure();
        }
        Sent::Queued { remaining }
    }

    /// Makes room by dropping the oldest frames. A sender that comes here after waiting in vain
    /// goes ahead of those that still wait: the slot is the evicted frame's, not theirs.
    fn evict_for(
        &self,
        mut state: MutexGuard<'_, State<T>>,
        frame: T,
        weight: Option<usize>,
    ) -> Sent<T> {
        let mut first = None;
        let mut others = Vec::new();
        while !self.has_room(&mut state, weight) {
            let Some(victim) = state.queue.evict() else { break };
            state.counters.lose_queued(1, LossReason::Evicted);
            state.followed.vanish(1);
            match &first {
                None => first = Some(victim),
                Some(_) => {
                    if others.is_empty() {
                        others = std::mem::take(&mut state.spare);
                    }
                    others.push(victim);
                }
            }
        }
        // A heavy frame that went can leave room for more than the one that came.
        let serve = weight.is_some() || !state.flushes.is_empty();
        let queued = self.accept_now(state, frame, weight);
        if serve {
            self.serve_waiting(usize::MAX);
        }
        if let Some(victim) = &first {
            self.rules.tell_loss(victim, LossReason::Evicted);
        }
        if !others.is_empty() {
            for victim in others.drain(..) {
                self.rules.tell_loss(&victim, LossReason::Evicted);
                drop_contained(victim);
            }
            if others.capacity() <= kept_slots::<T>() {
                lock(&self.state).spare = others;
            }
        }
        first.map_or(queued, Sent::Evicted)
    }
}

fn refused<T>(error: SendError<T>) -> Offered<T> {
    Offered::Settled(Err(error))
}

#[cfg(all(test, not(any(callbridge_loom, callbridge_shuttle))))]
mod tests {
    use super::{LOOK_EVERY, Offered, OnFull};
    use crate::channel::{FrameStream, Sender, builder};
    use std::task::Waker;
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant};

    /// A full channel of four at the beginning of a turn, its stream, and a thread that waits to send a 4: not
    /// alone when it came.
    fn full(turn: usize, patience: Duration) -> (Sender<u64>, FrameStream<u64>, JoinHandle<bool>) {
        let (sender, mut frames) = builder().capacity(4).turns(turn, patience).build().unwrap();
        for _ in 1..turn {
            assert!(sender.send(9).is_ok());
            assert_eq!(frames.recv_blocking(None), Ok(9));
        }
        [9, 0, 1, 2].into_iter().for_each(|frame| assert!(sender.send(frame).is_ok()));
        park(&sender, 3, false);
        let waiting = waits(&sender);
        assert_eq!(frames.recv_blocking(None), Ok(9));
        (sender, frames, waiting)
    }

    /// Has a frame wait that no thread waits with.
    fn park(sender: &Sender<u64>, frame: u64, patient: bool) {
        let waker = Waker::noop().clone();
        let on_full = OnFull::Park { waker, since: Instant::now(), patient };
        assert!(matches!(sender.shared.offer(frame, None, on_full), Offered::Parked(_)));
    }

    /// One more thread that waits to send a 4.
    fn waits(sender: &Sender<u64>) -> JoinHandle<bool> {
        let (waiting, before) = (sender.clone(), sender.stats().waiting);
        let waiting = thread::spawn(move || waiting.send(4).is_ok());
        while sender.stats().waiting == before {
            thread::yield_now();
        }
        waiting
    }

    #[test]
    fn who_waits_alone_gets_the_first_room() {
        let (sender, mut frames) = builder().capacity(4).turns(4, Duration::MAX).build().unwrap();
        (0..4).for_each(|frame| assert!(sender.send(frame).is_ok()));
        let waiting = waits(&sender);
        assert_eq!(frames.recv_blocking(None), Ok(0));
        assert!(waiting.join().unwrap(), "no turn has ended");
    }

    #[test]
    fn who_waits_patiently_is_passed_over_until_its_turn() {
        let (sender, mut frames, waiting) = full(2, Duration::MAX);
        assert_eq!(frames.recv_blocking(None), Ok(0));
        assert!(sender.try_send(5).is_ok(), "there is room");
        assert_eq!(frames.recv_blocking(None), Ok(1));
        assert!(sender.try_send(6).is_err(), "the turn has ended");
        assert!(waiting.join().unwrap());
        assert_eq!([(); 4].map(|()| frames.recv_blocking(None)), [2, 3, 5, 4].map(Ok));
    }

    #[test]
    fn those_that_pass_over_others_see_who_has_waited_for_long() {
        let (sender, mut frames) =
            builder().capacity(64).turns(64, Duration::ZERO).build().unwrap();
        (0..64).for_each(|frame| assert!(sender.send(frame).is_ok()));
        // No thread is there to lose its patience.
        park(&sender, 64, true);
        assert!((0..40).all(|frame| frames.recv_blocking(None) == Ok(frame)));
        assert_eq!((frames.len(), sender.stats().waiting), (24, 1), "the turn has not ended");
        assert!(sender.try_send(65).is_ok());
        assert_eq!(sender.stats().waiting, 0, "seen at once, by the first that would have passed");

        let full = (66..).find(|frame| sender.try_send(*frame).is_err()).unwrap();
        park(&sender, full, true);
        assert!((40..60).all(|frame| frames.recv_blocking(None) == Ok(frame)));
        let sends = |frame: &u64| {
            // Control frames are offered, too.
            let sent = sender.try_send(*frame).is_ok() && sender.send_control(0).is_ok();
            sent && sender.stats().waiting > 0
        };
        let passed = (full + 1..).take_while(sends).count() as u64;
        assert_eq!(sender.stats().waiting, 0);
        assert!(passed < LOOK_EVERY, "{passed} before the next look");
    }

    #[test]
    fn a_turn_serves_one_of_those_that_wait() {
        let (sender, mut frames, first) = full(2, Duration::MAX);
        let second = waits(&sender);
        assert_eq!([(); 2].map(|()| frames.recv_blocking(None)), [0, 1].map(Ok));
        assert_eq!((frames.len(), sender.stats().waiting), (3, 1), "there is room for both");
        assert_eq!([(); 2].map(|()| frames.recv_blocking(None)), [2, 3].map(Ok));
        assert_eq!((frames.len(), sender.stats().waiting), (2, 0), "the next turn has ended");
        assert!(first.join().unwrap() && second.join().unwrap());
    }

    #[test]
    fn who_has_waited_for_long_is_passed_over_no_more() {
        let (_sender, mut frames, waiting) = full(4, Duration::ZERO);
        assert_eq!(frames.recv_blocking(None), Ok(0));
        assert!(waiting.join().unwrap(), "no turn has ended");
        assert_eq!(frames.len(), 4);
    }
}
