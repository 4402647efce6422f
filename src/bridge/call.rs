//! Calls that are polled on the thread that waits for them.

use super::core::Core;
use crate::future::{BlockingFuture, FutureState, Origin, Panic, ResultError, SubmitError};
use crate::sync::context::LoopMark;
use crate::sync::event_loop::enter;
use crate::sync::{Deadline, Running, Site, Work, contain, discard, park_until, report};
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio_util::sync::CancellationToken;

impl Core {
    /// Polls `future` on the calling thread until it is ready or is to end.
    ///
    /// The future is dropped, then its room is free, then the caller goes on, on every path.
    pub(super) fn call<F: Future>(
        &self,
        future: F,
        deadline: Deadline,
        cancel: Option<&CancellationToken>,
        site: Site,
    ) -> Result<F::Output, ResultError> {
        self.admit_inline(deadline).map_err(ResultError::from)?;
        let _running = Running::note(Work { owner: self.id(), id: 0, site });
        let _context = enter(&self.handle);
        let mut future = pin!(Some(future));
        let mut cancelled = pin!(cancel.map(CancellationToken::cancelled));
        let mut place = None;
        let outcome = park_until(deadline, |cx| {
            if self.is_ending() {
                return Poll::Ready(Err(ResultError::LoopClosed));
            }
            let token = cancelled.as_mut().as_pin_mut();
            if token.is_some_and(|token| token.poll(cx).is_ready()) {
                return Poll::Ready(Err(ResultError::Cancelled));
            }
            let Some(future) = future.as_mut().as_pin_mut() else { return Poll::Pending };
            let polled = {
                // What it does here it would do on the loop: it may not block.
                let _mark = LoopMark::new();
                catch_unwind(AssertUnwindSafe(|| future.poll(cx)))
            };
            match polled {
                Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
                Ok(Poll::Pending) if place.is_some() => Poll::Pending,
                Ok(Poll::Pending) if self.is_forked() => Poll::Ready(Err(ResultError::Forked)),
                Ok(Poll::Pending) => {
                    place = self.suspend(cx.waker().clone());
                    match place {
                        None => Poll::Ready(Err(ResultError::LoopClosed)),
                        Some(_) => Poll::Pending,
                    }
                }
                // tokio's timers panic when their loop goes away.
                Err(payload) if self.is_ending() => {
                    report("a future polled while its loop went away", payload.as_ref());
                    discard(payload);
                    Poll::Ready(Err(ResultError::LoopClosed))
                }
                Err(payload) => Poll::Ready(Err(ResultError::Panicked(Panic::new(payload)))),
            }
        });
        {
            let _mark = LoopMark::new();
            contain("the drop of a called future", || future.set(None));
        }
        let failure = match &outcome {
            Some(outcome) => outcome.as_ref().err(),
            None => Some(&ResultError::Cancelled),
        };
        self.end(place, failure);
        self.settled();
        match outcome {
            Some(outcome) => outcome,
            None => Err(ResultError::TimedOut { state: FutureState::Running }),
        }
    }
}

/// How a first poll on the calling thread went.
pub(crate) enum Polled<T> {
    Ready(Result<T, ResultError>),
    /// It wasn't ready, and goes on as a task of the loop.
    Started(BlockingFuture<T>),
}

impl Core {
    /// Makes a future in `slot` and polls it once on the calling thread; what isn't ready goes on as a
    /// task of the loop, in the slot, and leaves an empty one behind.
    #[track_caller]
    pub(super) fn call_or_start<F>(
        self: &Arc<Self>,
        make: impl FnOnce() -> F,
        slot: &mut Pin<Box<Option<F>>>,
    ) -> Result<Polled<F::Output>, SubmitError<()>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.admit_inline(Deadline::Now)?;
        let polled = {
            let _context = enter(&self.handle);
            let work = Work { owner: self.id(), id: 0, site: Location::caller() };
            let (_mark, _running) = (LoopMark::new(), Running::note(work));
            let mut context = Context::from_waker(Waker::noop());
            let polled = catch_unwind(AssertUnwindSafe(|| {
                slot.set(Some(make()));
                slot.as_mut().as_pin_mut().map_or(Poll::Pending, |made| made.poll(&mut context))
            }));
            if !matches!(polled, Ok(Poll::Pending)) {
                contain("the drop of a called future", || slot.set(None));
            }
            polled
        };
        let outcome = match polled {
            Ok(Poll::Ready(value)) => Ok(value),
            // The task polls it again, with a waker.
            Ok(Poll::Pending) => {
                let made = std::mem::replace(slot, Box::pin(None));
                return Ok(Polled::Started(self.start(Made(made))));
            }
            Err(payload) => Err(ResultError::Panicked(Panic::new(payload))),
        };
        self.end(None, outcome.as_ref().err());
        self.settled();
        Ok(Polled::Ready(outcome))
    }
}

/// A future that was made in a slot.
struct Made<F>(Pin<Box<Option<F>>>);

impl<F: Future> Future for Made<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().as_pin_mut().map_or(Poll::Pending, |made| made.poll(cx))
    }
}
