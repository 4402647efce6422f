use crate::future::{BlockingFuture, FutureState, ResultError};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio_util::sync::CancellationToken;

/// A blocking call that runs on a pool's thread, for a task to await.
///
/// Returned by [`to_thread`](super::to_thread) and [`run_in_executor`](super::run_in_executor). The
/// call is in the pool's queue as soon as it is made, so several can be made first and awaited
/// later. A thread that waits uses [`ThreadPool::submit`](super::ThreadPool::submit).
///
/// # Cancel safety
///
/// Dropping it abandons the call: one that hasn't begun never runs; one that has is told through its
/// [`CancelToken`](super::CancelToken) and runs on, its result dropped. A thread can't be stopped
/// from outside, so that is all that a drop can do; to await the end of a call that is to be
/// cancelled, use [`wait_on_cancel`](Self::wait_on_cancel). For a call that is to run whether or not
/// anybody waits, use [`ThreadPool::submit`](super::ThreadPool::submit).
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use callbridge::executor::to_thread;
///
/// let slow = to_thread(|| std::fs::read_to_string("Cargo.toml"));
/// let other = to_thread(|| 2 + 2);
/// assert_eq!(other.await.unwrap(), 4);
/// assert!(slow.await.unwrap().is_ok());
/// # }
/// ```
#[must_use = "dropping it abandons the call"]
pub struct ThreadCall<T> {
    result: BlockingFuture<T>,
}

impl<T: Send + 'static> ThreadCall<T> {
    pub(super) fn new(result: BlockingFuture<T>) -> Self {
        ThreadCall { result: result.cancel_on_drop() }
    }

    /// Asks for a cancel; returns whether this was the first to ask in time.
    ///
    /// A job that hasn't begun never runs, and the await gives
    /// [`Cancelled`](ResultError::Cancelled). A running one is told through its
    /// [`CancelToken`](super::CancelToken), and the await gives what it returns.
    pub fn cancel(&mut self) -> bool {
        self.result.cancel()
    }

    /// Returns how far the call has come.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use callbridge::future::FutureState;
    ///
    /// let (release, blocked) = std::sync::mpsc::channel::<()>();
    /// let call = callbridge::to_thread(move || blocked.recv());
    /// assert!(!call.state().is_done());
    /// drop(release);
    /// assert!(call.await.unwrap().is_err());
    /// # }
    /// ```
    pub fn state(&self) -> FutureState {
        self.result.state()
    }

    /// Passes a cancel on to the job and goes on waiting until the job has really ended.
    ///
    /// Python: `anyio.to_thread.run_sync`, which defers a cancel until the thread is done.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future abandons the call, as dropping the [`ThreadCall`] does.
    ///
    /// # Errors
    ///
    /// [`Cancelled`](ResultError::Cancelled) when the job hadn't begun; otherwise as
    /// [`BlockingFuture::result`] without its timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::executor::{CancelToken, to_thread};
    /// use tokio_util::sync::CancellationToken;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let stop = CancellationToken::new();
    /// let stopping = stop.clone();
    /// let call = to_thread(move || {
    ///     stopping.cancel(); // as somebody else would
    ///     CancelToken::current().unwrap().wait(None).unwrap();
    ///     "put away"
    /// });
    /// assert_eq!(call.wait_on_cancel(&stop).await.unwrap(), "put away");
    /// # }
    /// ```
    pub async fn wait_on_cancel(mut self, cancel: &CancellationToken) -> Result<T, ResultError> {
        if let Some(result) = self.until(cancel).await {
            return result;
        }
        self.cancel();
        self.await
    }

    /// Stops waiting when `cancel` is cancelled; the job is told and runs on, its result dropped.
    ///
    /// Python: `anyio.to_thread.run_sync(abandon_on_cancel=True)`.
    ///
    /// # Cancel safety
    ///
    /// As [`wait_on_cancel`](Self::wait_on_cancel).
    ///
    /// # Errors
    ///
    /// [`Cancelled`](ResultError::Cancelled) when `cancel` came first; otherwise as
    /// [`BlockingFuture::result`] without its timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ResultError;
    /// use tokio_util::sync::CancellationToken;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let stop = CancellationToken::new();
    /// stop.cancel();
    /// let (release, blocked) = std::sync::mpsc::channel::<()>();
    /// let call = callbridge::to_thread(move || blocked.recv());
    /// let result = call.abandon_on_cancel(&stop).await;
    /// assert!(matches!(result, Err(ResultError::Cancelled)));
    /// drop(release);
    /// # }
    /// ```
    pub async fn abandon_on_cancel(mut self, cancel: &CancellationToken) -> Result<T, ResultError> {
        self.until(cancel).await.unwrap_or(Err(ResultError::Cancelled))
    }

    async fn until(&mut self, cancel: &CancellationToken) -> Option<Result<T, ResultError>> {
        let mut cancelled = pin!(cancel.cancelled());
        poll_fn(|cx| {
            if let Poll::Ready(result) = Pin::new(&mut *self).poll(cx) {
                return Poll::Ready(Some(result));
            }
            cancelled.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}

impl<T> Future for ThreadCall<T> {
    type Output = Result<T, ResultError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx)
    }
}

impl<T> fmt::Debug for ThreadCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadCall").field("state", &self.result.state()).finish_non_exhaustive()
    }
}
