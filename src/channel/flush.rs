//! Waiting until the consumer has been handed what is queued.
//!
//! Slots leave in their order, evicted or handed out, and so do control frames; but what is evicted
//! overtakes control frames, so the two are counted apart.

use super::coop::within_budget;
use super::error::NotDone;
use super::overflow::LossReason;
use super::state::{Progress, Shared, State};
use crate::sync::prim::lock;
use crate::sync::{Deadline, WaitError, wait};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What became of frames that a consumer left unread.
const LEFT: NotDone = NotDone::Lost(LossReason::ConsumerDropped);

impl<T> Shared<T> {
    /// How far the consumer is, and how far it will be when it has been handed what is queued now.
    fn progress(&self, state: &mut State<T>) -> (Progress, Progress) {
        state.queue.refresh(&self.handed);
        let (waiting, controls) = state.queue.controls();
        let (counters, seen) = (&state.counters, state.queue.seen() as u64);
        let slots = counters.delivered + seen + counters.lost.evicted - controls;
        let all =
            Progress { slots: slots + state.queue.len() as u64, controls: controls + waiting };
        (Progress { slots, controls }, all)
    }

    /// Takes the first who waits out of the line, if the consumer has come so far.
    pub(super) fn pop_flush(&self, state: &mut State<T>) -> Option<(Progress, Option<Waker>)> {
        let wanted = *state.flushes.front()?;
        if !self.progress(state).0.has_reached(wanted) {
            return None;
        }
        let first = state.flushes.pop_front();
        self.retract_if_idle(state);
        first
    }
}

pub(super) struct Flush<'a, T> {
    shared: &'a Shared<T>,
    stage: Stage,
}

enum Stage {
    /// In line under this ticket, or served.
    Waiting(u64),
    Over(Result<(), NotDone>),
}

impl<'a, T> Flush<'a, T> {
    pub(super) fn new(shared: &'a Shared<T>) -> Self {
        let mut state = lock(&shared.state);
        // Only now, with the announcement out, is "not yet" final (see `queue`, invariant 3).
        shared.handed.announce(false);
        let (now, wanted) = shared.progress(&mut state);
        let stage = if state.counters.lost.consumer_dropped > 0 {
            Stage::Over(Err(LEFT))
        } else if now.has_reached(wanted) {
            Stage::Over(Ok(()))
        } else {
            Stage::Waiting(state.flushes.push(wanted, None))
        };
        shared.retract_if_idle(&state);
        drop(state);
        Flush { shared, stage }
    }

    /// As awaiting it, on a thread.
    pub(super) fn wait(
        mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Result<(), NotDone>, WaitError> {
        match self.look(None) {
            Poll::Ready(flushed) => Ok(flushed),
            Poll::Pending => {
                wait(Deadline::after(timeout), |cx| self.look(Some(cx.waker().clone())))
            }
        }
    }

    fn look(&mut self, waker: Option<Waker>) -> Poll<Result<(), NotDone>> {
        let ticket = match self.stage {
            Stage::Waiting(ticket) => ticket,
            Stage::Over(flushed) => return Poll::Ready(flushed),
        };
        let mut state = lock(&self.shared.state);
        let flushed = match state.flushes.contains(ticket) {
            false => Ok(()),
            true if state.counters.lost.consumer_dropped > 0 => Err(LEFT),
            true => {
                let stale = waker.and_then(|waker| state.flushes.replace_waker(ticket, waker));
                drop(state);
                drop(stale);
                return Poll::Pending;
            }
        };
        drop(state);
        drop(waker);
        self.leave(Stage::Over(flushed));
        Poll::Ready(flushed)
    }

    fn leave(&mut self, stage: Stage) {
        if let Stage::Waiting(ticket) = std::mem::replace(&mut self.stage, stage) {
            let mut state = lock(&self.shared.state);
            let entry = state.flushes.remove(ticket);
            self.shared.retract_if_idle(&state);
            drop(state);
            drop(entry);
        }
    }
}

impl<T> Future for Flush<'_, T> {
    type Output = Result<(), NotDone>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        within_budget(cx, |cx| self.look(Some(cx.waker().clone())))
    }
}

impl<T> Drop for Flush<'_, T> {
    fn drop(&mut self) {
        self.leave(Stage::Over(Ok(())));
    }
}
