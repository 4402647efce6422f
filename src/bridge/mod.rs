//! The event loop, seen from a foreign thread.

mod builder;
mod call;
mod close;
mod core;
mod counters;
mod error;
mod stats;
mod suspended;
mod task;

#[cfg(all(test, callbridge_loom))]
mod loom_tests;

pub use builder::BridgeBuilder;
pub(crate) use call::Polled;
pub use close::{CloseReport, StuckCall};
pub use error::NoCurrentLoop;
pub use stats::BridgeStats;

use self::core::Core;
use crate::future::{BlockingFuture, ResultError, SubmitError, resolved};
use crate::sync::Deadline;
use std::convert::identity;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// An event loop, as a foreign thread sees it: a place to run async work and get an answer back.
///
/// A bridge is a cheap clone, `Send + Sync`, and borrows the loop: it never keeps a runtime alive,
/// and works with both flavours. Submitted work runs as tokio tasks: in parallel on the loop's workers,
/// with timers and `tokio::spawn` inside, seen by tokio's tools, its panics contained. A thread that
/// waits for the answer anyway [`call`](Self::call)s: the work is polled on that thread, which wakes
/// nobody and allocates nothing if the answer is there at once.
///
/// At most [`max_in_flight`](BridgeBuilder::max_in_flight) calls are in flight, by default
/// [`DEFAULT_MAX_IN_FLIGHT`](Self::DEFAULT_MAX_IN_FLIGHT), so a runaway thread is held back instead
/// of filling the memory.
///
/// Every call ends: with a value, cancelled, panicked, or with
/// [`LoopClosed`](crate::ResultError::LoopClosed) when the runtime goes away or the bridge is
/// closed. Dropping the last clone closes nothing: work in flight goes on. A bridge keeps one small task
/// on the loop, which tells it of the loop's end.
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
        self.core.release();
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

    /// A bridge to the loop behind `handle`, with the default limit. Spawns one task there.
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

    /// Runs `future` and waits for its value, at most `timeout`; `None` waits for ever.
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
    /// [`NoRoom`](crate::FutureState::NoRoom) if it never began. See [`ResultError`] for the others.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::Bridge;
    /// use std::time::Duration;
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
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

    /// Makes a future and polls it once on the calling thread; what isn't ready goes on as a call.
    #[track_caller]
    pub(crate) fn call_or_start<F>(
        &self,
        make: impl FnOnce() -> F,
        slot: &mut Pin<Box<Option<F>>>,
    ) -> Result<Polled<F::Output>, SubmitError<()>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.owner.core.call_or_start(make, slot)
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

    /// Runs `future` on the loop and returns what to wait on for its result.
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
        self.submit(future, identity, Deadline::Never)
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
    /// # use callbridge::{Bridge, SubmitError};
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build();
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
        self.submit(future, identity, Deadline::Now)
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
    /// # use callbridge::{Bridge, SubmitError};
    /// # use std::time::Duration;
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build();
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
        match self.submit(future, identity, Deadline::after(timeout)) {
            Err(SubmitError::Full(future)) => Err(SubmitError::TimedOut(future)),
            submitted => submitted,
        }
    }

    /// Submits `work`, which `future` makes a future of; hands it back if it is refused.
    #[track_caller]
    fn submit<W, F>(
        &self,
        work: W,
        future: impl FnOnce(W) -> F,
        deadline: Deadline,
    ) -> Result<BlockingFuture<F::Output>, SubmitError<W>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match self.owner.core.admit(deadline) {
            Ok(()) => Ok(self.owner.core.start(future(work))),
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
        self.submit(callback, |callback| async move { callback() }, Deadline::Never).map(drop)
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
        self.submit(callback, |callback| async move { callback() }, Deadline::Now).map(drop)
    }

    /// Refuses new work, lets the work in flight drain for `timeout`, then cancels the rest.
    ///
    /// Tokens from [`child_token`](Self::child_token) are cancelled at the start, so that work
    /// which runs until told otherwise can end by itself. What has drained is resolved and its callbacks
    /// have run. Work that is cancelled gives [`LoopClosed`](crate::ResultError::LoopClosed); its future
    /// is dropped on the loop (or by the thread that [`call`](Self::call)s). What doesn't come out of a
    /// poll, or out of a destructor, is given 100 ms more and then named in the report. Closing twice is
    /// fine; the second caller waits as well.
    ///
    /// It needs no timer of the runtime: the waiting is timed by a short-lived thread. Don't await it
    /// inside work that runs on the same bridge: such work would wait for itself until the timeout.
    ///
    /// # Cancel safety
    ///
    /// New work is refused from the first poll on. Dropping the returned future after that cancels what
    /// is in flight at once.
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
    pub async fn close(&self, timeout: impl Into<Option<Duration>>) -> CloseReport {
        close::close(&self.owner.core, timeout.into()).await
    }

    /// As [`close`](Self::close), for a thread that may block.
    ///
    /// # Blocking
    ///
    /// Blocks at most `timeout` and 100 ms; a pool's worker lends its place. On a thread that drives an event loop it doesn't wait
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
    pub fn close_blocking(&self, timeout: impl Into<Option<Duration>>) -> CloseReport {
        close::close_blocking(&self.owner.core, timeout.into())
    }

    /// Refuses new work and cancels the child tokens, as closing begins; waits for nothing.
    #[cfg(feature = "runner")]
    pub(crate) fn begin_close(&self) {
        self.owner.core.begin_close();
    }

    /// How many calls are submitted and not ended.
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
        self.owner.core.limiter.in_use()
    }

    /// The limit of calls in flight; `None` if unbounded.
    ///
    /// # Examples
    ///
    /// See [`builder`](Self::builder).
    pub fn max_in_flight(&self) -> Option<usize> {
        self.owner.core.limiter.limit()
    }

    /// The name given to the builder.
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
        self.owner.core.limiter.is_closed()
    }

    /// Returns the counters of the calls so far.
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
        self.owner.core.stats()
    }

    /// A token that is cancelled when the bridge begins to close or its loop goes away.
    ///
    /// A bridge that gave one out keeps its task on the loop as long as the loop lives.
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
        self.owner.core.child_token()
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
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let core = Core::new(Bridge::builder(handle.clone()));
    match core.admit(Deadline::Now) {
        Ok(()) => core.start(future),
        Err(refused) => resolved(refused.into()),
    }
}
