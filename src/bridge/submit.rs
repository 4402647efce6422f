//! Calls that the loop runs.

use super::Bridge;
use super::core::{Core, Timings};
use crate::future::{BlockingFuture, SubmitError, resolved};
use crate::sync::{Deadline, Site};
use std::convert::identity;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;
use tokio::runtime::Handle;

impl Bridge {
    /// Submits `future` to the loop, and returns a [`BlockingFuture`] for its result.
    ///
    /// It never panics and never loses the future: refused work comes back as a future that is
    /// already done, with [`LoopClosed`](crate::ResultError::LoopClosed) or
    /// [`WouldDeadlock`](crate::ResultError::WouldDeadlock). On a current-thread loop the submissions of
    /// one thread start in order, those of [`call_soon_threadsafe`](Self::call_soon_threadsafe)
    /// included; a multi-thread loop may start them in any order, as it does tasks. A loop that nobody
    /// drives accepts work and doesn't start it: a timeout of `result` then says so.
    ///
    /// Python: `asyncio.run_coroutine_threadsafe`.
    ///
    /// # Blocking
    ///
    /// Returns at once, unless the limit of calls in flight is reached: then it blocks until one
    /// ends. On a thread that drives an event loop it doesn't block but refuses with
    /// `WouldDeadlock`. The forms that don't wait, or not for ever, are
    /// [`try_run_coroutine_threadsafe`](Self::try_run_coroutine_threadsafe) and
    /// [`run_coroutine_threadsafe_timeout`](Self::run_coroutine_threadsafe_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// let mut call = bridge.run_coroutine_threadsafe(async { 6 * 7 });
    /// assert_eq!(call.result(None).unwrap(), 42);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn run_coroutine_threadsafe<F>(&self, future: F) -> BlockingFuture<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.submit(Location::caller(), future, identity, Deadline::Never)
            .unwrap_or_else(|refused| resolved(refused.into()))
    }

    /// As [`run_coroutine_threadsafe`](Self::run_coroutine_threadsafe), but never waits.
    ///
    /// # Errors
    ///
    /// Hands `future` back when the limit is reached, or when the loop is gone or the bridge closed.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # use callbridge::future::SubmitError;
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build()?;
    /// let _first = bridge.try_run_coroutine_threadsafe(std::future::pending::<()>()).unwrap();
    /// let second = bridge.try_run_coroutine_threadsafe(std::future::pending::<()>());
    /// assert!(matches!(second, Err(SubmitError::Full(_))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn try_run_coroutine_threadsafe<F>(
        &self,
        future: F,
    ) -> Result<BlockingFuture<F::Output>, SubmitError<F>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.submit(Location::caller(), future, identity, Deadline::Now)
    }

    /// As [`run_coroutine_threadsafe`](Self::run_coroutine_threadsafe), but waits for room at most
    /// `timeout`.
    ///
    /// # Blocking
    ///
    /// Blocks at most `timeout`, and only while the limit is reached.
    ///
    /// # Errors
    ///
    /// Hands `future` back when there was no room in time, when the loop is gone or the bridge
    /// closed, and when it would have to block a thread that drives an event loop.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # use callbridge::future::SubmitError;
    /// # use std::time::Duration;
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build()?;
    /// let _first = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// let late = bridge.run_coroutine_threadsafe_timeout(async {}, Duration::from_millis(1));
    /// assert!(matches!(late, Err(SubmitError::TimedOut(_))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn run_coroutine_threadsafe_timeout<F>(
        &self,
        future: F,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<BlockingFuture<F::Output>, SubmitError<F>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match self.submit(Location::caller(), future, identity, Deadline::after(timeout)) {
            Err(SubmitError::Full(future)) => Err(SubmitError::TimedOut(future)),
            submitted => submitted,
        }
    }

    /// As [`try_run_coroutine_threadsafe`](Self::try_run_coroutine_threadsafe), for who was called at `site`.
    #[track_caller]
    pub(crate) fn try_start<F>(
        &self,
        future: F,
        site: Site,
    ) -> Result<BlockingFuture<F::Output>, SubmitError<F>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.submit(site, future, identity, Deadline::Now)
    }

    /// Submits `work`, which `future` makes a future of; hands it back if it is refused.
    fn submit<W, F>(
        &self,
        site: Site,
        work: W,
        future: impl FnOnce(W) -> F,
        deadline: Deadline,
    ) -> Result<BlockingFuture<F::Output>, SubmitError<W>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match self.owner.core.admit(deadline) {
            Ok(submitted) => Ok(self.owner.core.start(future(work), site, submitted)),
            Err(refused) => Err(refused.map(|()| work)),
        }
    }

    /// Runs `callback` on the loop soon.
    ///
    /// It is a call like any other, whose result nobody reads: it counts against the limit of calls in
    /// flight and in the statistics, and a close waits for it. It must not block. A panic in it is
    /// contained and reported. On a current-thread loop callbacks and calls of one thread start in
    /// order, so that a call finds what a callback before it has done. A multi-thread loop runs them in
    /// parallel, in any order: for values that must stay in order there is [`channel`](crate::channel()).
    ///
    /// Python: `loop.call_soon_threadsafe`.
    ///
    /// # Blocking
    ///
    /// As [`run_coroutine_threadsafe`](Self::run_coroutine_threadsafe): only while the limit is reached.
    ///
    /// # Errors
    ///
    /// Hands `callback` back when the loop is gone or the bridge closed, and when it would have to wait
    /// for room on a thread that drives an event loop.
    ///
    /// # Examples
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// # let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// let (said, heard) = std::sync::mpsc::channel();
    /// for n in 0..3 {
    ///     let said = said.clone();
    ///     bridge.call_soon_threadsafe(move || said.send(n).unwrap()).unwrap();
    /// }
    /// runtime.block_on(bridge.close(None));
    /// drop(said);
    /// assert_eq!(heard.iter().collect::<Vec<_>>(), [0, 1, 2]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn call_soon_threadsafe<C>(&self, callback: C) -> Result<(), SubmitError<C>>
    where
        C: FnOnce() + Send + 'static,
    {
        self.submit(
            Location::caller(),
            callback,
            |callback| async move { callback() },
            Deadline::Never,
        )
        .map(drop)
    }

    /// As [`call_soon_threadsafe`](Self::call_soon_threadsafe), but never waits.
    ///
    /// # Errors
    ///
    /// Hands `callback` back when the limit is reached, the loop is gone or the bridge closed.
    #[track_caller]
    pub fn try_call_soon_threadsafe<C>(&self, callback: C) -> Result<(), SubmitError<C>>
    where
        C: FnOnce() + Send + 'static,
    {
        self.submit(
            Location::caller(),
            callback,
            |callback| async move { callback() },
            Deadline::Now,
        )
        .map(drop)
    }
}

/// Submits `future` to the loop behind `handle`, with asyncio's signature.
///
/// It makes a bridge for this one call; a thread that submits often keeps a [`Bridge`], which is
/// cheaper and bounds the calls in flight.
///
/// Python: `asyncio.run_coroutine_threadsafe(coro, loop)`.
///
/// # Blocking
///
/// Never: one call doesn't reach a limit.
///
/// # Examples
///
/// ```
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let mut call = callbridge::run_coroutine_threadsafe(async { 6 * 7 }, runtime.handle());
/// assert_eq!(call.result(None).unwrap(), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn run_coroutine_threadsafe<F>(future: F, handle: &Handle) -> BlockingFuture<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let core = Core::new(Bridge::builder(handle.clone()), Timings::none());
    match core.admit(Deadline::Now) {
        Ok(submitted) => core.start(future, Location::caller(), submitted),
        Err(refused) => resolved(refused.into()),
    }
}
