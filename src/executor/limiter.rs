use super::ThreadPool;
use crate::ResultError;
use crate::sync::{self, Deadline, Limiter, NoPermit, WaitError, wait};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Limits how many blocking calls run at a time, across pools and threads.
///
/// A clone is a handle to the same limiter. Permits are handed out in the order in which they were
/// asked for; a freed one belongs to the first in line at once. A permit that a call was started
/// with is held until the call has really ended, whether or not anybody still waits for it: so
/// abandoned calls can't add up to more than the limit.
///
/// The limit can be changed at any time, to 0 (nobody is admitted) or `None` (everybody is). It works
/// without an event loop as well as across several.
///
/// Python: `anyio.CapacityLimiter`.
///
/// # Examples
///
/// ```
/// use callbridge::executor::CapacityLimiter;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let limiter = CapacityLimiter::new(2);
/// let squares = [1, 2, 3].map(|n| limiter.to_thread(move || n * n));
/// let mut sum = 0;
/// for square in squares {
///     sum += square.await.unwrap();
/// }
/// assert_eq!(sum, 14);
/// # }
/// ```
#[derive(Clone)]
pub struct CapacityLimiter {
    limiter: Arc<Limiter>,
}

impl CapacityLimiter {
    /// A limiter of `limit` permits; `None` stands for no limit, 0 admits nobody.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::executor::CapacityLimiter;
    ///
    /// assert!(CapacityLimiter::new(1).try_acquire().is_some());
    /// assert!(CapacityLimiter::new(0).try_acquire().is_none());
    /// assert!(CapacityLimiter::new(None).try_acquire().is_some());
    /// ```
    pub fn new(limit: impl Into<Option<usize>>) -> Self {
        CapacityLimiter { limiter: Arc::new(Limiter::new(limit.into().unwrap_or(usize::MAX))) }
    }

    /// Waits for a permit, in turn. Dropping the permit frees it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future gives up the place in line; no permit is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::executor::CapacityLimiter;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let limiter = CapacityLimiter::new(1);
    /// let permit = limiter.acquire().await;
    /// assert!(limiter.try_acquire().is_none());
    /// drop(permit);
    /// assert!(limiter.try_acquire().is_some());
    /// # }
    /// ```
    pub fn acquire(&self) -> impl Future<Output = Permit> + Send + use<> {
        Acquire { limiter: self.clone(), permit: sync::AcquirePermit::new(&self.limiter) }
    }

    /// Takes a permit if one is free and nobody waits for it.
    pub fn try_acquire(&self) -> Option<Permit> {
        self.limiter.try_acquire().is_ok().then(|| Permit { limiter: self.clone() })
    }

    /// Waits for a permit, in turn, for at most `timeout`; `None` waits for ever.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread while no permit is to be had.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] when its turn didn't come in time,
    /// [`WaitError::WouldDeadlock`] when it would have to wait on a thread that drives an event
    /// loop.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::{WaitError, executor::CapacityLimiter};
    /// # use std::time::Duration;
    /// let limiter = CapacityLimiter::new(1);
    /// let _permit = limiter.acquire_blocking(None).unwrap();
    /// let late = limiter.acquire_blocking(Duration::from_millis(1));
    /// assert_eq!(late.unwrap_err(), WaitError::TimedOut);
    /// ```
    pub fn acquire_blocking(
        &self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Permit, WaitError> {
        if let Some(permit) = self.try_acquire() {
            return Ok(permit);
        }
        let mut acquire = pin!(self.acquire());
        wait(Deadline::after(timeout), |cx| acquire.as_mut().poll(cx))
    }

    /// As [`to_thread`](super::to_thread), within the limit: the call begins with a permit, and
    /// holds it until it has really ended.
    ///
    /// On another pool, take the permit along: see [`Permit`].
    ///
    /// Python: `anyio.to_thread.run_sync(f, limiter=limiter)`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future before the call has begun means that it never runs; afterwards
    /// the call is abandoned and keeps its permit until it ends.
    ///
    /// # Errors
    ///
    /// As [`to_thread`](super::to_thread).
    #[track_caller]
    pub fn to_thread<F, T>(
        &self,
        job: F,
    ) -> impl Future<Output = Result<T, ResultError>> + Send + use<F, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let site = std::panic::Location::caller();
        let acquire = self.acquire();
        async move {
            let permit = acquire.await;
            let limited = move || {
                let _permit = permit;
                job()
            };
            ThreadPool::shared().call(limited, site).await
        }
    }

    /// Changes the limit; `None` stands for no limit, 0 admits nobody.
    ///
    /// Raising it admits as many waiters as there is room for. Lowering it takes no permit away: new
    /// ones are handed out when enough have come back.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::executor::CapacityLimiter;
    /// let limiter = CapacityLimiter::new(0);
    /// assert!(limiter.try_acquire().is_none());
    /// limiter.set_limit(1);
    /// assert!(limiter.try_acquire().is_some());
    /// ```
    pub fn set_limit(&self, limit: impl Into<Option<usize>>) {
        self.limiter.set_limit(limit.into().unwrap_or(usize::MAX));
    }

    /// Returns how many permits there are, are taken, and are waited for.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::executor::CapacityLimiter;
    /// let limiter = CapacityLimiter::new(3);
    /// let _permit = limiter.try_acquire();
    /// let stats = limiter.stats();
    /// assert_eq!((stats.limit, stats.in_use, stats.waiting), (Some(3), 1, 0));
    /// ```
    pub fn stats(&self) -> LimiterStats {
        LimiterStats {
            limit: self.limiter.limit(),
            in_use: self.limiter.in_use(),
            waiting: self.limiter.waiting(),
        }
    }
}

impl fmt::Debug for CapacityLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapacityLimiter").field("stats", &self.stats()).finish()
    }
}

/// The counters of a [`CapacityLimiter`] at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimiterStats {
    /// The most permits at a time; `None` for no limit.
    pub limit: Option<usize>,
    /// Permits taken, or on their way to the one who waited for them.
    pub in_use: usize,
    /// Who waits for a permit.
    pub waiting: usize,
}

/// The right to run one blocking call; freed when dropped.
///
/// A call that takes it along holds it until it has ended, also when nobody waits for it any more.
///
/// # Examples
///
/// ```
/// use callbridge::executor::{CapacityLimiter, ThreadPool, run_in_executor};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let pool = ThreadPool::builder().build().unwrap();
/// let limiter = CapacityLimiter::new(1);
/// let permit = limiter.acquire().await;
/// let square = run_in_executor(&pool, move || {
///     let _permit = permit;
///     5 * 5
/// });
/// assert_eq!(square.await.unwrap(), 25);
/// assert_eq!(limiter.stats().in_use, 0);
/// # }
/// ```
#[must_use = "dropping it frees the permit"]
pub struct Permit {
    limiter: CapacityLimiter,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.limiter.release();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

struct Acquire {
    limiter: CapacityLimiter,
    permit: sync::AcquirePermit,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        match ready!(Pin::new(&mut self.permit).poll(cx)) {
            Ok(()) => Poll::Ready(Permit { limiter: self.limiter.clone() }),
            Err(NoPermit::Full | NoPermit::Closed) => unreachable!("it is never closed"),
        }
    }
}
