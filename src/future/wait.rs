use super::BlockingFuture;
use super::error::FutureState;
use crate::sync::{self, Deadline, WaitError};
use std::task::Poll;
use std::time::Duration;

/// When [`wait`] returns before its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnWhen {
    /// As soon as one future is done.
    FirstCompleted,
    /// As soon as one future has ended without a value (cancelled, panicked, loop gone), or all
    /// are done. Python: `FIRST_EXCEPTION`.
    FirstError,
    /// When all futures are done.
    AllCompleted,
}

/// The two halves that [`wait`] returns: done, and not done.
pub(super) type Split<'a, T> = (Vec<&'a mut BlockingFuture<T>>, Vec<&'a mut BlockingFuture<T>>);

/// Waits for several futures, at most `timeout`, and splits them into done and not done.
///
/// A timeout isn't an error: the split says what was done by then. No futures, or
/// `Duration::ZERO`, answer at once. A future counts as done as well when nobody works on it any more,
/// in a forked process or after a close that gave it up: its `result` says so at once.
///
/// Python: `concurrent.futures.wait`.
///
/// # Blocking
///
/// Blocks the calling thread as [`BlockingFuture::result`] does.
///
/// # Errors
///
/// [`WaitError::WouldDeadlock`] on a thread that drives an event loop, if it would have to wait.
///
/// # Examples
///
/// ```
/// use callbridge::{Bridge, wait};
/// use callbridge::future::ReturnWhen;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// let mut calls = [1, 2, 3].map(|n| bridge.run_coroutine_threadsafe(async move { n }));
/// let (done, not_done) = wait(&mut calls, None, ReturnWhen::AllCompleted).unwrap();
/// assert_eq!((done.len(), not_done.len()), (3, 0));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn wait<T>(
    futures: &mut [BlockingFuture<T>],
    timeout: impl Into<Option<Duration>>,
    when: ReturnWhen,
) -> Result<Split<'_, T>, WaitError> {
    if !satisfied(futures, when) {
        // For all of them, one at a time will do: each wake then asks about one future.
        let mut first = 0;
        let deadline = Deadline::after(timeout);
        futures.iter().for_each(|future| future.help(deadline));
        let waited = sync::wait(deadline, |cx| {
            while first < futures.len() {
                let over = futures[first].poll_over(cx).is_ready();
                if !over && when == ReturnWhen::AllCompleted {
                    return Poll::Pending;
                }
                first += 1;
            }
            if satisfied(futures, when) { Poll::Ready(()) } else { Poll::Pending }
        });
        if waited == Err(WaitError::WouldDeadlock) {
            return Err(WaitError::WouldDeadlock);
        }
    }
    Ok(futures.iter_mut().partition(|future| future.is_over()))
}

fn satisfied<T>(futures: &[BlockingFuture<T>], when: ReturnWhen) -> bool {
    let mut all_over = true;
    for future in futures {
        let over = future.is_over();
        match when {
            ReturnWhen::FirstCompleted if over => return true,
            ReturnWhen::FirstError if over && future.state() != FutureState::Finished => {
                return true;
            }
            // The first one that is owed decides: the rest needn't be looked at.
            ReturnWhen::AllCompleted if !over => return false,
            _ => all_over &= over,
        }
    }
    all_over
}
