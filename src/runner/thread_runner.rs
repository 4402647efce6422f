//! The runner, as a sync program holds it.

use super::close::Patience;
use super::core::Core;
use super::{Outcome, SharedRunner, ThreadRunnerBuilder};
use crate::bridge::Bridge;
use crate::future::{BlockingFuture, ResultError};
use crate::sync::Deadline;
use crate::sync::context::drives_a_loop;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the drop of a runner waits.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// An event loop on a background thread, for a program that is not async.
///
/// A sync program (a command, a desktop program, a thread pool) that needs one async library keeps
/// a runner: a loop that lives on between calls, and with it what the library keeps on a loop, such
/// as sessions and connection pools. All methods take `&self` and can be used by any number of
/// threads at once; an `Arc` or a scope shares it.
///
/// The loop starts with the first use; however many threads race for that, one loop starts. It ends
/// with [`close`](Self::close), and stays ended. By default it is a current-thread runtime, driven
/// by the background thread, with everything that this build of tokio has switched on;
/// [`builder`](Self::builder) has the choices.
///
/// A start that fails is an error of the calls that waited for it, and the next use tries again.
///
/// # Ctrl-C
///
/// What waits in [`run`](Self::run) is released by a close from another thread, but only once its timeout is
/// over: until then, calls in flight may end by themselves. At once it is by a token. One is enough for all that
/// may wait: calls by [`run_until_cancelled`](Self::run_until_cancelled), streams by futures-util's `take_until`, a
/// context's beginning by the token's own `run_until_cancelled`. Then the program goes on to its own end, which exits
/// the contexts and closes the runner.
///
/// ```
/// use callbridge::{ResultError, ThreadRunner};
/// use futures_util::StreamExt;
/// use tokio_util::sync::CancellationToken;
/// # use std::future::pending;
///
/// let runner = ThreadRunner::new();
/// let interrupted = CancellationToken::new();
/// let pressed = interrupted.clone();
/// // A task that isn't a call in flight, for which a close would wait.
/// let _watcher = runner.bridge()?.handle().spawn(async move {
///     // In a program `tokio::signal::ctrl_c().await`, of tokio's feature `signal`.
/// #   tokio::time::sleep(std::time::Duration::from_millis(10)).await;
///     pressed.cancel();
/// });
///
/// let token = interrupted.clone();
/// let connect = move || async move {
///     token.run_until_cancelled(pending::<()>()).await.ok_or("interrupted")
/// };
/// let session = runner.enter_context(connect, |_, _| async { Ok::<_, String>(()) });
/// assert!(session.is_err());
///
/// let (_sender, frames) = callbridge::channel::<u8>(4);
/// let mut items = runner.wrap_iter(frames.take_until(interrupted.clone().cancelled_owned()));
/// assert!(items.next().is_none());
///
/// let answer = runner.run_until_cancelled(&interrupted, pending::<()>(), None);
/// assert!(matches!(answer, Err(ResultError::Cancelled)));
/// # Ok::<(), ResultError>(())
/// ```
///
/// A handler outside of the loop, such as the crate ctrlc's, cancels the token alike. A stream that blocks in
/// its poll is ended by a [canceller](super::WrapIter::canceller), which releases the thread at once; a second
/// Ctrl-C can close the runner by a [`WeakRunner`](super::WeakRunner): `examples/ctrl_c/src/bin/sync.rs` does
/// both.
///
/// # Drop, and fork
///
/// Dropping the runner closes it: contexts are exited, and calls in flight are cut off without
/// being waited for. That takes at most about 1.5 s; on a thread that drives an event loop the drop
/// doesn't wait, and a thread of its own does the closing.
///
/// In a process that is forked off, a runner whose loop had been started answers
/// [`Forked`](ResultError::Forked) wherever it would wait for that loop, its close and its drop do
/// nothing, and [`shared`](Self::shared) gives a new runner.
///
/// Python: `asyncio.Runner` on a thread, `anyio.from_thread.start_blocking_portal`, and
/// `ThreadRunner` of asyncio-thread-runner.
///
/// # Examples
///
/// ```
/// use callbridge::ThreadRunner;
/// use std::time::Duration;
///
/// let runner = ThreadRunner::new();
/// let answer = runner.run(async {
///     tokio::time::sleep(Duration::from_millis(1)).await;
///     6 * 7
/// })?;
/// assert_eq!(answer, 42);
/// assert!(runner.close(Duration::from_secs(5)).is_clean());
/// # Ok::<(), callbridge::ResultError>(())
/// ```
pub struct ThreadRunner {
    pub(super) core: Arc<Core>,
}

impl ThreadRunner {
    /// Makes a runner with the default settings, whose loop starts with the first use.
    ///
    /// # Examples
    ///
    /// ```
    /// let runner = callbridge::ThreadRunner::new();
    /// assert!(!runner.is_started());
    /// assert_eq!(runner.run(async { 1 })?, 1);
    /// # Ok::<(), callbridge::ResultError>(())
    /// ```
    pub fn new() -> Self {
        Self::builder().build().expect("the defaults are in order")
    }

    /// Sets up a runner.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ThreadRunner;
    ///
    /// let runner = ThreadRunner::builder()
    ///     .worker_threads(2)
    ///     .name("weather")
    ///     .max_in_flight(100)
    ///     .build()?;
    /// assert_eq!(runner.name(), "weather");
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn builder() -> ThreadRunnerBuilder {
        ThreadRunnerBuilder::new()
    }

    /// Returns a share of one runner for the whole process, for libraries that shouldn't start a
    /// loop each.
    ///
    /// The first lease makes the runner, its first use starts the loop, and the drop of the last
    /// lease closes it as a runner's drop does. A lease taken later makes a new one, which may
    /// start while the old one is still ending; so does a lease taken after somebody has closed the
    /// shared runner, or in a process that was forked off. What an async library keeps on the loop, such
    /// as a session, ends with the last lease: whoever keeps it in a static keeps a lease beside it.
    ///
    /// Python: `anyio.from_thread.BlockingPortalProvider`.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ThreadRunner;
    ///
    /// let one = ThreadRunner::shared();
    /// let other = ThreadRunner::shared();
    /// let id = || async { std::thread::current().id() };
    /// assert_eq!(one.run(id())?, other.run(id())?);
    /// # Ok::<(), callbridge::ResultError>(())
    /// ```
    pub fn shared() -> SharedRunner {
        SharedRunner::take()
    }

    /// Runs `future` on the calling thread, in the loop's context, and waits for its value.
    ///
    /// The future is polled on the calling thread, in the context of the loop, as
    /// [`Bridge::call`] does: `tokio::spawn`, timers and sockets work inside, it may borrow, and needn't
    /// be `Send`. It can be a `&mut` to one that is `Unpin`, to go on with it later. A task that is to
    /// run on the loop itself is [`spawn`](Self::spawn)ed.
    ///
    /// A value whose destructor needs a loop (it spawns a task, say) is dropped inside:
    /// `runner.run(async move { drop(value) })`.
    ///
    /// Python: `Runner.run`, `portal.call`.
    ///
    /// # Blocking
    ///
    /// Until the future has ended; before that, while the limit of calls in flight is reached.
    /// [`run_timeout`](Self::run_timeout) has a limit, [`spawn`](Self::spawn) doesn't wait.
    ///
    /// # Errors
    ///
    /// See [`ResultError`]. On a thread that drives an event loop, the runner's own or another, the
    /// future is not run and the error is [`WouldDeadlock`](ResultError::WouldDeadlock).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runner = callbridge::ThreadRunner::new();
    /// let mut steps = Vec::new();
    /// runner.run(async {
    ///     steps.push("before");
    ///     tokio::time::sleep(Duration::from_millis(1)).await;
    ///     steps.push("after");
    /// })?;
    /// assert_eq!(steps, ["before", "after"]);
    /// # Ok::<(), callbridge::ResultError>(())
    /// ```
    #[track_caller]
    pub fn run<F: Future>(&self, future: F) -> Result<F::Output, ResultError> {
        self.run_timeout(future, None)
    }

    /// As [`run`](Self::run), but at most for `timeout`; work that isn't done then is dropped.
    ///
    /// The timeout covers everything: the start of the loop, the wait for room, and the work. To
    /// wait again instead of dropping it, keep what [`spawn`](Self::spawn) returns.
    ///
    /// # Blocking
    ///
    /// At most `timeout`; `None` is for ever.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`TimedOut`](ResultError::TimedOut).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ResultError;
    /// use std::time::Duration;
    ///
    /// let runner = callbridge::ThreadRunner::new();
    /// let late = runner.run_timeout(std::future::pending::<()>(), Duration::from_millis(5));
    /// assert!(matches!(late, Err(ResultError::TimedOut { .. })));
    /// ```
    #[track_caller]
    pub fn run_timeout<F: Future>(
        &self,
        future: F,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<F::Output, ResultError> {
        let deadline = Deadline::after(timeout);
        self.bridge_before(deadline)?.call(future, deadline.remaining())
    }

    /// As [`run_timeout`](Self::run_timeout), and gives up when another thread, or a task, cancels `token`.
    ///
    /// # Blocking
    ///
    /// As [`run_timeout`](Self::run_timeout); the token doesn't end a start of the loop.
    ///
    /// # Errors
    ///
    /// As [`run_timeout`](Self::run_timeout), and [`Cancelled`](ResultError::Cancelled). The future is dropped.
    ///
    /// # Examples
    ///
    /// See [Ctrl-C](Self#ctrl-c).
    #[track_caller]
    pub fn run_until_cancelled<F: Future>(
        &self,
        token: &CancellationToken,
        future: F,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<F::Output, ResultError> {
        let deadline = Deadline::after(timeout);
        self.bridge_before(deadline)?.call_until_cancelled(token, future, deadline.remaining())
    }

    /// The bridge for a call that waits, once the loop has started.
    fn bridge_before(&self, deadline: Deadline) -> Result<&Bridge, ResultError> {
        if drives_a_loop() {
            return Err(ResultError::WouldDeadlock);
        }
        self.core.ready(deadline).map(|live| &live.bridge)
    }

    /// Submits `future` to the loop, and returns a [`BlockingFuture`] for its value.
    ///
    /// It can be used in async code, too, and awaited there. Refused work comes back as a future
    /// that is already done, with the reason. Python: `portal.start_task_soon`.
    ///
    /// It is a call in flight: a [`close`](Self::close) waits for it, for its whole timeout if it never ends.
    /// A task that only watches, such as for a Ctrl-C, is spawned by `runner.bridge()?.handle().spawn(..)`,
    /// and ends with the loop; or it ends by a [`child_token`](Bridge::child_token), which a close cancels
    /// first.
    ///
    /// # Blocking
    ///
    /// Until the loop has started, well under a millisecond, and while the limit of calls in flight
    /// is reached; on a thread that drives an event loop that limit refuses instead.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runner = callbridge::ThreadRunner::new();
    /// let mut call = runner.spawn(async { 6 * 7 });
    /// assert_eq!(call.result(Duration::from_secs(5))?, 42);
    /// # Ok::<(), callbridge::ResultError>(())
    /// ```
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> BlockingFuture<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.core.submit(future)
    }

    /// Returns a bridge to the loop, started if need be, for callbacks and libraries.
    ///
    /// # Blocking
    ///
    /// Until the loop has started.
    ///
    /// # Errors
    ///
    /// [`Refused`](ResultError::Refused) with the reason inside when the loop couldn't be
    /// started, or [`LoopClosed`](ResultError::LoopClosed) when the runner was closed before that.
    ///
    /// # Examples
    ///
    /// ```
    /// let runner = callbridge::ThreadRunner::new();
    /// let bridge = runner.bridge()?;
    /// let mut answer = bridge.run_coroutine_threadsafe(async { 1 });
    /// assert_eq!(answer.result(None)?, 1);
    /// # Ok::<(), callbridge::ResultError>(())
    /// ```
    pub fn bridge(&self) -> Result<Bridge, ResultError> {
        self.core.ready(Deadline::Never).map(|live| live.bridge.clone())
    }

    /// Returns the name of the background thread.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Whether the loop was started; it may have ended since.
    pub fn is_started(&self) -> bool {
        self.core.live().is_some()
    }

    /// Whether the runner was closed, or is closing.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// let runner = callbridge::ThreadRunner::new();
    /// assert!(runner.close(Duration::from_secs(5)).is_clean());
    /// assert!(runner.is_closed());
    /// assert!(runner.run(async {}).is_err(), "it can't be opened again");
    /// ```
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }
}

impl Default for ThreadRunner {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ThreadRunner {
    fn drop(&mut self) {
        let patience = Patience { drain: Deadline::Now, whole: Deadline::after(DROP_WAIT) };
        drop(self.core.close(Outcome::of_drop(), patience));
    }
}

impl fmt::Debug for ThreadRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadRunner")
            .field("name", &self.name())
            .field("started", &self.is_started())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
