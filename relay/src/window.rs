//! What is in flight, in order: no clock, no network, no locks.
//!
//! Frames stand in a line. Each is sent in its turn, and leaves at the front once it is stored. When an
//! attempt fails, sending begins again at the first that isn't stored, after a pause: a *round*. What an
//! earlier round still brings is welcome if it is good, and otherwise ignored.
//!
//! Invariants:
//! 1. `cursor <= line.len()`; what stands at or behind it has not been sent in this round.
//! 2. Frames leave from the front only, stored or rejected, so they are settled in order.
//! 3. `end` is the engine's position of the last frame that has left. The first attempt of a round says that it
//!    comes after that, each other that it comes after the one that was sent before it. So none overtakes
//!    another, whatever fails, and whoever else writes there.
//! 4. In a round that follows a failure one frame is sent alone; the rest once it is stored.

use crate::publish::{After, Bound, Fault, Stored, Ticket};
use crate::stats::Effort;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a window behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The most frames in it.
    pub(crate) limit: usize,
    /// How long an attempt may go unanswered.
    pub(crate) attempt_timeout: Duration,
    /// The pause after the first failure; it doubles with each that follows.
    pub(crate) first_backoff: Duration,
    /// The longest pause.
    pub(crate) longest_backoff: Duration,
}

pub(crate) struct Window<T> {
    rules: Rules,
    run: Arc<str>,
    line: VecDeque<Entry<T>>,
    /// The place of the front.
    front: u64,
    cursor: usize,
    round: u32,
    /// Attempts of this round that have no outcome.
    unanswered: usize,
    end: Option<u64>,
    /// What stands before the cursor.
    after: After,
    /// What stood there before the last attempt.
    after_before: After,
    /// An earlier run has stored everything up to this number.
    stored_before: Option<u64>,
    /// Only one attempt may be out.
    alone: bool,
    /// The engine must be asked where its end is.
    unbound: bool,
    backoff: Backoff,
    pub(crate) effort: Effort,
    pub(crate) acknowledged: u64,
    pub(crate) rejected: u64,
}

struct Entry<T> {
    frame: Option<T>,
    sequence: u64,
    attempts: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be sent in this round.
    Waiting,
    Sent(Instant),
    Stored(Option<u64>),
    Rejected,
}

#[derive(Default)]
struct Backoff {
    failures: u32,
    /// Since when nothing has been stored.
    since: Option<Instant>,
    until: Option<Instant>,
}

/// An attempt to make now.
#[derive(Debug)]
pub(crate) struct Next<'a, T> {
    pub(crate) ticket: Ticket,
    pub(crate) sequence: u64,
    pub(crate) after: After,
    pub(crate) frame: &'a T,
}

impl<T> Window<T> {
    pub(crate) fn new(rules: Rules, run: Arc<str>, bound: &Bound) -> Self {
        let mut window = Window {
            rules,
            run,
            line: VecDeque::new(),
            front: 0,
            cursor: 0,
            round: 0,
            unanswered: 0,
            end: bound.position,
            after: at(bound.position),
            after_before: After::Anything,
            stored_before: None,
            alone: false,
            unbound: false,
            backoff: Backoff::default(),
            effort: Effort::default(),
            acknowledged: 0,
            rejected: 0,
        };
        window.stored_before = window.stored_up_to(bound);
        window
    }

    /// The last number of this run that is stored, if the engine's last message is of this run.
    /// Where others write too, it says nothing about the ones before.
    fn stored_up_to(&self, bound: &Bound) -> Option<u64> {
        bound.position?;
        bound.last.as_ref().filter(|last| last.run == self.run).map(|last| last.sequence)
    }

    pub(crate) fn len(&self) -> usize {
        self.line.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// How many more frames fit.
    pub(crate) fn room(&self) -> usize {
        self.rules.limit.saturating_sub(self.line.len())
    }

    /// Appends a frame. Numbers must rise.
    pub(crate) fn push(&mut self, frame: T, sequence: u64) {
        let mut state = State::Waiting;
        if self.stored_before.is_some_and(|stored| sequence <= stored) {
            state = State::Stored(None);
            self.effort.stored_before += 1;
        }
        self.line.push_back(Entry { frame: Some(frame), sequence, attempts: 0, state });
    }

    /// The next attempt to make, which counts as made.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Next<'_, T>> {
        if self.unbound
            || self.alone && self.unanswered > 0
            || self.backoff.until.is_some_and(|until| now < until)
        {
            return None;
        }
        while let Some(entry) = self.line.get(self.cursor) {
            match entry.state {
                State::Stored(position) => {
                    // It is the last, if all is well; where it isn't known the engine's end is older.
                    let position = further(self.end, position);
                    self.after = at(position);
                }
                State::Rejected => {}
                State::Waiting | State::Sent(_) => break,
            }
            self.cursor += 1;
        }
        let entry = self.line.get_mut(self.cursor)?;
        let ticket = Ticket { place: self.front + self.cursor as u64, round: self.round };
        entry.state = State::Sent(now);
        entry.attempts += 1;
        self.cursor += 1;
        self.unanswered += 1;
        self.effort.sent += 1;
        self.effort.sent_again += u64::from(entry.attempts > 1);
        let after = self.after;
        self.after_before = after;
        if after != After::Anything {
            self.after = After::Message(entry.sequence);
        }
        Some(Next { ticket, sequence: entry.sequence, after, frame: entry.frame.as_ref()? })
    }

    /// What became of an attempt.
    pub(crate) fn outcome(&mut self, ticket: Ticket, result: Result<Stored, Fault>, now: Instant) {
        let this_round = ticket.round == self.round;
        if this_round {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        let Some(index) = ticket.place.checked_sub(self.front) else { return };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(entry) = self.line.get_mut(index) else { return };
        if matches!(entry.state, State::Stored(_) | State::Rejected) {
            return;
        }
        match result {
            Ok(Stored { position, repeat }) => {
                entry.state = State::Stored(position);
                self.effort.repeats += u64::from(repeat);
                self.backoff = Backoff::default();
                self.alone = false;
            }
            Err(Fault::Rejected(_)) => {
                entry.state = State::Rejected;
                if self.cursor == index + 1 {
                    self.after = self.after_before;
                } else if self.cursor > index {
                    // What was sent behind it says that it comes first.
                    self.begin_round();
                }
            }
            Err(fault) if this_round => {
                match fault {
                    Fault::Full(_) => self.effort.full += 1,
                    Fault::OutOfOrder => {
                        self.effort.out_of_order += 1;
                        self.unbound |= self.first_unsettled() == Some(index);
                    }
                    _ => self.effort.failed += 1,
                }
                self.fail(now);
            }
            Err(_) => {}
        }
    }

    fn first_unsettled(&self) -> Option<usize> {
        self.line.iter().position(|entry| matches!(entry.state, State::Waiting | State::Sent(_)))
    }

    /// The connection was lost.
    pub(crate) fn interrupted(&mut self, now: Instant) {
        if self.unanswered > 0 {
            self.effort.interrupted += 1;
            self.fail(now);
        }
    }

    /// There is a connection again: no need to pause.
    pub(crate) fn connected(&mut self) {
        self.backoff.until = None;
    }

    /// Sees to the time: begins a round if an attempt has gone unanswered for too long.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.effort.timed_out += 1;
            self.fail(now);
        }
    }

    /// When the first attempt of this round will have gone unanswered for too long.
    fn deadline(&self) -> Option<Instant> {
        if self.unanswered == 0 {
            return None;
        }
        let first = self.line.iter().take(self.cursor).find_map(|entry| match entry.state {
            State::Sent(at) => Some(at),
            _ => None,
        });
        first.map(|at| at + self.rules.attempt_timeout)
    }

    /// When there is something to do, if nothing happens before.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.deadline()
            .or_else(|| self.backoff.until.filter(|_| self.unbound || !self.line.is_empty()))
    }

    /// Since when nothing has been stored though it was tried.
    pub(crate) fn failing_since(&self) -> Option<Instant> {
        self.backoff.since
    }

    fn fail(&mut self, now: Instant) {
        let backoff = &mut self.backoff;
        backoff.since.get_or_insert(now);
        let doubled = self.rules.first_backoff.saturating_mul(1 << backoff.failures.min(16));
        backoff.until = Some(now + doubled.min(self.rules.longest_backoff));
        backoff.failures += 1;
        self.alone = true;
        self.begin_round();
    }

    fn begin_round(&mut self) {
        self.effort.rounds += 1;
        self.round = self.round.wrapping_add(1);
        self.cursor = 0;
        self.unanswered = 0;
        self.after = at(self.end);
    }

    /// Whether the engine must be asked where its end is, now.
    pub(crate) fn must_bind(&self, now: Instant) -> bool {
        self.unbound && self.backoff.until.is_none_or(|until| until <= now)
    }

    /// Where the engine's end is.
    pub(crate) fn bound(&mut self, bound: &Bound) {
        self.unbound = false;
        self.end = bound.position;
        if let Some(stored) = self.stored_up_to(bound) {
            for entry in &mut self.line {
                if entry.sequence <= stored && !matches!(entry.state, State::Rejected) {
                    if !matches!(entry.state, State::Stored(_)) {
                        self.effort.repeats += 1;
                    }
                    entry.state = State::Stored(None);
                }
            }
        }
        self.begin_round();
    }

    /// The engine couldn't be asked.
    pub(crate) fn bind_failed(&mut self, now: Instant) {
        self.effort.failed += 1;
        self.fail(now);
    }

    /// The frame at the front, if it is stored or rejected.
    pub(crate) fn pop(&mut self) -> Option<Settled<T>> {
        let state = self.line.front()?.state;
        let stored = match state {
            State::Stored(position) => {
                self.end = further(self.end, position);
                true
            }
            State::Rejected => false,
            State::Waiting | State::Sent(_) => return None,
        };
        let entry = self.line.pop_front()?;
        self.front += 1;
        self.cursor = self.cursor.saturating_sub(1);
        let frame = entry.frame?;
        if stored {
            self.acknowledged += 1;
            return Some(Settled::Stored(frame));
        }
        self.rejected += 1;
        Some(Settled::Rejected(frame, self.front - 1, entry.sequence))
    }

    /// Everything that is left, with its numbers.
    pub(crate) fn take_left(&mut self) -> impl Iterator<Item = (u64, T)> + '_ {
        self.cursor = 0;
        self.unanswered = 0;
        self.line.drain(..).filter_map(|entry| Some((entry.sequence, entry.frame?)))
    }
}

fn at(position: Option<u64>) -> After {
    position.map_or(After::Anything, After::Position)
}

/// A repeat may lie anywhere before the engine's end.
fn further(end: Option<u64>, stored: Option<u64>) -> Option<u64> {
    end.map(|end| end.max(stored.unwrap_or(0)))
}

/// A frame that leaves the window.
pub(crate) enum Settled<T> {
    Stored(T),
    /// With its place and its number.
    Rejected(T, u64, u64),
}

#[cfg(test)]
mod tests;
