//! Calls that are polled on the thread that waits for them.

use super::core::{Core, Refusal};
use crate::future::{Failure, FutureState, Origin, Panic, ResultError};
use crate::sync::context::LoopMark;
use crate::sync::event_loop::enter;
use crate::sync::{Deadline, Running, Site, Work, contain, discard, park_until, report};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
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
        self.admit_inline(deadline)?;
        let running = || Running::note(Work { owner: self.id(), id: 0, site });
        let _context = enter(&self.handle);
        let mut future = pin!(Some(future));
        let mut cancelled = pin!(cancel.map(CancellationToken::cancelled));
        let mut place = None;
        let outcome = park_until(deadline, |cx| {
            if self.is_ending() {
                return Poll::Ready(Err(Failure::LoopClosed));
            }
            let token = cancelled.as_mut().as_pin_mut();
            if token.is_some_and(|token| token.poll(cx).is_ready()) {
                return Poll::Ready(Err(Failure::Cancelled));
            }
            let Some(future) = future.as_mut().as_pin_mut() else { return Poll::Pending };
            let polled = {
                // What it does here it would do on the loop: it may not block.
                let (_mark, _running) = (LoopMark::new(), running());
                catch_unwind(AssertUnwindSafe(|| future.poll(cx)))
            };
            match polled {
                Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
                Ok(Poll::Pending) if place.is_some() => Poll::Pending,
                Ok(Poll::Pending) if self.is_forked() => Poll::Ready(Err(Failure::Forked)),
                Ok(Poll::Pending) => {
                    place = self.suspend(cx.waker().clone());
                    match place {
                        None => Poll::Ready(Err(Failure::LoopClosed)),
                        Some(_) => Poll::Pending,
                    }
                }
                // tokio's timers panic when their loop goes away.
                Err(payload) if self.is_ending() => {
                    report("a future polled while its loop went away", payload.as_ref());
                    discard(payload);
                    Poll::Ready(Err(Failure::LoopClosed))
                }
                Err(payload) => Poll::Ready(Err(Failure::Panicked(Panic::new(payload)))),
            }
        });
        {
            let (_mark, _running) = (LoopMark::new(), running());
            contain("the drop of a called future", || future.set(None));
        }
        let failure = match &outcome {
            Some(outcome) => outcome.as_ref().err(),
            None => Some(&Failure::Cancelled),
        };
        self.end(place, failure);
        self.settled();
        match outcome {
            Some(outcome) => outcome.map_err(ResultError::from),
            None => Err(ResultError::TimedOut { state: FutureState::Running }),
        }
    }
}

impl From<Refusal> for ResultError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full | Refusal::TimedOut => {
                ResultError::TimedOut { state: FutureState::NoRoom }
            }
            Refusal::Closed => ResultError::LoopClosed,
            Refusal::WouldDeadlock => ResultError::WouldDeadlock,
            Refusal::Forked => ResultError::Forked,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Closed => Failure::LoopClosed,
            Refusal::Forked => Failure::Forked,
            Refusal::Full | Refusal::TimedOut | Refusal::WouldDeadlock => Failure::WouldDeadlock,
        }
    }
}
