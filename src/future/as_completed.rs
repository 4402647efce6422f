//! Futures in the order in which they end.
//!
//! Invariant: a future is yielded once, by the first of its indices in `ended` that finds it over. Its
//! end puts one there, or being found over at the start, or being given up.

use super::BlockingFuture;
use crate::sync::{Deadline, Monitor, WaitError};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

/// Indices of futures that ended and weren't yielded.
type Ended = Monitor<VecDeque<usize>>;

struct IndexWaker {
    ended: Arc<Ended>,
    index: usize,
}

impl Wake for IndexWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ended.change(|ended| ended.push_back(self.index));
    }
}

/// Yields futures as they end; what [`as_completed`] returns.
pub struct AsCompleted<T> {
    /// Each future until it is yielded.
    futures: Vec<Option<BlockingFuture<T>>>,
    ended: Arc<Ended>,
    deadline: Deadline,
    unfinished: usize,
}

/// Yields the futures in the order in which they end, within one `timeout` for all.
///
/// Futures that are done come first. Each item is a future that is done, or that nobody works on any
/// more (in a forked process, or after a close that gave it up): its
/// [`result`](BlockingFuture::result) answers at once. When the timeout passes, the iterator yields
/// one [`AsCompletedError`] with the futures that are left, and ends. `None` waits for ever;
/// the deadline counts from this call.
///
/// Python: `concurrent.futures.as_completed`.
///
/// # Blocking
///
/// `next` blocks as [`BlockingFuture::result`] does.
///
/// # Errors
///
/// An item is an error when the timeout has passed, or when waiting would block an event loop.
///
/// # Examples
///
/// ```
/// use callbridge::{Bridge, as_completed};
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// let calls = [3, 1, 2].map(|n| bridge.run_coroutine_threadsafe(async move { n }));
/// let mut sum = 0;
/// for done in as_completed(calls, None) {
///     sum += done.unwrap().result(None).unwrap();
/// }
/// assert_eq!(sum, 6);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn as_completed<T>(
    futures: impl IntoIterator<Item = BlockingFuture<T>>,
    timeout: impl Into<Option<Duration>>,
) -> AsCompleted<T> {
    let ended = Arc::new(Ended::new(VecDeque::new()));
    let mut futures: Vec<_> = futures.into_iter().collect();
    for (index, future) in futures.iter_mut().enumerate() {
        let waker = Arc::new(IndexWaker { ended: Arc::clone(&ended), index });
        if future.poll_over(&mut Context::from_waker(&Waker::from(Arc::clone(&waker)))).is_ready() {
            waker.wake();
        }
    }
    let unfinished = futures.len();
    AsCompleted {
        futures: futures.into_iter().map(Some).collect(),
        ended,
        deadline: Deadline::after(timeout.into()),
        unfinished,
    }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = Result<BlockingFuture<T>, AsCompletedError<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.unfinished > 0 {
            if let Some(next) = self.futures.iter().flatten().next() {
                next.help(self.deadline);
            }
            match self.ended.wait(self.deadline, VecDeque::pop_front) {
                Ok(index) => {
                    // One that was given up while a thread is inside it is woken again at its end.
                    if let Some(future) = self.futures[index].take_if(|future| future.is_over()) {
                        self.unfinished -= 1;
                        return Some(Ok(future));
                    }
                }
                Err(why) => {
                    self.unfinished = 0;
                    let unfinished = self.futures.drain(..).flatten().collect();
                    return Some(Err(AsCompletedError { why, unfinished }));
                }
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.unfinished > 0), Some(self.unfinished))
    }
}

impl<T> std::iter::FusedIterator for AsCompleted<T> {}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("unfinished", &self.unfinished).finish_non_exhaustive()
    }
}

/// Why [`as_completed`] ended early, with the futures that weren't yielded.
///
/// # Examples
///
/// ```
/// use callbridge::{Bridge, WaitError, as_completed};
/// use std::time::Duration;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// let never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
/// let late = as_completed([never], Duration::from_millis(1)).next().unwrap().unwrap_err();
/// assert_eq!((late.why, late.unfinished.len()), (WaitError::TimedOut, 1));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(thiserror::Error)]
#[error("{} futures are unfinished: wait again for the rest", .unfinished.len())]
#[non_exhaustive]
pub struct AsCompletedError<T> {
    /// The timeout passed, or waiting would have blocked an event loop.
    #[source]
    pub why: WaitError,
    /// The futures that weren't yielded.
    pub unfinished: Vec<BlockingFuture<T>>,
}

impl<T> fmt::Debug for AsCompletedError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompletedError")
            .field("why", &self.why)
            .field("unfinished", &self.unfinished.len())
            .finish()
    }
}
