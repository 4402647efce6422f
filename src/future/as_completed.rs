//! Futures in the order in which they end.
//!
//! Invariant: an index is in `ended` at most once, put there by its future's one end (or found
//! done at the start), so every future is yielded once.

use super::BlockingFuture;
use crate::sync::context::drives_a_loop;
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Deadline, Woken, with_parker};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

struct Board {
    ended: Mutex<Ended>,
}

struct Ended {
    /// Indices of futures that ended and weren't yielded.
    order: VecDeque<usize>,
    /// The thread that waits for the next end.
    waiter: Option<Waker>,
}

struct Mark {
    board: Arc<Board>,
    index: usize,
}

impl Wake for Mark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waiter = {
            let mut ended = lock(&self.board.ended);
            ended.order.push_back(self.index);
            ended.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// Yields futures as they end; what [`as_completed`] returns.
///
/// # Examples
///
/// See [`as_completed`].
pub struct AsCompleted<T> {
    /// Each future until it is yielded.
    futures: Vec<Option<BlockingFuture<T>>>,
    board: Arc<Board>,
    deadline: Deadline,
    total: usize,
    unfinished: usize,
}

/// Yields the futures in the order in which they end, within one `timeout` for all.
///
/// Futures that are done come first. Each item is a done future, whose
/// [`result`](BlockingFuture::result) answers at once. When the timeout passes, the iterator yields
/// one [`AsCompletedTimeout`] with the futures that are left, and ends. `None` waits for ever;
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
    let board =
        Arc::new(Board { ended: Mutex::new(Ended { order: VecDeque::new(), waiter: None }) });
    let mut futures: Vec<_> = futures.into_iter().collect();
    for (index, future) in futures.iter_mut().enumerate() {
        let mark = Arc::new(Mark { board: Arc::clone(&board), index });
        if future.register(&Waker::from(Arc::clone(&mark))) {
            mark.wake();
        }
    }
    let total = futures.len();
    AsCompleted {
        futures: futures.into_iter().map(Some).collect(),
        board,
        deadline: Deadline::after(timeout.into()),
        total,
        unfinished: total,
    }
}

impl<T> AsCompleted<T> {
    fn next_ended(&self) -> Result<usize, bool> {
        let pop = || lock(&self.board.ended).order.pop_front();
        if let Some(index) = pop() {
            return Ok(index);
        }
        if self.deadline.passed() {
            return Err(false);
        }
        if drives_a_loop() {
            return Err(true);
        }
        with_parker(|parker| {
            loop {
                {
                    let mut ended = lock(&self.board.ended);
                    if let Some(index) = ended.order.pop_front() {
                        return Ok(index);
                    }
                    ended.waiter = Some(parker.waker().clone());
                }
                if parker.park(self.deadline) == Woken::TimedOut {
                    return pop().ok_or(false);
                }
            }
        })
    }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = Result<BlockingFuture<T>, AsCompletedTimeout<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.unfinished > 0 {
            match self.next_ended() {
                Ok(index) => {
                    if let Some(future) = self.futures[index].take() {
                        self.unfinished -= 1;
                        return Some(Ok(future));
                    }
                }
                Err(would_deadlock) => {
                    self.unfinished = 0;
                    let unfinished = self.futures.drain(..).flatten().collect();
                    let total = self.total;
                    return Some(Err(AsCompletedTimeout { unfinished, total, would_deadlock }));
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
        f.debug_struct("AsCompleted")
            .field("unfinished", &self.unfinished)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

/// The deadline of [`as_completed`] passed, or waiting would block an event loop.
///
/// # Examples
///
/// ```
/// use callbridge::{Bridge, as_completed};
/// use std::time::Duration;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// let never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
/// let late = as_completed([never], Duration::from_millis(1)).next().unwrap().unwrap_err();
/// assert_eq!(late.to_string(), "1 of 1 futures unfinished in time: wait again for the rest");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(thiserror::Error)]
#[error("{}", self.phrase())]
pub struct AsCompletedTimeout<T> {
    /// The futures that weren't yielded.
    pub unfinished: Vec<BlockingFuture<T>>,
    /// How many futures there were at the start.
    pub total: usize,
    /// The wait was refused because the calling thread drives an event loop.
    pub would_deadlock: bool,
}

impl<T> AsCompletedTimeout<T> {
    fn phrase(&self) -> String {
        if self.would_deadlock {
            "waiting here would block an event loop: await the futures instead".to_owned()
        } else {
            let unfinished = self.unfinished.len();
            let total = self.total;
            format!("{unfinished} of {total} futures unfinished in time: wait again for the rest")
        }
    }
}

impl<T> fmt::Debug for AsCompletedTimeout<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompletedTimeout")
            .field("unfinished", &self.unfinished.len())
            .field("total", &self.total)
            .field("would_deadlock", &self.would_deadlock)
            .finish()
    }
}
