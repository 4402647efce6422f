//! Room for a frame that isn't there yet.

use super::coop::within_budget;
use super::error::SendError;
use super::overflow::Sent;
use super::produce::{OnFull, Outcome};
use super::state::{Parked, Shared};
use crate::sync::prim::lock;
use crate::sync::{Deadline, wait};
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A slot of a channel, kept for one frame; made by [`Sender::reserve`](crate::Sender::reserve).
///
/// Dropped unused, it gives the slot back. Until then nobody else gets it: a policy that evicts finds
/// one slot less, and drops the newest frame instead if all are reserved.
#[must_use = "dropping it gives the slot back"]
pub struct SendPermit<'a, T> {
    shared: &'a Shared<T>,
}

impl<T> SendPermit<'_, T> {
    /// Sends a frame into the slot. Never waits.
    ///
    /// # Errors
    ///
    /// A [`SendError`] with the frame inside: the channel has ended. Where frames are weighed, also
    /// that the budget has no room for it now (`Full`), or never will (`TooHeavy`): a slot is
    /// reserved, not weight.
    pub fn send(self, frame: T) -> Result<Sent<T>, SendError<T>> {
        let permit = ManuallyDrop::new(self);
        permit.shared.send_reserved(frame).map_err(SendError::at_once)
    }
}

impl<T> Drop for SendPermit<'_, T> {
    fn drop(&mut self) {
        self.shared.give_slot_back();
    }
}

impl<T> fmt::Debug for SendPermit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendPermit").finish_non_exhaustive()
    }
}

impl<T> Shared<T> {
    fn send_reserved(&self, frame: T) -> Outcome<T> {
        let weight = self.rules.weigh(&frame);
        let outcome = self.offer_now(frame, weight, OnFull::Reserved);
        if outcome.is_err() {
            self.serve_waiting(usize::MAX);
        }
        outcome
    }

    fn give_slot_back(&self) {
        lock(&self.state).queue.limit += 1;
        self.serve_waiting(usize::MAX);
    }
}

/// Waits for a slot; made by [`Sender::reserve_async`](crate::Sender::reserve_async).
#[must_use = "nothing is reserved unless it is awaited"]
pub struct Reserve<'a, T> {
    shared: &'a Shared<T>,
    /// In line under this ticket, or served.
    ticket: Option<u64>,
}

impl<'a, T> Reserve<'a, T> {
    pub(super) fn new(shared: &'a Shared<T>) -> Self {
        Reserve { shared, ticket: None }
    }

    /// As awaiting it, on a thread.
    pub(super) fn wait(
        mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<SendPermit<'a, T>, SendError<()>> {
        match self.look(None) {
            Poll::Ready(reserved) => reserved,
            Poll::Pending => wait(Deadline::after(timeout), |cx| self.look(Some(cx)))?,
        }
    }

    /// Takes a slot if there is one; if not, gets in line if there is somebody to wake.
    fn look(&mut self, cx: Option<&Context<'_>>) -> Poll<Result<SendPermit<'a, T>, SendError<()>>> {
        let shared = self.shared;
        let waker = cx.map(|cx| cx.waker().clone());
        let mut state = shared.lock_to_send();
        let outcome = match self.ticket {
            Some(ticket) if !state.parked.contains(ticket) => {
                self.ticket = None;
                Some(Ok(SendPermit { shared }))
            }
            _ if state.end.is_some() => Some(Err(SendError::Closed(()))),
            Some(_) => None,
            None => {
                // Only now, with the announcement out, is "full" final (see `queue`, invariant 3).
                shared.handed.announce(false);
                let has_room = !state.somebody_hurries() && shared.has_room(&mut state, None);
                has_room.then(|| {
                    state.queue.limit -= 1;
                    Ok(SendPermit { shared })
                })
            }
        };
        let stale = match (&outcome, self.ticket, waker) {
            (None, Some(ticket), Some(waker)) => state.parked.replace_waker(ticket, waker),
            (None, None, Some(waker)) => {
                state.hurried = state.parked.next() + 1;
                let parked = Parked { frame: None, weight: None, since: Instant::now() };
                self.ticket = Some(state.parked.push(parked, waker));
                None
            }
            (_, _, unused) => unused,
        };
        shared.retract_if_idle(&state);
        drop(state);
        drop(stale);
        outcome.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<'a, T> Future for Reserve<'a, T> {
    type Output = Result<SendPermit<'a, T>, SendError<()>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        within_budget(cx, |cx| self.look(Some(cx)))
    }
}

impl<T> Drop for Reserve<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        if self.shared.leave_line(ticket).is_none() {
            // It was served, and nobody will use the slot.
            self.shared.give_slot_back();
        }
    }
}

impl<T> fmt::Debug for Reserve<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve").finish_non_exhaustive()
    }
}
