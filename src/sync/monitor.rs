//! A state under a lock, and who waits for it to change: threads and tasks alike.
//!
//! Invariants:
//! 1. Whoever waits looks at the state and enters its waker in one critical section, and a change
//!    takes the wakers out in its own: no change falls between a look and the sleep after it.
//! 2. Wakers are woken, cloned and dropped after the lock is released.

use super::prim::{Mutex, lock};
use super::wait::{WaitError, wait};
use super::{Deadline, WaitList, wake};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(crate) struct Monitor<S> {
    inner: Mutex<Inner<S>>,
}

struct Inner<S> {
    state: S,
    waiters: WaitList,
}

impl<S> Monitor<S> {
    pub(crate) fn new(state: S) -> Self {
        Monitor { inner: Mutex::new(Inner { state, waiters: WaitList::new() }) }
    }

    /// Uses the state; nobody is woken.
    pub(crate) fn with<R>(&self, body: impl FnOnce(&mut S) -> R) -> R {
        body(&mut lock(&self.inner).state)
    }

    /// Changes the state and wakes whoever waits.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        let mut inner = lock(&self.inner);
        let result = change(&mut inner.state);
        let wakers = inner.waiters.take_wakers();
        drop(inner);
        wakers.into_iter().for_each(wake);
        result
    }

    /// What `look` finds; while that is nothing, the context's waker stands in line under `ticket`.
    pub(crate) fn poll<R>(
        &self,
        ticket: &mut Option<u64>,
        cx: &mut Context<'_>,
        look: impl FnOnce(&mut S) -> Option<R>,
    ) -> Poll<R> {
        let waker = cx.waker().clone();
        let mut inner = lock(&self.inner);
        let (found, unused) = match look(&mut inner.state) {
            Some(found) => (Poll::Ready(found), Some(waker)),
            None => match *ticket {
                Some(ticket) => (Poll::Pending, inner.waiters.replace_waker(ticket, waker)),
                None => {
                    *ticket = Some(inner.waiters.push((), waker));
                    (Poll::Pending, None)
                }
            },
        };
        drop(inner);
        drop(unused);
        found
    }

    /// Leaves the line that [`poll`](Self::poll) entered.
    pub(crate) fn forget(&self, ticket: u64) {
        let entry = lock(&self.inner).waiters.remove(ticket);
        drop(entry);
    }

    /// What `look` finds in the state, as soon as it finds something.
    pub(crate) fn until<R, F>(&self, look: F) -> Until<'_, S, F>
    where
        F: FnMut(&mut S) -> Option<R>,
    {
        Until { monitor: self, look, ticket: None }
    }

    /// Blocks the calling thread until `look` finds something, see [`wait`].
    pub(crate) fn wait<R>(
        &self,
        deadline: Deadline,
        mut look: impl FnMut(&mut S) -> Option<R>,
    ) -> Result<R, WaitError> {
        if let Some(found) = self.with(&mut look) {
            return Ok(found);
        }
        let mut until = self.until(look);
        wait(deadline, |cx| Pin::new(&mut until).poll(cx))
    }
}

/// See [`Monitor::until`].
pub(crate) struct Until<'a, S, F> {
    monitor: &'a Monitor<S>,
    look: F,
    ticket: Option<u64>,
}

impl<S, F> Unpin for Until<'_, S, F> {}

impl<S, R, F: FnMut(&mut S) -> Option<R>> Future for Until<'_, S, F> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let this = &mut *self;
        this.monitor.poll(&mut this.ticket, cx, &mut this.look)
    }
}

impl<S, F> Drop for Until<'_, S, F> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.monitor.forget(ticket);
        }
    }
}
