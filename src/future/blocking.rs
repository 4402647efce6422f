use super::call::{Callback, Cancel, Failure, Outcome, Shared};
use super::error::{FutureState, Panic, ResultError, WaitError};
use crate::sync::context::drives_a_loop;
use crate::sync::prim::atomic::Ordering;
use crate::sync::prim::lock;
use crate::sync::{Deadline, Woken, nap, with_parker};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

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
    /// Asks for a cancel when this future is dropped undone.
    cancel_on_drop: Option<fn(&Shared<T>)>,
    /// Keeps the work's memory until the result is taken, so that it goes back to the allocator on
    /// the thread that took it from there: a free from afar contends for that thread's heap.
    memory: Option<Memory>,
}

/// The allocation that the work lives in.
pub(crate) type Memory = async_task::Task<(), &'static std::panic::Location<'static>>;

impl<T> BlockingFuture<T> {
    pub(super) fn new(shared: Arc<Shared<T>>) -> Self {
        BlockingFuture { shared, cancel_on_drop: None, memory: None }
    }

    pub(crate) fn keep(mut self, memory: Memory) -> Self {
        self.memory = Some(memory);
        self
    }

    fn let_go_of_memory(&mut self) {
        if let Some(memory) = self.memory.take() {
            memory.detach();
        }
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
    /// # use callbridge::{Bridge, FutureState, ResultError};
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
        match self.wait(timeout) {
            Ok(()) => self.try_result().expect("a wait ends well only when the work is done"),
            Err(WaitError::TimedOut { state }) => Err(ResultError::TimedOut { state }),
            Err(WaitError::WouldDeadlock) => Err(ResultError::WouldDeadlock),
        }
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
    /// [`WaitError::TimedOut`] when the work hasn't ended in time, [`WaitError::WouldDeadlock`] on
    /// a thread that drives an event loop.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::{Bridge, FutureState};
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let mut call = bridge.run_coroutine_threadsafe(async { "done" });
    /// call.wait(None).unwrap();
    /// assert_eq!(call.state(), FutureState::Finished);
    /// assert_eq!(call.result(None).unwrap(), "done");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn wait(&mut self, timeout: impl Into<Option<Duration>>) -> Result<(), WaitError> {
        let state = self.state();
        if state.is_done() {
            return Ok(());
        }
        let timeout = timeout.into();
        if timeout == Some(Duration::ZERO) {
            return Err(WaitError::TimedOut { state });
        }
        if drives_a_loop() {
            return Err(WaitError::WouldDeadlock);
        }
        let deadline = Deadline::after(timeout);
        if self.done_after_a_nap(deadline) {
            return Ok(());
        }
        with_parker(|parker| {
            while !self.register(parker.waker()) {
                if parker.park(deadline) == Woken::TimedOut {
                    return self.end_of_wait();
                }
            }
            Ok(())
        })
    }

    pub(crate) fn done_after_a_nap(&self, deadline: Deadline) -> bool {
        let naps = self.shared.origin.as_ref().is_some_and(|origin| origin.waiters_nap());
        naps && nap(deadline, || self.shared.done.load(Ordering::Acquire))
    }

    fn end_of_wait(&self) -> Result<(), WaitError> {
        let state = self.state();
        if state.is_done() { Ok(()) } else { Err(WaitError::TimedOut { state }) }
    }

    /// The result, if the work has ended.
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
        self.take_or(|_| {})
    }

    /// Takes the outcome, or gives the still locked state to `owed`.
    fn take_or(
        &mut self,
        owed: impl FnOnce(&mut super::call::Inner<T>),
    ) -> Option<Result<T, ResultError>> {
        let mut inner = lock(&self.shared.inner);
        if let Outcome::Owed = inner.outcome {
            owed(&mut inner);
            return None;
        }
        let state = self.shared.state_of(&inner.outcome);
        let outcome = std::mem::replace(&mut inner.outcome, Outcome::Taken(state));
        drop(inner);
        self.let_go_of_memory();
        Some(match outcome {
            Outcome::Ready(Ok(value)) => Ok(value),
            Outcome::Ready(Err(Failure::Panicked(payload))) => {
                Err(ResultError::Panicked(Panic::new(payload)))
            }
            Outcome::Ready(Err(Failure::StartFailed(error))) => {
                Err(ResultError::StartFailed(error))
            }
            Outcome::Ready(Err(Failure::Refused(why))) => Err(ResultError::Refused(why)),
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
        let mut inner = lock(&self.shared.inner);
        let Outcome::Owed = inner.outcome else { return true };
        if inner.waiter.as_ref().is_some_and(|stored| stored.will_wake(waker)) {
            return false;
        }
        let old = inner.waiter.replace(waker.clone());
        drop(inner);
        drop(old);
        false
    }

    /// How far the work has come.
    ///
    /// `Cancelled` means that the work has really ended, not that somebody asked.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::{Bridge, FutureState};
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
    /// It runs on the thread that ends the work, as a rule one of the loop's, so it must not block;
    /// if the work has ended already, it runs on the calling thread. Callbacks run in order of
    /// registration, after the result can be read; dropping the future doesn't unregister them. A
    /// panic in one is contained and doesn't reach the others.
    ///
    /// Python: `Future.add_done_callback`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::{Bridge, FutureState};
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let (ended, end) = std::sync::mpsc::channel();
    /// let call = bridge.run_coroutine_threadsafe(async {});
    /// call.add_done_callback(move |state| ended.send(state).unwrap());
    /// assert_eq!(end.recv().unwrap(), FutureState::Finished);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn add_done_callback(&self, callback: impl FnOnce(FutureState) + Send + 'static) {
        self.shared.add_done_callback(Box::new(callback) as Callback);
    }
}

impl<T: Send + 'static> BlockingFuture<T> {
    /// Asks for the work to be cancelled; whether this call was the one that asked.
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
    /// # use callbridge::{Bridge, FutureState};
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let mut never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// assert_eq!(never.cancel_and_wait(None), Ok(FutureState::Cancelled));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn cancel_and_wait(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<FutureState, WaitError> {
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
    pub fn cancel_on_drop(mut self) -> Self {
        self.cancel_on_drop = Some(|shared| {
            shared.cancel();
        });
        self
    }

    /// A handle that can cancel the work from another thread while this one waits.
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
        Canceller { target: Arc::clone(&self.shared) as Arc<dyn Cancel> }
    }
}

impl<T> Future for BlockingFuture<T> {
    type Output = Result<T, ResultError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.register(cx.waker()) {
            Poll::Ready(self.try_result().expect("the end has come"))
        } else {
            Poll::Pending
        }
    }
}

impl<T> Drop for BlockingFuture<T> {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel_on_drop {
            cancel(&self.shared);
        }
        self.let_go_of_memory();
        self.shared.detach();
    }
}

impl<T> fmt::Debug for BlockingFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingFuture").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// Cancels a call from anywhere; see [`BlockingFuture::canceller`].
///
/// # Examples
///
/// See [`BlockingFuture::canceller`].
#[derive(Clone)]
pub struct Canceller {
    target: Arc<dyn Cancel>,
}

impl Canceller {
    /// Asks for the work to be cancelled, as [`BlockingFuture::cancel`].
    ///
    /// # Examples
    ///
    /// See [`BlockingFuture::canceller`].
    pub fn cancel(&self) -> bool {
        self.target.cancel()
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}
