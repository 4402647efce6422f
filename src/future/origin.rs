//! What a call asks of the room that works on it: a bridge, a pool, a runner.

use super::error::ResultError;
use crate::sync::{Began, Monitor};
use std::sync::Arc;
use std::task::Waker;

/// Where a call is worked on, and what the call asks of it.
pub(crate) trait Origin: Send + Sync {
    /// A number that changes when the place turns to new work; `None` where nobody can tell.
    fn turns(&self) -> Option<u32> {
        None
    }

    /// The work, submitted then, has begun.
    fn begin(&self, _submitted: Began) {}

    /// Whether all work is to end.
    fn is_ending(&self) -> bool {
        false
    }

    /// Notes how to wake work that isn't ready, and says under which number; `None` if it is to end.
    fn suspend(&self, waker: Waker) -> Option<u32> {
        drop(waker);
        None
    }

    /// Sees to it that the suspended work under that number looks whether a cancel was asked for.
    fn cancel(&self, _place: u32) {}

    /// The work has ended and is dropped; its outcome isn't published yet.
    fn end(&self, _place: Option<u32>, _failure: Option<&ResultError>, _submitted: Began) {}

    /// The outcome is readable and its callbacks have run.
    fn settled(&self) {}

    /// Becomes true when nobody waits for the work any more, although it hasn't ended.
    fn given_up(&self) -> Option<&Monitor<bool>> {
        None
    }

    /// Whether the calling thread is the one that is to do the work: waiting for it here is in vain.
    fn is_this_thread(&self) -> bool {
        false
    }

    /// A thread is about to wait for the work for ever: one that would wait for itself does it now.
    fn help(self: Arc<Self>) {}

    /// The result is polled for inside other work, by its id; with `None`, nobody waits any more.
    fn awaited_in(&self, _work: Option<usize>) {}

    /// Whether the place is another process's, since this one was forked off.
    fn is_forked(&self) -> bool {
        false
    }

    /// Whether a waiter may spin before it parks.
    fn spins(&self) -> bool {
        false
    }
}
