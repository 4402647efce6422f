use super::builder::ThreadPoolBuilder;
use super::call::ThreadCall;
use super::close;
use super::core::{Core, Owner};
use super::job::Plain;
use super::workers::Action;
use crate::bridge::CloseReport;
use crate::future::{BlockingFuture, SubmitError, resolved};
use crate::sync::{Deadline, SettingError, Site, WaitError};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// A pool of threads for blocking work, with a bounded queue and a close that ends.
///
/// A clone is a handle to the same pool. Threads are started when there is work for them, up to
/// [`max_workers`](ThreadPoolBuilder::max_workers), and end when they have been idle for a while.
/// Jobs begin in the order in which they were queued. Inside a job the submitter's event loop is
/// current, if it had one, so that [`Bridge::current`](crate::Bridge::current) leads back to it.
/// A job's panic is a value for its waiter, and the thread goes on.
///
/// The threads are the crate's own and not the runtime's: a runtime is dropped, and a process exits,
/// without waiting for them. Dropping the last handle refuses nothing that was accepted: the threads
/// end when the queue is empty. [`close`](Self::close) waits for that, with a deadline.
///
/// When a job has ended, whoever waits for it goes on. Its done-callbacks then run on its thread, and a
/// result that nobody reads is dropped there; other jobs don't wait for that.
///
/// # Jobs that wait for jobs
///
/// A worker that waits inside its job through this crate (on a [`BlockingFuture`], for room in a
/// queue or a channel, or for a permit) lends its place: as long as it waits, another thread may run
/// jobs in its stead, up to [`max_threads`](ThreadPoolBuilder::max_threads) threads in all. So a job may
/// wait for another one of the same pool, directly or through the loop, even in a pool of one.
///
/// When its wait is over, it goes on as soon as there is a place for it, before jobs that haven't begun,
/// so that no more than [`max_workers`](ThreadPoolBuilder::max_workers) run at a time. It goes on without
/// one at its wait's own timeout, and when no place has changed hands for a second: who has its place
/// may be waiting for it.
///
/// When as many threads as there may be all wait, queued jobs wait as well, with two exceptions: a
/// job that waits without a timeout for a queued one of its own pool runs that itself, and one that
/// waits for room in the queue gets some.
///
/// A wait by other means, on a channel of std's or a lock, can't be seen: a job that waits like
/// this for a job behind it in a full pool waits for ever. So do more jobs than there may be
/// threads if all of them wait, through the loop or another executor, for jobs behind them.
///
/// Python: `concurrent.futures.ThreadPoolExecutor`.
///
/// # Examples
///
/// ```
/// use callbridge::ThreadPool;
/// use std::time::Duration;
///
/// let pool = ThreadPool::builder().max_workers(4).name("disk").build()?;
/// let mut size = pool.submit(|| std::fs::metadata("Cargo.toml").map(|file| file.len()));
/// assert!(size.result(Duration::from_secs(10)).unwrap().unwrap() > 0);
/// assert!(pool.close_blocking(Duration::from_secs(10)).is_clean());
/// # Ok::<(), callbridge::SettingError>(())
/// ```
#[derive(Clone)]
pub struct ThreadPool {
    owner: Arc<Owner<()>>,
}

impl ThreadPool {
    /// Sets up a pool.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().max_workers(2).capacity(16).build()?;
    /// assert_eq!(pool.max_workers(), 2);
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn builder() -> ThreadPoolBuilder {
        ThreadPoolBuilder::pool()
    }

    pub(super) fn new(core: Arc<Core<()>>) -> Self {
        ThreadPool { owner: Arc::new(Owner { core }) }
    }

    pub(super) fn core(&self) -> &Arc<Core<()>> {
        &self.owner.core
    }

    pub(super) fn call<F, T>(&self, job: F, site: Site) -> ThreadCall<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        ThreadCall::new(self.core().call(Plain(job), site))
    }

    /// Queues `job`, and returns a [`BlockingFuture`] for its result.
    ///
    /// Dropping the returned future lets the job run on, its result unread;
    /// [`cancel_on_drop`](BlockingFuture::cancel_on_drop) makes another choice. A cancel keeps a
    /// queued job from ever running, and is passed to a running one through its
    /// [`CancelToken`](super::CancelToken).
    ///
    /// A job that the pool refuses comes back as a future that is
    /// [`Refused`](crate::ResultError::Refused) already.
    ///
    /// Python: `Executor.submit`.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread while the queue is full. Where that would block an event loop, the
    /// returned future is [`WouldDeadlock`](crate::ResultError::WouldDeadlock) already; in a forked
    /// process, [`Forked`](crate::ResultError::Forked).
    #[track_caller]
    pub fn submit<F, T>(&self, job: F) -> BlockingFuture<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.core().submit(Plain(job), Deadline::Never, Location::caller()) {
            Ok(result) => result,
            Err(SubmitError::Closed(_)) => resolved(self.core().why().into()),
            Err(refused) => resolved(refused.into()),
        }
    }

    /// As [`submit`](Self::submit), but never waits.
    ///
    /// # Errors
    ///
    /// Hands `job` back when the queue is full, or when the pool refuses it.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ThreadPool;
    /// use callbridge::future::SubmitError;
    ///
    /// let pool = ThreadPool::builder().max_workers(1).capacity(1).build()?;
    /// let (release, blocked) = std::sync::mpsc::channel::<()>();
    /// let (began, begun) = std::sync::mpsc::channel();
    /// let _busy = pool.submit(move || (began.send(()).unwrap(), blocked.recv()));
    /// begun.recv().unwrap();
    /// let _queued = pool.try_submit(|| ()).unwrap();
    /// assert!(matches!(pool.try_submit(|| ()), Err(SubmitError::Full(_))));
    /// drop(release);
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    #[track_caller]
    pub fn try_submit<F, T>(&self, job: F) -> Result<BlockingFuture<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let submitted = self.core().submit(Plain(job), Deadline::Now, Location::caller());
        submitted.map_err(|error| error.map(|Plain(job)| job))
    }

    /// As [`submit`](Self::submit), but waits for room at most `timeout`; `None` waits for ever.
    ///
    /// # Blocking
    ///
    /// Blocks at most `timeout`, and only while the queue is full.
    ///
    /// # Errors
    ///
    /// Hands `job` back when there was no room in time, when the pool refuses it, when it would have to
    /// block a thread that drives an event loop, and when it would have to wait in a forked process.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::ThreadPool;
    /// # use std::time::Duration;
    /// let pool = ThreadPool::builder().build().unwrap();
    /// let mut answer = pool.submit_timeout(|| 42, Duration::from_secs(1)).unwrap();
    /// assert_eq!(answer.result(None).unwrap(), 42);
    /// ```
    #[track_caller]
    pub fn submit_timeout<F, T>(
        &self,
        job: F,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<BlockingFuture<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let deadline = Deadline::after(timeout);
        let submitted = self.core().submit(Plain(job), deadline, Location::caller());
        submitted.map_err(|error| error.map(|Plain(job)| job))
    }

    /// As [`submit`](Self::submit), but awaits room: backpressure for a task.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future before it is ready drops `job`, which never runs. Until then it keeps
    /// its place in line: one that is neither polled nor dropped keeps the room that comes free from
    /// others.
    ///
    /// # Errors
    ///
    /// Hands `job` back when the pool refuses it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let pool = callbridge::ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
    /// let mut results = Vec::new();
    /// for n in 0..8 {
    ///     results.push(pool.submit_async(move || n).await.unwrap());
    /// }
    /// assert_eq!(results.pop().unwrap().await.unwrap(), 7);
    /// # }
    /// ```
    #[track_caller]
    pub fn submit_async<F, T>(
        &self,
        job: F,
    ) -> impl Future<Output = Result<BlockingFuture<T>, SubmitError<F>>> + Send + use<F, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let submitted = self.core().submit_async(Plain(job), Location::caller());
        async { submitted.await.map_err(|error| error.map(|Plain(job)| job)) }
    }

    /// Refuses new jobs, lets the accepted ones run for at most `timeout` (`None`: as long as they take),
    /// then gives up on the rest, and joins the threads.
    ///
    /// At the deadline jobs that are still queued are refused, and running ones are told through
    /// their [`CancelToken`](super::CancelToken) and given 100 ms more; those that run on are named
    /// in the report, and left to themselves. A clean report means that every result is there, every
    /// callback has run, and every thread has ended, the destructors of its thread-locals included.
    /// Closing twice is fine; the second caller waits as well.
    ///
    /// It needs no timer of the runtime: the waiting is done by a short-lived thread. Nothing of the
    /// users' runs on the caller.
    ///
    /// Python: `loop.shutdown_default_executor(timeout)`.
    ///
    /// # Cancel safety
    ///
    /// The close begins with the first poll. Dropping the returned future after that refuses what is
    /// queued and cancels what is running, at once.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let pool = callbridge::ThreadPool::builder().build().unwrap();
    /// let last = pool.submit(|| "in time");
    /// assert!(pool.close(Duration::from_secs(10)).await.is_clean());
    /// assert_eq!(last.await.unwrap(), "in time");
    /// # }
    /// ```
    pub async fn close(&self, timeout: impl Into<Option<Duration>>) -> CloseReport {
        close::close(self.core(), timeout.into()).await
    }

    /// As [`close`](Self::close), for a thread that may block.
    ///
    /// # Blocking
    ///
    /// Blocks at most `timeout` and 200 ms. On a thread that drives an event loop, and on one of the
    /// pool's own, it doesn't wait at all: new jobs are refused from then on, and the report says
    /// `would_deadlock`. Nor does it in a forked process, where nothing ends.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::ThreadPool;
    /// # use std::time::Duration;
    /// let pool = ThreadPool::builder().max_workers(1).name("slow").build()?;
    /// let (began, begun) = std::sync::mpsc::channel();
    /// let (release, blocked) = std::sync::mpsc::channel::<()>();
    /// let _stuck = pool.submit(move || (began.send(()).unwrap(), blocked.recv()));
    /// begun.recv().unwrap();
    /// let mut queued = pool.submit(|| ());
    ///
    /// let report = pool.close_blocking(Duration::from_millis(1));
    /// assert!(!report.is_clean());
    /// assert_eq!((report.cut_off, report.stuck.len()), (1, 1));
    /// assert_eq!(report.stuck[0].thread.as_deref(), Some("slow-0"));
    /// assert!(queued.result(None).is_err());
    /// drop(release);
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn close_blocking(&self, timeout: impl Into<Option<Duration>>) -> CloseReport {
        close::close_blocking(self.core(), timeout.into())
    }

    /// Waits until no job is queued or running, and every callback has run.
    ///
    /// The pool stays open: somebody may submit another job at any moment. In a forked process, where
    /// nothing runs, it doesn't wait.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future stops the wait; nothing else changes.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let pool = callbridge::ThreadPool::builder().build().unwrap();
    /// let jobs: Vec<_> = (0..10).map(|n| pool.submit(move || n)).collect();
    /// pool.wait_idle().await;
    /// assert!(jobs.iter().all(|job| job.is_done()));
    /// # }
    /// ```
    pub fn wait_idle(&self) -> impl Future<Output = ()> + Send + use<> {
        let core = Arc::clone(self.core());
        async move {
            if !core.is_forked() {
                core.workers.at_rest(|submitted| core.is_done(submitted)).await;
            }
        }
    }

    /// As [`wait_idle`](Self::wait_idle), for a thread that may block, at most `timeout`; `None` waits for
    /// ever.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread. One of the pool's own waits for itself, so give it a timeout.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] when the pool wasn't idle in time; [`WaitError::WouldDeadlock`] on a thread
    /// that drives an event loop or is one of the pool's own, and in a forked process.
    pub fn wait_idle_blocking(
        &self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<(), WaitError> {
        let core = self.core();
        let in_vain = core.is_forked() || core.is_own_thread();
        let deadline = if in_vain { Deadline::Now } else { Deadline::after(timeout) };
        let idle = core.workers.wait_at_rest(deadline, |submitted| core.is_done(submitted));
        idle.map_err(|error| if in_vain { WaitError::WouldDeadlock } else { error })
    }

    /// How many jobs may run at a time.
    pub fn max_workers(&self) -> usize {
        self.core().workers.max()
    }

    /// Changes how many jobs may run at a time. The spare threads stay as many.
    ///
    /// Jobs that run go on; with fewer places than before, none begins until enough have ended.
    ///
    /// # Errors
    ///
    /// A [`SettingError`] if `workers` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().max_workers(2).build()?;
    /// pool.set_max_workers(8)?;
    /// assert_eq!(pool.max_workers(), 8);
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn set_max_workers(&self, workers: usize) -> Result<(), SettingError> {
        if workers == 0 {
            return Err(SettingError::new(
                "max_workers",
                "is 0, which would run nothing: allow at least 1",
            ));
        }
        let core = self.core();
        loop {
            match core.workers.set_max(workers, core.queued()) {
                Action::Nothing => return Ok(()),
                action => core.act(action),
            }
        }
    }

    /// Returns the counters of threads and jobs.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().build()?;
    /// pool.submit(|| ()).result(None).unwrap();
    /// assert_eq!((pool.stats().workers, pool.stats().queued), (1, 0));
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn stats(&self) -> PoolStats {
        let (jobs, count) = (self.core().jobs(), self.core().workers.count());
        PoolStats {
            workers: count.threads,
            idle: count.idle,
            largest: count.largest,
            queued: jobs.queued as usize,
            active: jobs.active as usize,
            completed: jobs.completed,
        }
    }

    /// Whether new jobs are refused: the pool was closed, or is broken.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// let pool = callbridge::ThreadPool::builder().build()?;
    /// let _ = pool.close_blocking(Duration::ZERO);
    /// assert!(pool.is_closed());
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        !self.core().workers.is_open()
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("name", &self.core().settings.name)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The threads and the jobs of a [`ThreadPool`] at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Threads that run or are being started.
    pub workers: usize,
    /// Threads that sleep.
    pub idle: usize,
    /// The most threads that there have been.
    pub largest: usize,
    /// Jobs that wait for a thread.
    pub queued: usize,
    /// Jobs that run, or whose results are being delivered.
    pub active: usize,
    /// Jobs that have ended, by a panic, too; not those that never began.
    pub completed: u64,
}
