//! The event loop, seen from a foreign thread.
//!
//! | a thread wants | it uses |
//! |---|---|
//! | an answer now | [`Bridge::call`] |
//! | an answer later, or many at once | [`Bridge::run_coroutine_threadsafe`] |
//! | something done on the loop | [`Bridge::call_soon_threadsafe`] |
//! | everything ended, with a report | [`Bridge::close`] |
//!
//! What a call gives is a [`BlockingFuture`](crate::BlockingFuture): see [`future`](crate::future).

mod builder;
mod call;
mod close;
mod core;
mod counters;
mod first_polls;
#[cfg(feature = "metrics")]
mod observed;
mod report;
mod stall;
mod stats;
mod submit;
mod suspended;
mod task;

#[cfg(all(test, callbridge_loom))]
mod loom_tests;

pub use builder::BridgeBuilder;
#[cfg(feature = "runner")]
pub(crate) use builder::MAX_IN_FLIGHT;
pub(crate) use first_polls::{FirstPolls, Polled};
pub use report::{CloseReport, StuckCall};
pub use stall::Stall;
pub use stats::BridgeStats;
pub use submit::run_coroutine_threadsafe;

use self::core::Core;
use std::fmt;
use std::sync::Arc;
use tokio::runtime::{Handle, TryCurrentError};
use tokio_util::sync::CancellationToken;

/// An event loop, as a foreign thread sees it: a place to run async work and get an answer back.
///
/// A bridge is a cheap clone, `Send + Sync`, and borrows the loop: it never keeps a runtime alive,
/// and works with both flavours. Submitted work runs as tokio tasks: in parallel on the loop's workers,
/// with timers and `tokio::spawn` inside, seen by tokio's tools, its panics contained. A thread that
/// waits for the answer anyway [`call`](Self::call)s: the work is polled on that thread, which wakes
/// nobody and allocates nothing if the answer is there at once.
///
/// At most [`max_in_flight`](BridgeBuilder::max_in_flight) calls are in flight, by default 65 536, so a
/// runaway thread is held back instead of filling the memory.
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
/// let runtime = tokio::runtime::Runtime::new()?;
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
    /// Makes a bridge to the loop behind `handle`, with the default limit. Spawns one small task
    /// there.
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
        Self::builder(handle).connect()
    }

    /// Makes a bridge to the loop that this code runs on. Python: `asyncio.get_running_loop()`.
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
            Err(_) => panic!(
                "no event loop runs here: call it inside the runtime, or pass its handle to Bridge::new"
            ),
        }
    }

    /// Makes a bridge to the loop that this code runs on, if there is one.
    ///
    /// # Errors
    ///
    /// tokio's own outside a runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(callbridge::Bridge::try_current().is_err(), "no runtime here");
    /// ```
    pub fn try_current() -> Result<Self, TryCurrentError> {
        Handle::try_current().map(Self::new)
    }

    /// Sets up a bridge.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::Bridge;
    ///
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(16).name("meter").build()?;
    /// assert_eq!(bridge.name(), "meter");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder(handle: Handle) -> BridgeBuilder {
        BridgeBuilder::new(handle)
    }

    /// Returns how many calls are in flight: submitted and not ended.
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

    /// Returns the name given to the builder.
    pub fn name(&self) -> &str {
        &self.owner.core.name
    }

    /// Returns the handle of the loop that the bridge leads to.
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

    /// Returns a token that is cancelled when the bridge begins to close or its loop goes away.
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
