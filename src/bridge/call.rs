//! Calls that are polled on the thread that waits for them.

use super::Bridge;
use super::core::Core;
use super::task::caught;
use crate::future::{FutureState, Origin, ResultError};
use crate::sync::context::LoopMark;
use crate::sync::event_loop::enter;
use crate::sync::{Began, Deadline, Running, Site, Work, contain, park_until, report_panic, shown};
use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

impl Bridge {
    /// Runs `future` on the calling thread, in the loop's context, for at most `timeout`; `None`
    /// waits for ever.
    ///
    /// The future is polled on the calling thread, in the context of the loop: `tokio::spawn`, timers
    /// and sockets work inside. It may borrow, and needn't be `Send`. A future that is ready at once
    /// costs about what tokio's `Handle::block_on` costs, allocates nothing and wakes nobody. What comes
    /// on top: the timeout, which covers the wait for room as well and needs no timer of the runtime;
    /// the loop's or the bridge's end, which ends the call; panics as values; and the counters.
    ///
    /// When the time is up the future is dropped. To go on waiting for it later, submit it by
    /// [`run_coroutine_threadsafe`](Self::run_coroutine_threadsafe), or call a `&mut` to it.
    ///
    /// Python: `anyio.from_thread.run`.
    ///
    /// # Blocking
    ///
    /// At most for `timeout`. `Duration::ZERO` polls once. The future's code runs on the calling thread
    /// for as long as its polls take, whatever the timeout; inside it, as in any async code, this
    /// crate's blocking methods answer [`WouldDeadlock`](ResultError::WouldDeadlock).
    ///
    /// # Errors
    ///
    /// On a thread that drives an event loop [`WouldDeadlock`](ResultError::WouldDeadlock), and the future
    /// is never polled. [`TimedOut`](ResultError::TimedOut), with
    /// [`NoRoom`](crate::future::FutureState::NoRoom) if it never began, else with
    /// [`Abandoned`](crate::future::FutureState::Abandoned). See [`ResultError`] for the others.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::Bridge;
    /// use std::time::Duration;
    ///
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let bridge = Bridge::new(runtime.handle().clone());
    /// let mut log = Vec::new();
    /// let answer = bridge.call(
    ///     async {
    ///         log.push("asked"); // it borrows
    ///         tokio::time::sleep(Duration::from_millis(1)).await;
    ///         42
    ///     },
    ///     Duration::from_secs(5),
    /// );
    /// assert_eq!((answer.unwrap(), log), (42, vec!["asked"]));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn call<F: Future>(
        &self,
        future: F,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<F::Output, ResultError> {
        self.owner.core.call(future, Deadline::after(timeout), None, Location::caller())
    }

    /// As [`call`](Self::call), and gives up when another thread cancels `token`.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), and [`Cancelled`](ResultError::Cancelled).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ResultError;
    /// use tokio_util::sync::CancellationToken;
    ///
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// let token = CancellationToken::new();
    /// let other = token.clone();
    /// std::thread::spawn(move || other.cancel());
    /// let never = bridge.call_until_cancelled(&token, std::future::pending::<()>(), None);
    /// assert!(matches!(never, Err(ResultError::Cancelled)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn call_until_cancelled<F: Future>(
        &self,
        token: &CancellationToken,
        future: F,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<F::Output, ResultError> {
        self.owner.core.call(future, Deadline::after(timeout), Some(token), Location::caller())
    }
}

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
        let submitted = self.admit_inline(deadline).map_err(ResultError::from)?;
        let shown = shown("call", &self.name, site);
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
            let poll = || future.as_mut().as_pin_mut().map_or(Poll::Pending, |it| it.poll(cx));
            let polled = shown.in_scope(|| poll_here(poll));
            match polled {
                Poll::Pending if place.is_some() => Poll::Pending,
                Poll::Pending if self.is_forked() => Poll::Ready(Err(ResultError::Forked)),
                Poll::Pending => {
                    place = self.suspend(cx.waker().clone());
                    match place {
                        None => Poll::Ready(Err(ResultError::LoopClosed)),
                        Some(_) => Poll::Pending,
                    }
                }
                // tokio's timers panic when their loop goes away.
                Poll::Ready(Err(ResultError::Panicked(panic))) if self.is_ending() => {
                    report_panic("a future polled while its loop went away", panic.message());
                    Poll::Ready(Err(ResultError::LoopClosed))
                }
                ended => ended,
            }
        });
        let failure = match &outcome {
            Some(outcome) => outcome.as_ref().err(),
            None => Some(&ResultError::Cancelled),
        };
        self.end_here(future, place, failure, submitted);
        outcome.unwrap_or(Err(ResultError::TimedOut { state: FutureState::Abandoned }))
    }

    /// Drops what was polled here, then frees its room.
    pub(super) fn end_here<F>(
        &self,
        mut future: Pin<&mut Option<F>>,
        place: Option<u32>,
        failure: Option<&ResultError>,
        submitted: Began,
    ) {
        drop_called(future.as_mut());
        self.end(place, failure, submitted);
        self.settled();
    }
}

/// Drops a future that was polled on the calling thread, as the loop would.
pub(super) fn drop_called<F>(mut future: Pin<&mut Option<F>>) {
    let _mark = LoopMark::new();
    contain("the drop of a called future", || future.set(None));
}

/// Polls on the calling thread as the loop would: what may not block there may not block here.
pub(super) fn poll_here<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<Result<T, ResultError>> {
    let _mark = LoopMark::new();
    caught(poll)
}
