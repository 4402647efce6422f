use super::call::{Cancel, Outcome, Shared};
use super::error::{FutureState, ResultError};
use crate::sync::prim::atomic::Ordering;
use crate::sync::prim::lock;
use crate::sync::{
    Deadline, WaitError, event, innermost, may_wait, park_until, spin_until, would_deadlock,
};
use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::task::coop::poll_proceed;

/// The result of work that runs elsewhere, for a thread to wait on or a task to await.
///
/// Returned by [`Bridge::run_coroutine_threadsafe`](crate::Bridge::run_coroutine_threadsafe). It
/// can be waited on with a real timeout ([`result`](Self::result)), awaited, asked
/// ([`state`](Self::state)) and cancelled. A timeout bounds the wait only: the work goes on and the
/// future stays usable. Dropping it lets the work run on unobserved; see
/// [`cancel_on_drop`](Self::cancel_on_drop) for the other choice.
///
/// Python: `concurrent.futures.Future`.
///
/// # Paused clocks
///
/// A test that pauses tokio's clock and awaits this future, a [`to_thread`](crate::to_thread()) or a
/// [`recv`](crate::FrameStream::recv) must hold the clock. tokio moves it on to the next timer as soon
/// as its tasks only wait, and doesn't know that a thread of ours is at work: a `timeout` around the
/// wait elapses at once. The clock stands still while a blocking job of tokio's own runs:
///
/// ```
/// use callbridge::to_thread;
/// use std::time::Duration;
/// use tokio::time::timeout;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
/// # runtime.block_on(async {
/// let (hold, held) = std::sync::mpsc::channel::<()>();
/// tokio::task::spawn_blocking(move || held.recv());
/// let work = to_thread(|| std::thread::sleep(Duration::from_millis(5)));
/// timeout(Duration::from_secs(1), work).await.expect("the second hasn't passed").unwrap();
/// drop(hold); // the clock moves again
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Examples
///
/// ```
/// use callbridge::Bridge;
/// use std::time::Duration;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// let mut answer = bridge.run_coroutine_threadsafe(async { 6 * 7 });
/// assert_eq!(answer.result(Duration::from_secs(5)).unwrap(), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "dropping it lets the work run on, its result unread"]
pub struct BlockingFuture<T> {
    shared: Arc<Shared<T>>,
    /// Keeps the task's memory until the result is taken, so that it goes back to the allocator on the
    /// thread that took it from there: a free from afar contends for that thread's heap.
    task: Option<JoinHandle<()>>,
    /// Its place among those who want to know that they wait in vain.
    in_vain: Option<u64>,
}

impl<T> BlockingFuture<T> {
    pub(super) fn new(shared: Arc<Shared<T>>) -> Self {
        BlockingFuture { shared, task: None, in_vain: None }
    }

    pub(crate) fn keep(mut self, task: Option<JoinHandle<()>>) -> Self {
        self.task = task;
        self
    }

    /// Waits for the value, at most `timeout`; `None` waits for ever.
    ///
    /// The timeout bounds the wait, not the work: after
    /// [`TimedOut`](ResultError::TimedOut) the work goes on and `result` can be called again. It
    /// holds whatever the loop does: it needs no timer of the runtime, and fires on a loop that
    /// nobody drives or that is being dropped. `Duration::ZERO` answers at once; `Duration::MAX`
    /// doesn't overflow. A loop that goes away releases the wait at once.
    ///
    /// The value, and a panic, can be taken once.
    ///
    /// Python: `Future.result(timeout)`.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread. On a thread that drives an event loop it doesn't: it returns the
    /// value if the work is done, else [`WouldDeadlock`](ResultError::WouldDeadlock); await the
    /// future there. It is allowed in `spawn_blocking`, in `block_in_place` and under
    /// `Runtime::enter`. A future that opted out of tokio's budget directly inside a multi-thread
    /// `block_on`, an executor that isn't tokio's, and a destructor run by a current-thread runtime
    /// that is being dropped can't be told from a plain thread.
    ///
    /// # Errors
    ///
    /// See [`ResultError`]: each way of not getting the value is a variant.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::{Bridge, ResultError};
    /// # use callbridge::future::FutureState;
    /// # use std::time::Duration;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let (reply, asked) = tokio::sync::oneshot::channel();
    /// let mut call = bridge.run_coroutine_threadsafe(async { asked.await.unwrap_or(0) });
    /// let error = call.result(Duration::from_millis(5)).unwrap_err();
    /// assert!(matches!(error, ResultError::TimedOut { state: FutureState::Running | FutureState::NotStarted | FutureState::Queued }));
    /// reply.send(7).unwrap();
    /// assert_eq!(call.result(None).unwrap(), 7);
    /// assert!(matches!(call.result(None), Err(ResultError::AlreadyTaken)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn result(&mut self, timeout: impl Into<Option<Duration>>) -> Result<T, ResultError> {
        if let Some(result) = self.try_result() {
            return result;
        }
        match self.wait_until(Deadline::after(timeout)) {
            Ok(()) => self.try_result().expect("a wait ends well only when the work is done"),
            Err(error) => Err(error),
        }
    }

    /// Spins for a moment if that may pay off, as a wait does first.
    pub(crate) fn spin(&self, deadline: Deadline) {
        if self.shared.origin.as_ref().is_some_and(|origin| origin.spins()) {
            spin_until(deadline, || self.shared.is_done());
        }
    }

    fn wait_until(&mut self, deadline: Deadline) -> Result<(), ResultError> {
        if deadline != Deadline::Now && self.shared.is_forked() {
            return Err(ResultError::Forked);
        }
        let waited = may_wait(deadline).and_then(|()| {
            self.help(deadline);
            self.spin(deadline);
            let id = self.shared.id();
            let over = park_until(deadline, |cx| match self.look(cx) {
                Poll::Pending if would_deadlock(id, cx.waker()) => {
                    Poll::Ready(Err(WaitError::WouldDeadlock))
                }
                looked => looked.map(Ok),
            });
            self.leave();
            over.unwrap_or(Err(WaitError::TimedOut))
        });
        match waited {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.in_vain()),
            Err(WaitError::TimedOut) => Err(ResultError::TimedOut { state: self.state() }),
            Err(WaitError::WouldDeadlock) => Err(ResultError::WouldDeadlock),
        }
    }

    /// Why nobody brings the result any more.
    fn in_vain(&self) -> ResultError {
        if self.shared.is_forked() {
            ResultError::Forked
        } else if self.is_this_threads() {
            ResultError::WouldDeadlock
        } else {
            ResultError::LoopClosed
        }
    }

    /// Leaves those who want to know that they wait in vain.
    fn leave(&mut self) {
        if let (Some(ticket), Some(given_up)) = (self.in_vain.take(), self.shared.given_up()) {
            given_up.forget(ticket);
        }
    }

    /// Does the work here and now, should nobody else come to do it.
    pub(super) fn help(&self, deadline: Deadline) {
        if let (Deadline::Never, Some(origin)) = (deadline, &self.shared.origin) {
            Arc::clone(origin).help();
        }
    }

    /// Whether the calling thread is the one that is to do the work.
    fn is_this_threads(&self) -> bool {
        self.shared.origin.as_ref().is_some_and(|origin| origin.is_this_thread())
    }

    /// Waits until the work has ended, at most `timeout`, and takes nothing.
    ///
    /// Python: `concurrent.futures.wait` on one future.
    ///
    /// # Blocking
    ///
    /// As [`result`](Self::result).
    ///
    /// # Errors
    ///
    /// [`TimedOut`](ResultError::TimedOut) when the work hasn't ended in time,
    /// [`WouldDeadlock`](ResultError::WouldDeadlock) on a thread that drives an event loop, and
    /// [`Forked`](ResultError::Forked) in a child process.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # use callbridge::future::FutureState;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let mut call = bridge.run_coroutine_threadsafe(async { "done" });
    /// call.wait(None).unwrap();
    /// assert_eq!(call.state(), FutureState::Finished);
    /// assert_eq!(call.result(None).unwrap(), "done");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn wait(&mut self, timeout: impl Into<Option<Duration>>) -> Result<(), ResultError> {
        if self.is_done() { Ok(()) } else { self.wait_until(Deadline::after(timeout)) }
    }

    /// Takes the result if the work has ended.
    ///
    /// # Errors
    ///
    /// As [`result`](Self::result), without the errors of waiting.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let mut never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// assert!(never.try_result().is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_result(&mut self) -> Option<Result<T, ResultError>> {
        let mut inner = lock(&self.shared.inner);
        if let Outcome::Owed = inner.outcome {
            return None;
        }
        let state = self.shared.state_of(&inner.outcome);
        let outcome = std::mem::replace(&mut inner.outcome, Outcome::Taken(state));
        drop(inner);
        self.task = None;
        self.leave();
        self.shared.taken.store(true, Ordering::Relaxed);
        Some(match outcome {
            Outcome::Ready(result) => result,
            _ => Err(match state {
                FutureState::Cancelled => ResultError::Cancelled,
                FutureState::LoopClosed => ResultError::LoopClosed,
                FutureState::WouldDeadlock => ResultError::WouldDeadlock,
                _ => ResultError::AlreadyTaken,
            }),
        })
    }

    /// Stores who is woken at the end; whether the end has come already.
    pub(super) fn register(&mut self, waker: &Waker) -> bool {
        let known = |stored: &Waker| stored.will_wake(waker);
        {
            let inner = lock(&self.shared.inner);
            if !matches!(inner.outcome, Outcome::Owed) {
                return true;
            }
            if inner.waiter.as_ref().is_some_and(known) {
                return false;
            }
        }
        let waker = waker.clone();
        let mut inner = lock(&self.shared.inner);
        let owed = matches!(inner.outcome, Outcome::Owed);
        let unused = if owed { inner.waiter.replace(waker) } else { Some(waker) };
        drop(inner);
        drop(unused);
        !owed
    }

    /// Ready when the result is there, or nobody brings it any more; whether it is there.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let looked = self.look(cx);
        if let (Poll::Pending, Some(origin), Some(work)) =
            (looked, &self.shared.origin, innermost())
        {
            origin.awaited_in(Some(work.id));
        }
        looked
    }

    fn look(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.register(cx.waker()) {
            return Poll::Ready(true);
        }
        if self.shared.is_forked() || self.is_this_threads() {
            return Poll::Ready(false);
        }
        let Some(given_up) = self.shared.given_up() else { return Poll::Pending };
        let in_vain = given_up.poll(&mut self.in_vain, cx, |given_up| given_up.then_some(()));
        // What a thread is inside of may still end well.
        match in_vain.is_ready() && !self.shared.is_inside() {
            true => Poll::Ready(self.is_done()),
            false => Poll::Pending,
        }
    }

    /// Whether [`result`](Self::result) answers at once: the work has ended, or nobody works on it.
    pub(super) fn is_over(&self) -> bool {
        let given_up = || self.shared.given_up().is_some_and(|given_up| given_up.with(|it| *it));
        self.is_done()
            || self.shared.is_forked()
            || self.is_this_threads()
            || (given_up() && !self.shared.is_inside())
    }

    /// Returns how far the work has come.
    ///
    /// `Cancelled` means that the work has really ended, not that somebody asked.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # use callbridge::future::FutureState;
    /// let nobody = tokio::runtime::Builder::new_current_thread().build()?;
    /// let call = Bridge::new(nobody.handle().clone()).run_coroutine_threadsafe(async {});
    /// assert_eq!(call.state(), FutureState::NotStarted);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn state(&self) -> FutureState {
        self.shared.state()
    }

    /// Whether the work has ended, one way or another. Python: `Future.done()`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// assert!(!bridge.run_coroutine_threadsafe(std::future::pending::<()>()).is_done());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn is_done(&self) -> bool {
        self.state().is_done()
    }

    /// Whether the work was cancelled and has ended. Python: `Future.cancelled()`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let mut never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// never.cancel_and_wait(None).unwrap();
    /// assert!(never.is_cancelled());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn is_cancelled(&self) -> bool {
        self.state() == FutureState::Cancelled
    }

    /// Whether the work has begun and not ended. Python: `Future.running()`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let (began, begun) = std::sync::mpsc::channel();
    /// let call = bridge.run_coroutine_threadsafe(async move {
    ///     began.send(()).unwrap();
    ///     std::future::pending::<()>().await;
    /// });
    /// begun.recv().unwrap();
    /// assert!(call.is_running());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn is_running(&self) -> bool {
        self.state() == FutureState::Running
    }

    /// Runs `callback` with the final state when the work has ended; at once if it has.
    ///
    /// It runs on the thread that ends the work, as a rule one of the loop's, so it must not block; if
    /// that has run all callbacks already, it runs on the calling thread. Callbacks run in order of
    /// registration, after the result can be read; dropping the future doesn't unregister them. A
    /// panic in one is contained and doesn't reach the others.
    ///
    /// Python: `Future.add_done_callback`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # use callbridge::future::FutureState;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let (ended, end) = std::sync::mpsc::channel();
    /// let call = bridge.run_coroutine_threadsafe(async {});
    /// call.add_done_callback(move |state| ended.send(state).unwrap());
    /// assert_eq!(end.recv().unwrap(), FutureState::Finished);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn add_done_callback(&self, callback: impl FnOnce(FutureState) + Send + 'static) {
        self.shared.add_done_callback(Box::new(callback));
    }
}

impl<T: Send + 'static> BlockingFuture<T> {
    /// Asks for the work to be cancelled; returns whether this was the first to ask in time.
    ///
    /// Work that hasn't been polled never runs; work that has is dropped at its next await, on the
    /// loop. The state becomes [`Cancelled`](FutureState::Cancelled) only when that has happened,
    /// and work that finishes first stays finished. `false` means that the work had ended or that a
    /// cancel was asked for before.
    ///
    /// Python: `Future.cancel()`, with the difference that the answer isn't a promise.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::{Bridge, ResultError};
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let mut never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// assert!(never.cancel());
    /// assert!(!never.cancel(), "asked before");
    /// assert!(matches!(never.result(None), Err(ResultError::Cancelled)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn cancel(&self) -> bool {
        self.shared.cancel()
    }

    /// Asks for a cancel and waits, at most `timeout`, until the work has ended.
    ///
    /// Gives the final state: [`Cancelled`](FutureState::Cancelled), or
    /// [`Finished`](FutureState::Finished) when the work was done first and its value is there.
    ///
    /// # Blocking
    ///
    /// As [`result`](Self::result).
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait); the cancel stays asked for.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # use callbridge::future::FutureState;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let mut never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// assert_eq!(never.cancel_and_wait(None).unwrap(), FutureState::Cancelled);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn cancel_and_wait(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<FutureState, ResultError> {
        self.cancel();
        self.wait(timeout).map(|()| self.state())
    }

    /// Makes the drop of this future ask for a cancel.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::Bridge;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let (held, release) = std::sync::mpsc::channel::<()>();
    /// let call = bridge.run_coroutine_threadsafe(async move {
    ///     let _held = held;
    ///     std::future::pending::<()>().await;
    /// });
    /// drop(call.cancel_on_drop());
    /// assert!(release.recv().is_err(), "the work was dropped, and its sender with it");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn cancel_on_drop(self) -> Self {
        self.shared.cancel_on_drop.store(true, Ordering::Relaxed);
        self
    }

    /// Returns a handle that cancels the work from another thread while this one waits.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::{Bridge, ResultError};
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let mut never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// let canceller = never.canceller();
    /// std::thread::spawn(move || canceller.cancel());
    /// assert!(matches!(never.result(None), Err(ResultError::Cancelled)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn canceller(&self) -> Canceller {
        Canceller::new(Arc::clone(&self.shared) as Arc<dyn Cancel>)
    }
}

impl<V, E: fmt::Display> BlockingFuture<Result<V, E>> {
    /// Lets the work run on unobserved; an `Err` that it ends with is reported.
    ///
    /// With feature `tracing` the report is an error event; a panic is reported in any case. Rust
    /// can't tell of a value of any type whether it is an error, so a plain drop reports panics only.
    ///
    /// # Examples
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// bridge.run_coroutine_threadsafe(async { Err::<(), _>("disk full") }).detach();
    /// # assert!(bridge.close_blocking(std::time::Duration::from_secs(5)).is_clean());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn detach(self) {
        drop(self.on_unread(|value| {
            if let Err(error) = &value {
                event(format_args!("a call ended with an error that nobody read"), error);
            }
        }));
    }
}

impl<T> BlockingFuture<T> {
    /// Hands the value over, should nobody read it: to the thread that ends the work, or that drops
    /// this future.
    pub(crate) fn on_unread(self, take: impl FnOnce(T) + Send + 'static) -> Self {
        lock(&self.shared.inner).unread = Some(Box::new(take));
        self
    }
}

// What is shared with the working side is behind locks that a panic doesn't leave half changed.
impl<T> UnwindSafe for BlockingFuture<T> {}
impl<T> RefUnwindSafe for BlockingFuture<T> {}

impl<T> Future for BlockingFuture<T> {
    type Output = Result<T, ResultError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let budget = ready!(poll_proceed(cx));
        let there = ready!(self.poll_over(cx));
        budget.made_progress();
        Poll::Ready(match there {
            true => self.try_result().expect("the end has come"),
            false => Err(self.in_vain()),
        })
    }
}

impl<T> Drop for BlockingFuture<T> {
    fn drop(&mut self) {
        self.leave();
        self.shared.detach();
    }
}

impl<T> fmt::Debug for BlockingFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingFuture").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// Cancels a call from anywhere; see [`BlockingFuture::canceller`].
#[derive(Clone)]
pub struct Canceller {
    target: Arc<dyn Cancel>,
}

impl UnwindSafe for Canceller {}
impl RefUnwindSafe for Canceller {}

impl Canceller {
    pub(crate) fn new(target: Arc<dyn Cancel>) -> Self {
        Canceller { target }
    }

    /// Asks for the work to be cancelled, as [`BlockingFuture::cancel`].
    pub fn cancel(&self) -> bool {
        self.target.cancel()
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}
