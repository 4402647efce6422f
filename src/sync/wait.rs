//! How a thread blocks: every blocking method of the crate comes through here.
//!
//! What is waited for is a `poll` that registers a waker while it isn't ready. A caller looks for
//! itself before it waits, so that what is there already is found in any context.

use super::Deadline;
use super::blocking_hook::Waiting;
use super::context::drives_a_loop;
use super::parker::{Woken, with_cached_parker};
use std::task::{Context, Poll};

/// Why a wait ended without what it waited for.
///
/// # Examples
///
/// ```
/// use callbridge::{WaitError, executor::CapacityLimiter};
/// use std::time::Duration;
///
/// let limiter = CapacityLimiter::new(1);
/// let _permit = limiter.try_acquire().unwrap();
/// let late = limiter.acquire_blocking(Duration::from_millis(1)).unwrap_err();
/// assert_eq!(late, WaitError::TimedOut);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The timeout passed first.
    #[error("not ready in time: wait again, or give it up")]
    TimedOut,
    /// Waiting here would block an event loop, or wait for what the calling thread itself has to do.
    #[error(
        "waiting here would block an event loop, or itself: await the async form, or wait on another thread"
    )]
    WouldDeadlock,
}

/// Blocks the calling thread until `poll` is ready, at most until the deadline.
///
/// Refuses where blocking would stop an event loop. A pool's worker lends its place meanwhile.
pub(crate) fn wait<R>(
    deadline: Deadline,
    poll: impl FnMut(&mut Context<'_>) -> Poll<R>,
) -> Result<R, WaitError> {
    may_wait(deadline)?;
    park_until(deadline, poll).ok_or(WaitError::TimedOut)
}

/// Whether the calling thread may wait at all.
pub(crate) fn may_wait(deadline: Deadline) -> Result<(), WaitError> {
    if deadline == Deadline::Now {
        Err(WaitError::TimedOut)
    } else if drives_a_loop() {
        Err(WaitError::WouldDeadlock)
    } else {
        Ok(())
    }
}

/// As [`wait`], for what no other work of the thread's pool brings about: the place isn't lent.
pub(crate) fn wait_in_place<R>(
    deadline: Deadline,
    poll: impl FnMut(&mut Context<'_>) -> Poll<R>,
) -> Result<R, WaitError> {
    may_wait(deadline)?;
    park(deadline, || (), poll).ok_or(WaitError::TimedOut)
}

/// The wait itself, for who may wait: polls at least once, and once more when the time is up.
pub(crate) fn park_until<R>(
    deadline: Deadline,
    poll: impl FnMut(&mut Context<'_>) -> Poll<R>,
) -> Option<R> {
    park(deadline, || Waiting::begin(deadline), poll)
}

fn park<R, W>(
    deadline: Deadline,
    begin: impl Fn() -> W,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<R>,
) -> Option<R> {
    with_cached_parker(|parker| {
        let mut context = Context::from_waker(parker.waker());
        let mut waiting = None;
        let mut in_time = deadline != Deadline::Now;
        loop {
            match poll(&mut context) {
                Poll::Ready(output) => return Some(output),
                Poll::Pending if !in_time => return None,
                Poll::Pending => {
                    waiting.get_or_insert_with(&begin);
                    in_time = parker.park(deadline) == Woken::Notified;
                }
            }
        }
    })
}
