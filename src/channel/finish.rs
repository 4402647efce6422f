//! The end of a channel, and who is told of it.
//!
//! The invariants are at the head of `state`.

use super::error::SourceError;
use super::overflow::Ending;
use super::state::{End, Shared, State, Termination, drop_contained};
use crate::sync::prim::lock;
use crate::sync::{contain, wake};
use std::task::Waker;

/// Everybody to be told of the end, once the lock is open.
pub(super) struct EndNotifications {
    ending: Ending,
    wakers: Vec<Waker>,
    terminations: Vec<Termination>,
}

impl EndNotifications {
    pub(super) fn wake_all(self) {
        self.wakers.into_iter().for_each(wake);
        for termination in self.terminations {
            contain("a termination callback", || termination(self.ending));
        }
    }
}

impl End {
    fn look(&mut self) -> Option<SourceError> {
        self.looked_at = true;
        self.error.clone().or_else(|| SourceError::of_ending(self.ending))
    }
}

impl<T> Shared<T> {
    /// Ends the channel; `false` if it had ended before.
    pub(super) fn end(&self, ending: Ending, error: Option<SourceError>) -> bool {
        let notifications = self.end_locked(&mut lock(&self.state), ending, error);
        match notifications {
            Ok(notifications) => {
                notifications.wake_all();
                true
            }
            Err(late_error) => {
                drop_contained(late_error);
                false
            }
        }
    }

    /// An error that comes too late is handed back to be dropped unlocked.
    pub(super) fn end_locked(
        &self,
        state: &mut State<T>,
        ending: Ending,
        error: Option<SourceError>,
    ) -> Result<EndNotifications, Option<SourceError>> {
        if state.end.is_some() {
            return Err(error);
        }
        state.end = Some(End { ending, error, looked_at: false });
        let mut wakers = state.parked.take_wakers();
        wakers.extend(state.end_waiters.take_wakers());
        wakers.extend(state.consumer.take());
        let terminations = std::mem::take(&mut state.terminations);
        Ok(EndNotifications { ending, wakers, terminations })
    }

    pub(super) fn on_termination(&self, termination: Termination) {
        let mut state = lock(&self.state);
        match state.end.as_ref().map(|end| end.ending) {
            None => state.terminations.push(termination),
            Some(ending) => {
                drop(state);
                contain("a termination callback", || termination(ending));
            }
        }
    }

    /// What ended the channel, for who asks: from then on it counts as looked at.
    pub(super) fn error(&self) -> Option<SourceError> {
        lock(&self.state).end.as_mut()?.look()
    }

    /// As [`error`](Self::error), unless somebody has looked before; an ordinary stop is nothing to
    /// look at.
    pub(super) fn error_not_looked_at(state: &mut State<T>) -> Option<SourceError> {
        let end = state.end.as_mut()?;
        let left = !end.looked_at && end.ending != Ending::Aborted;
        left.then(|| end.look()).flatten()
    }

    /// The ending, or a ticket for its announcement.
    pub(super) fn await_end(&self, waker: Waker) -> Result<Ending, u64> {
        let mut state = lock(&self.state);
        match state.end.as_ref().map(|end| end.ending) {
            Some(ending) => {
                drop(state);
                drop(waker);
                Ok(ending)
            }
            None => Err(state.end_waiters.push((), waker)),
        }
    }

    pub(super) fn forget_end_waiter(&self, ticket: u64) {
        let entry = lock(&self.state).end_waiters.remove(ticket);
        drop(entry);
    }
}
