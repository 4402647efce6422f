//! Calls that are polled for the first time on the thread that submits them, one after the other.
//!
//! Most are ready at once, and there are many: they have one room in turn, and are counted together. Until then
//! the bridge has one call in flight, which began with the first of them.

use super::Bridge;
use super::call::{drop_called, poll_here};
use super::core::{Admitted, Core};
use crate::future::{BlockingFuture, ResultError, SubmitError};
use crate::sync::context::drives_a_loop;
use crate::sync::event_loop::enter;
use crate::sync::{Deadline, Running, Site, Work};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

impl Bridge {
    /// Enters the loop's context, to poll calls for the first time on the calling thread.
    ///
    /// They count as submitted at `site`.
    pub(crate) fn first_polls(
        &self,
        site: Site,
    ) -> Result<FirstPolls<'_, impl Sized>, SubmitError<()>> {
        self.owner.core.first_polls(site)
    }

    /// Whether a close has given up the calls that are left: whoever waits for one waits in vain.
    pub(crate) fn has_given_up(&self) -> bool {
        self.owner.core.has_given_up()
    }
}

impl Core {
    pub(super) fn first_polls(
        self: &Arc<Self>,
        site: Site,
    ) -> Result<FirstPolls<'_, impl Sized>, SubmitError<()>> {
        if drives_a_loop() {
            return Err(SubmitError::WouldDeadlock(()));
        }
        let work = Work { owner: self.id(), id: 0, site };
        Ok(FirstPolls {
            core: self,
            site,
            batch: Batch::default(),
            _running: Running::note(work),
            _context: enter(&self.handle),
        })
    }
}

/// So many calls that were ready at once are counted together.
const COUNTED: u64 = 64;

/// A thread that polls calls for the first time, one after the other, in the loop's context.
///
/// Those that are ready have the same room, one after the other, and are counted together.
pub(crate) struct FirstPolls<'a, G> {
    core: &'a Arc<Core>,
    site: Site,
    batch: Batch,
    _running: Running,
    _context: G,
}

/// Calls that are over, and not counted yet.
#[derive(Default)]
struct Batch {
    calls: Cell<u64>,
    /// How many of all calls had the room of one that was over.
    again: Cell<u64>,
    /// The room of the last one is kept for the next.
    keeps_room: Cell<bool>,
}

impl<G> FirstPolls<'_, G> {
    /// Makes a future in `slot` and polls it once; what isn't ready goes on as a task of the loop, in the
    /// slot, and leaves an empty one behind.
    #[track_caller]
    pub(crate) fn call_or_start<F>(
        &self,
        make: impl FnOnce() -> F,
        slot: &mut Pin<Box<Option<F>>>,
    ) -> Result<Polled<F::Output>, SubmitError<()>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let submitted = self.admit()?;
        let polled = poll_here(|| {
            slot.set(Some(make()));
            let mut context = Context::from_waker(Waker::noop());
            slot.as_mut().as_pin_mut().map_or(Poll::Pending, |made| made.poll(&mut context))
        });
        Ok(match polled {
            Poll::Ready(Ok(value)) => {
                drop_called(slot.as_mut());
                self.core.timings.call.end(submitted);
                self.keep_room();
                Polled::Ready(Ok(value))
            }
            Poll::Ready(Err(failure)) => {
                self.core.end_here(slot.as_mut(), None, Some(&failure), submitted);
                Polled::Ready(Err(failure))
            }
            // The task polls it again, with a waker.
            Poll::Pending => {
                let made = std::mem::replace(slot, Box::pin(None));
                Polled::Started(self.core.start(Made(made), self.site, submitted))
            }
        })
    }

    /// Admits a call, which has the room that was kept, or a new one.
    fn admit(&self) -> Admitted {
        if self.batch.keeps_room.take() {
            if self.core.limiter.is_free() {
                let again = self.batch.again.get() + 1;
                self.batch.again.set(again);
                let number = || self.core.limiter.entered() + again;
                return Ok(self.core.timings.call.begin(number));
            }
            self.count();
        }
        self.core.admit(Deadline::Now)
    }

    /// A call is over, and the next one may have its room.
    fn keep_room(&self) {
        let calls = self.batch.calls.get() + 1;
        self.batch.calls.set(calls);
        self.batch.keeps_room.set(true);
        if calls == COUNTED {
            self.count();
        }
    }

    /// Counts the calls that are over, and frees their room: before the thread waits.
    pub(crate) fn count(&self) {
        self.batch.keeps_room.set(false);
        let (calls, again) = (self.batch.calls.take(), self.batch.again.take());
        if calls > 0 {
            self.core.end_ready(calls, again);
        }
    }
}

impl<G> Drop for FirstPolls<'_, G> {
    fn drop(&mut self) {
        self.count();
    }
}

/// How a first poll on the calling thread went.
pub(crate) enum Polled<T> {
    Ready(Result<T, ResultError>),
    /// It wasn't ready, and goes on as a task of the loop.
    Started(BlockingFuture<T>),
}

/// A future that was made in a slot.
struct Made<F>(Pin<Box<Option<F>>>);

impl<F: Future> Future for Made<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().as_pin_mut().map_or(Poll::Pending, |made| made.poll(cx))
    }
}
