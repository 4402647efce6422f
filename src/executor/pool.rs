use super::builder::ThreadPoolBuilder;
use super::call::ThreadCall;
use super::card::StuckJob;
use super::core::Core;
use super::inbox::refused;
use super::job::{Plain, Site, prepare};
use super::map::Map;
use super::shutdown::{self, ShutDown, ShutdownReport};
use crate::future::{BlockingFuture, SubmitError, resolved};
use crate::sync::Deadline;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Threads for blocking work, with a bounded queue and a shutdown that ends.
///
/// A clone is a handle to the same pool. Threads are started when there is work for them, up to
/// [`max_workers`](ThreadPoolBuilder::max_workers), and end when they have been idle for a while.
/// Jobs begin in the order in which they were queued. Inside a job the submitter's event loop is
/// current, if it had one, so that [`Bridge::current`](crate::Bridge::current) leads back to it.
/// A job's panic is a value for its waiter, and the thread goes on.
///
/// The threads are the crate's own and not the runtime's: a runtime is dropped, and a process exits,
/// without waiting for them. Dropping the last handle refuses nothing that was accepted: the threads
/// end when the queue is empty. [`shutdown`](Self::shutdown) waits for that, with a deadline.
///
/// # Jobs that wait for jobs
///
/// A worker that waits inside its job through this crate (on a [`BlockingFuture`], for room in a
/// queue or a channel, or for a permit) lends its place: as long as it waits, another thread
/// may be started in its stead, which ends when there are too many. So a job may wait for another
/// one of the same pool, directly or through the loop, even in a pool of one. A wait by other means,
/// on a channel of std's or a lock, can't be seen, and a job that waits like this for a job behind it
/// in a full pool waits for ever.
///
/// Python: `concurrent.futures.ThreadPoolExecutor`.
///
/// # Examples
///
/// ```
/// use callbridge::ThreadPool;
/// use std::time::Duration;
///
/// let pool = ThreadPool::builder().max_workers(4).thread_name("disk").build();
/// let mut size = pool.submit(|| std::fs::metadata("Cargo.toml").map(|file| file.len()));
/// assert!(size.result(Duration::from_secs(10)).unwrap().unwrap() > 0);
/// assert!(pool.shutdown_blocking(Duration::from_secs(10)).is_clean());
/// ```
#[derive(Clone)]
pub struct ThreadPool {
    owner: Arc<Owner>,
}

/// Tells the core when the last handle has gone.
struct Owner {
    core: Arc<Core>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.core.close();
    }
}

impl ThreadPool {
    /// How many jobs may run at a time unless the builder says otherwise: 64.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(callbridge::ThreadPool::DEFAULT_MAX_WORKERS, 64);
    /// ```
    pub const DEFAULT_MAX_WORKERS: usize = 64;

    /// How many jobs may be queued unless the builder says otherwise: 1024.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(callbridge::ThreadPool::DEFAULT_QUEUE, 1024);
    /// ```
    pub const DEFAULT_QUEUE: usize = 1024;

    /// How long a thread may be idle unless the builder says otherwise: 10 s.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(callbridge::ThreadPool::DEFAULT_IDLE_TIMEOUT.as_secs(), 10);
    /// ```
    pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

    /// A pool with settings of one's own.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().max_workers(2).queue(16).build();
    /// assert_eq!(pool.max_workers(), 2);
    /// ```
    pub fn builder() -> ThreadPoolBuilder {
        ThreadPoolBuilder::new()
    }

    pub(super) fn new(core: Arc<Core>) -> Self {
        ThreadPool { owner: Arc::new(Owner { core }) }
    }

    /// The process-wide pool behind [`to_thread`](super::to_thread), with the default settings.
    ///
    /// Anybody can shut it down, for good.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut answer = callbridge::ThreadPool::shared().submit(|| 42);
    /// assert_eq!(answer.result(None).unwrap(), 42);
    /// ```
    pub fn shared() -> &'static ThreadPool {
        static SHARED: LazyLock<ThreadPool> =
            LazyLock::new(|| ThreadPool::builder().thread_name("callbridge").build());
        &SHARED
    }

    fn core(&self) -> &Arc<Core> {
        &self.owner.core
    }

    pub(super) fn call<F, T>(&self, job: F, site: Site) -> ThreadCall<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.core().call(job, site)
    }

    /// Queues `job` and returns at once with what will be its result.
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
    /// returned future is [`WouldDeadlock`](crate::ResultError::WouldDeadlock) already.
    ///
    /// # Examples
    ///
    /// See [`ThreadPool`].
    #[track_caller]
    pub fn submit<F, T>(&self, job: F) -> BlockingFuture<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.put(job, Deadline::Never, Location::caller()) {
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
    /// use callbridge::SubmitError;
    ///
    /// let pool = ThreadPool::builder().max_workers(1).queue(1).build();
    /// let (release, blocked) = std::sync::mpsc::channel::<()>();
    /// let (began, begun) = std::sync::mpsc::channel();
    /// let _busy = pool.submit(move || (began.send(()).unwrap(), blocked.recv()));
    /// begun.recv().unwrap();
    /// let _queued = pool.try_submit(|| ()).unwrap();
    /// assert!(matches!(pool.try_submit(|| ()), Err(SubmitError::Full(_))));
    /// drop(release);
    /// ```
    #[track_caller]
    pub fn try_submit<F, T>(&self, job: F) -> Result<BlockingFuture<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let core = self.core();
        let (job, submission) = prepare(Plain(job), Location::caller());
        let result = core.inbox.try_put(job, submission, || core.why());
        result.inspect(|_| core.job_queued()).map_err(|error| error.map(|Plain(job)| job))
    }

    /// As [`submit`](Self::submit), but waits for room at most `timeout`.
    ///
    /// # Blocking
    ///
    /// Blocks at most `timeout`, and only while the queue is full.
    ///
    /// # Errors
    ///
    /// Hands `job` back when there was no room in time, when the pool refuses it, and when it would
    /// have to block a thread that drives an event loop.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::ThreadPool;
    /// # use std::time::Duration;
    /// let pool = ThreadPool::builder().build();
    /// let mut answer = pool.submit_timeout(|| 42, Duration::from_secs(1)).unwrap();
    /// assert_eq!(answer.result(None).unwrap(), 42);
    /// ```
    #[track_caller]
    pub fn submit_timeout<F, T>(
        &self,
        job: F,
        timeout: Duration,
    ) -> Result<BlockingFuture<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.put(job, Deadline::after(Some(timeout)), Location::caller())
    }

    fn put<F, T>(
        &self,
        job: F,
        deadline: Deadline,
        site: Site,
    ) -> Result<BlockingFuture<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let core = self.core();
        let (job, submission) = prepare(Plain(job), site);
        let result = core.inbox.put(job, submission, deadline, || core.why());
        result.inspect(|_| core.job_queued()).map_err(|error| error.map(|Plain(job)| job))
    }

    /// As [`submit`](Self::submit), but awaits room: backpressure for a task.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future before it is ready drops `job`, which never runs.
    ///
    /// # Errors
    ///
    /// Hands `job` back when the pool refuses it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let pool = callbridge::ThreadPool::builder().max_workers(1).queue(1).build();
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
        let core = Arc::clone(self.core());
        let (job, submission) = prepare(Plain(job), Location::caller());
        async move {
            match core.inbox.sending(job).await {
                Ok(()) => {
                    core.job_queued();
                    Ok(submission.result)
                }
                Err(_job) => {
                    let error = refused(submission, |job| core.why().hand_back(job));
                    Err(error.map(|Plain(job)| job))
                }
            }
        }
    }

    /// Runs `function` over `items` on the pool, and gives the results in the items' order.
    ///
    /// At most `buffer` items are taken from the iterator and not handed out as results: it may be
    /// endless. The first ones are submitted at once, more as results are taken. The iterator runs on
    /// the thread that polls the stream, so it must not block. A call that panics gives its error in
    /// its place, and the stream goes on.
    ///
    /// Python: `Executor.map(function, items, buffersize=buffer)`.
    ///
    /// # Panics
    ///
    /// If `buffer` is 0: nothing could ever be submitted.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ThreadPool;
    /// use std::future::poll_fn;
    /// use std::pin::Pin;
    /// # use futures_core::Stream;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let pool = ThreadPool::builder().max_workers(2).build();
    /// let mut squares = pool.map(1_u64.., |n| n * n, 8);
    /// for n in 1..100 {
    ///     // With `futures::StreamExt`: `squares.next().await`.
    ///     let square = poll_fn(|cx| Pin::new(&mut squares).poll_next(cx)).await;
    ///     assert_eq!(square.unwrap().unwrap(), n * n);
    /// }
    /// # }
    /// ```
    #[track_caller]
    pub fn map<I, F, T>(&self, items: I, function: F, buffer: usize) -> Map<I::IntoIter, F, T>
    where
        I: IntoIterator<Item: Send + 'static>,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        assert!(buffer > 0, "map with a buffer of 0 would submit nothing: allow at least 1");
        Map::new(self.core(), items.into_iter(), function, buffer, Location::caller())
    }

    /// Refuses new jobs, lets the accepted ones run until `deadline`, then gives up on the rest.
    ///
    /// At the deadline jobs that are still queued are refused, and running ones are told through
    /// their [`CancelToken`](super::CancelToken) and given 100 ms more; those that run on are named
    /// in the report, and left to themselves. Shutting down twice is fine; the second caller waits
    /// as well.
    ///
    /// It needs no timer of the runtime: the waiting is done by a short-lived thread.
    ///
    /// Python: `loop.shutdown_default_executor(timeout)`.
    ///
    /// # Cancel safety
    ///
    /// The shutdown begins with the first poll. Dropping the returned future after that refuses what is
    /// queued and cancels what is running, at once.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let pool = callbridge::ThreadPool::builder().build();
    /// let last = pool.submit(|| "in time");
    /// assert!(pool.shutdown(Duration::from_secs(10)).await.is_clean());
    /// assert_eq!(last.await.unwrap(), "in time");
    /// # }
    /// ```
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        shutdown::shutdown(&**self.core(), deadline).await
    }

    /// As [`shutdown`](Self::shutdown), for a thread that may block.
    ///
    /// # Blocking
    ///
    /// Blocks at most `deadline` and 100 ms. On a thread that drives an event loop, and on one of the
    /// pool's own, it doesn't wait at all: new jobs are refused from then on, and the report says
    /// `would_deadlock`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::ThreadPool;
    /// # use std::time::Duration;
    /// let pool = ThreadPool::builder().max_workers(1).thread_name("slow").build();
    /// let (began, begun) = std::sync::mpsc::channel();
    /// let (release, blocked) = std::sync::mpsc::channel::<()>();
    /// let _stuck = pool.submit(move || (began.send(()).unwrap(), blocked.recv()));
    /// begun.recv().unwrap();
    /// let mut queued = pool.submit(|| ());
    ///
    /// let report = pool.shutdown_blocking(Duration::from_millis(1));
    /// assert!(!report.is_clean());
    /// assert_eq!((report.refused, report.stuck.len()), (1, 1));
    /// assert_eq!(&*report.stuck[0].thread, "slow-0");
    /// assert!(queued.result(None).is_err());
    /// drop(release);
    /// ```
    pub fn shutdown_blocking(&self, deadline: Duration) -> ShutdownReport {
        shutdown::shutdown_blocking(&**self.core(), deadline)
    }

    /// How many jobs may run at a time.
    ///
    /// # Examples
    ///
    /// See [`builder`](Self::builder).
    pub fn max_workers(&self) -> usize {
        self.core().crew.max()
    }

    /// How many threads and queued jobs there are.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().build();
    /// pool.submit(|| ()).result(None).unwrap();
    /// assert_eq!((pool.stats().workers, pool.stats().queued), (1, 0));
    /// ```
    pub fn stats(&self) -> PoolStats {
        let count = self.core().crew.count();
        let queued = self.core().inbox.len();
        PoolStats { workers: count.workers, idle: count.idle, queued }
    }

    /// Whether new jobs are refused: the pool was shut down, or is broken.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// let pool = callbridge::ThreadPool::builder().build();
    /// let _ = pool.shutdown_blocking(Duration::ZERO);
    /// assert!(pool.is_closed());
    /// ```
    pub fn is_closed(&self) -> bool {
        self.core().inbox.is_closed()
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("name", &self.core().settings.thread_name)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The threads and the queue of a [`ThreadPool`] at one instant.
///
/// # Examples
///
/// See [`ThreadPool::stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Threads that run or are being started.
    pub workers: usize,
    /// Threads that sleep.
    pub idle: usize,
    /// Jobs that wait for a thread; cancelled ones count until a thread passes over them.
    pub queued: usize,
}

impl ShutDown for Core {
    fn name(&self) -> &str {
        &self.settings.thread_name
    }

    fn close(&self) {
        Core::close(self);
    }

    fn threads_left(&self) -> usize {
        self.crew.left()
    }

    fn gone(&self) -> impl Future<Output = ()> + Send {
        self.crew.gone()
    }

    fn refuse_queued(&self) -> usize {
        self.inbox.refuse_all(&self.why())
    }

    fn cancel_running(&self) {
        Core::cancel_running(self);
    }

    fn stuck(&self) -> Vec<StuckJob> {
        Core::stuck(self)
    }

    fn is_own_thread(&self) -> bool {
        Core::is_own_thread(self)
    }
}
