//! The event loop, seen from a foreign thread.

mod builder;
mod callbacks;
mod close;
mod core;
mod driver;
mod error;
mod ledger;
mod run_queue;
mod stats;
mod work;

#[cfg(all(test, callbridge_loom))]
mod loom_tests;

pub use builder::BridgeBuilder;
pub use close::{CloseReport, StuckCall};
pub use error::{LoopClosed, NoCurrentLoop, SubmitTimeoutError, TrySubmitError};
pub use stats::BridgeStats;

use self::core::Core;
use crate::future::{BlockingFuture, Failure, resolved};
use crate::sync::Deadline;
use ledger::Refusal;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// An event loop, as a foreign thread sees it: a place to run async work and get an answer back.
///
/// A bridge is a cheap clone, `Send + Sync`, and borrows the loop: it never keeps a runtime alive,
/// and works with both flavours. Work submitted to it runs on the loop's workers as tasks do: in
/// parallel, with timers and `tokio::spawn` inside, abortable at any await, panics contained. One
/// difference: `tokio::task::id()` inside names a driver task that the calls share.
///
/// At most [`max_in_flight`](BridgeBuilder::max_in_flight) calls are in flight, by default
/// [`DEFAULT_MAX_IN_FLIGHT`](Self::DEFAULT_MAX_IN_FLIGHT), so a runaway thread is held back instead
/// of filling the memory.
///
/// Every call ends: with a value, cancelled, panicked, or with
/// [`LoopClosed`](crate::ResultError::LoopClosed) when the runtime goes away or the bridge is
/// closed. Dropping the last clone closes nothing: work in flight goes on.
///
/// Python: the `loop` argument of `asyncio.run_coroutine_threadsafe`; `anyio.from_thread`'s portal.
///
/// # Examples
///
/// ```
/// use callbridge::Bridge;
/// use std::time::Duration;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
///
/// let answer = std::thread::spawn(move || {
///     let mut call = bridge.run_coroutine_threadsafe(async {
///         tokio::time::sleep(Duration::from_millis(1)).await;
///         "hello from the loop"
///     });
///     call.result(Duration::from_secs(5))
/// });
/// assert_eq!(answer.join().unwrap().unwrap(), "hello from the loop");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Bridge {
    owner: Arc<Owner>,
}

/// Tells the core when the last [`Bridge`] has gone.
struct Owner {
    core: Arc<Core>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.core.abandon();
    }
}

impl Bridge {
    /// How many calls may be in flight unless the builder says otherwise: 65 536.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(callbridge::Bridge::DEFAULT_MAX_IN_FLIGHT, 65_536);
    /// ```
    pub const DEFAULT_MAX_IN_FLIGHT: usize = 65_536;

    /// A bridge to the loop behind `handle`, with the default limit.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(None).unwrap(), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new(handle: Handle) -> Self {
        Self::builder(handle).build()
    }

    /// A bridge to the loop that this code runs on. Python: `asyncio.get_running_loop()`.
    ///
    /// # Panics
    ///
    /// Outside a runtime; [`try_current`](Self::try_current) returns an error there.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let bridge = callbridge::Bridge::current();
    /// let thread = std::thread::spawn(move || {
    ///     bridge.run_coroutine_threadsafe(async { 2 + 2 }).result(None)
    /// });
    /// while !thread.is_finished() { tokio::task::yield_now().await; }
    /// assert_eq!(thread.join().unwrap().unwrap(), 4);
    /// # }
    /// ```
    #[track_caller]
    pub fn current() -> Self {
        match Self::try_current() {
            Ok(bridge) => bridge,
            Err(error) => panic!("{error}"),
        }
    }

    /// A bridge to the loop that this code runs on, if there is one.
    ///
    /// # Errors
    ///
    /// [`NoCurrentLoop`] outside a runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(callbridge::Bridge::try_current().is_err(), "no runtime here");
    /// ```
    pub fn try_current() -> Result<Self, NoCurrentLoop> {
        Handle::try_current().map(Self::new).map_err(|_| NoCurrentLoop)
    }

    /// A bridge with settings of your own.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::Bridge;
    ///
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(16).name("meter").build();
    /// assert_eq!(bridge.max_in_flight(), Some(16));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder(handle: Handle) -> BridgeBuilder {
        BridgeBuilder::new(handle)
    }

    /// Runs `future` on the loop and returns what to wait on for its result.
    ///
    /// It never panics and never loses the future: refused work comes back as a future that is
    /// already done, with [`LoopClosed`](crate::ResultError::LoopClosed) or
    /// [`WouldDeadlock`](crate::ResultError::WouldDeadlock). Submissions of one thread start in
    /// order. A loop that nobody drives accepts work and doesn't start it: a timeout of
    /// `result` then says so.
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
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let core = &self.owner.core;
        match core.ledger.admit(Deadline::Never) {
            Ok(()) => core.start(future, Location::caller()),
            Err(Refusal::Closed) => resolved(Failure::LoopClosed),
            Err(Refusal::Full | Refusal::WouldDeadlock) => resolved(Failure::WouldDeadlock),
        }
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
    /// # use callbridge::{Bridge, TrySubmitError};
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build();
    /// let _first = bridge.try_run_coroutine_threadsafe(std::future::pending::<()>()).unwrap();
    /// let second = bridge.try_run_coroutine_threadsafe(std::future::pending::<()>());
    /// assert!(matches!(second, Err(TrySubmitError::Full(_))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn try_run_coroutine_threadsafe<F>(
        &self,
        future: F,
    ) -> Result<BlockingFuture<F::Output>, TrySubmitError<F>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let core = &self.owner.core;
        match core.ledger.try_admit() {
            Ok(()) => Ok(core.start(future, Location::caller())),
            Err(Refusal::Closed) => Err(TrySubmitError::Closed(future)),
            Err(Refusal::Full | Refusal::WouldDeadlock) => Err(TrySubmitError::Full(future)),
        }
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
    /// # use callbridge::{Bridge, SubmitTimeoutError};
    /// # use std::time::Duration;
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build();
    /// let _first = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// let late = bridge.run_coroutine_threadsafe_timeout(async {}, Duration::from_millis(1));
    /// assert!(matches!(late, Err(SubmitTimeoutError::TimedOut(_))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn run_coroutine_threadsafe_timeout<F>(
        &self,
        future: F,
        timeout: Duration,
    ) -> Result<BlockingFuture<F::Output>, SubmitTimeoutError<F>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let core = &self.owner.core;
        match core.ledger.admit(Deadline::after(Some(timeout))) {
            Ok(()) => Ok(core.start(future, Location::caller())),
            Err(Refusal::Full) => Err(SubmitTimeoutError::TimedOut(future)),
            Err(Refusal::Closed) => Err(SubmitTimeoutError::Closed(future)),
            Err(Refusal::WouldDeadlock) => Err(SubmitTimeoutError::WouldDeadlock(future)),
        }
    }

    /// Runs `callback` on the loop soon; callbacks of one thread run in order, one at a time.
    ///
    /// It must not block. A panic in it is contained and reported. An accepted callback runs
    /// unless the loop goes away first; it doesn't count against the limit of calls in flight.
    ///
    /// Python: `loop.call_soon_threadsafe`.
    ///
    /// # Errors
    ///
    /// [`LoopClosed`] when the loop is gone or the bridge closed; the callback is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// let (said, heard) = std::sync::mpsc::channel();
    /// for n in 0..3 {
    ///     let said = said.clone();
    ///     bridge.call_soon_threadsafe(move || said.send(n).unwrap()).unwrap();
    /// }
    /// drop(said);
    /// assert_eq!(heard.iter().collect::<Vec<_>>(), [0, 1, 2]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn call_soon_threadsafe(
        &self,
        callback: impl FnOnce() + Send + 'static,
    ) -> Result<(), LoopClosed> {
        self.owner.core.call_soon(Box::new(callback))
    }

    /// Refuses new work, lets the work in flight drain until `deadline`, then cancels the rest.
    ///
    /// Tokens from [`child_token`](Self::child_token) are cancelled at the start, so that work
    /// which runs until told otherwise can end by itself. Work that is cancelled gives
    /// [`LoopClosed`](crate::ResultError::LoopClosed); its future is dropped by the time the report
    /// is there. A future that is inside a poll can't be dropped: it is given 100 ms more and then
    /// named in the report. Closing twice is fine; the second caller waits as well.
    ///
    /// It needs no timer of the runtime: the waiting is done by a short-lived thread. Don't await it
    /// inside work that runs on the same bridge: such work would wait for itself until the deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future doesn't stop the closing.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let bridge = callbridge::Bridge::current();
    /// let call = bridge.run_coroutine_threadsafe(async { "in time" });
    /// let report = bridge.close(Duration::from_secs(5)).await;
    /// assert!(report.is_clean());
    /// assert_eq!(call.await.unwrap(), "in time");
    /// # }
    /// ```
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        close::close(Arc::clone(&self.owner.core), deadline).await
    }

    /// As [`close`](Self::close), for a thread that may block.
    ///
    /// # Blocking
    ///
    /// Blocks at most `deadline` and 100 ms. On a thread that drives an event loop it doesn't wait
    /// at all: new work is refused from then on, and the report says `would_deadlock` and how much
    /// is in flight.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// let mut never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// let report = bridge.close_blocking(Duration::from_millis(5));
    /// assert_eq!((report.cancelled, report.stuck.len()), (1, 0));
    /// assert!(never.result(None).is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn close_blocking(&self, deadline: Duration) -> CloseReport {
        close::close_blocking(&self.owner.core, deadline)
    }

    /// Refuses new work and cancels the child tokens, as closing begins; waits for nothing.
    #[cfg(feature = "runner")]
    pub(crate) fn begin_close(&self) {
        self.owner.core.begin_close();
    }

    /// How many calls are submitted and not resolved.
    ///
    /// # Examples
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// let _never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// assert_eq!(bridge.in_flight(), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn in_flight(&self) -> usize {
        self.owner.core.ledger.in_flight()
    }

    /// The limit of calls in flight; `None` if unbounded.
    ///
    /// # Examples
    ///
    /// See [`builder`](Self::builder).
    pub fn max_in_flight(&self) -> Option<usize> {
        self.owner.core.ledger.limit()
    }

    /// The name given to the builder; it stands in `Debug` output and in the names of threads.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let bridge = callbridge::Bridge::builder(runtime.handle().clone()).name("meter").build();
    /// assert_eq!(bridge.name(), "meter");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.owner.core.name
    }

    /// The loop that the bridge leads to.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// assert_eq!(bridge.handle().id(), runtime.handle().id());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn handle(&self) -> &Handle {
        &self.owner.core.handle
    }

    /// Whether new work is refused: the bridge was closed or the loop is gone.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// drop(runtime);
    /// assert!(bridge.is_closed());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.owner.core.ledger.is_closed()
    }

    /// What went through the bridge so far.
    ///
    /// # Examples
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// bridge.run_coroutine_threadsafe(async {}).result(None).unwrap();
    /// let stats = bridge.stats();
    /// assert_eq!((stats.submitted, stats.finished), (1, 1));
    /// assert!(stats.balances());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stats(&self) -> BridgeStats {
        self.owner.core.ledger.stats()
    }

    /// A token that is cancelled when the bridge begins to close or its loop goes away.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// let token = bridge.child_token();
    /// let mut server = bridge.run_coroutine_threadsafe(async move { token.cancelled().await });
    /// assert!(bridge.close_blocking(Duration::from_secs(5)).is_clean());
    /// assert!(server.result(None).is_ok(), "it was told, and ended by itself");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn child_token(&self) -> CancellationToken {
        self.owner.core.token.child_token()
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("name", &self.name())
            .field("in_flight", &self.in_flight())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// A bridge from tokio's own handle.
///
/// # Examples
///
/// ```
/// use callbridge::HandleExt;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = runtime.handle().bridge();
/// assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(None).unwrap(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait HandleExt {
    /// A new bridge to this handle's loop, with the default limit.
    ///
    /// # Examples
    ///
    /// See [`HandleExt`].
    fn bridge(&self) -> Bridge;
}

impl HandleExt for Handle {
    fn bridge(&self) -> Bridge {
        Bridge::new(self.clone())
    }
}

/// Runs `future` on the loop behind `handle`: asyncio's very signature.
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
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    handle.bridge().run_coroutine_threadsafe(future)
}
