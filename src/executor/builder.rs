use super::core::{Alone, Core, Make, Reason, Settings};
use super::dedicated::{self, DedicatedThread};
use super::pool::ThreadPool;
use super::shared;
use crate::future::{BlockingFuture, Refusal, resolved};
use crate::sync::SettingError;
use crate::sync::ThreadSettings;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const MAX_WORKERS: usize = 64;
/// Beyond those, while others wait.
const SPARE_THREADS: usize = 32;
const CAPACITY: usize = 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of a [`ThreadPool`]; see [`ThreadPool::builder`].
pub type ThreadPoolBuilder = ExecutorBuilder<Pooled>;

/// Settings of a [`DedicatedThread`]; see [`DedicatedThread::builder`].
pub type DedicatedThreadBuilder = ExecutorBuilder<Dedicated>;

/// Settings of an executor: a [`ThreadPool`] or a [`DedicatedThread`].
///
/// All of them are checked at the end, by [`build`](ExecutorBuilder::build) or
/// [`spawn`](ExecutorBuilder::spawn), whose error names the one that was rejected.
#[must_use = "build() makes the pool, spawn() starts the thread"]
pub struct ExecutorBuilder<K> {
    name: String,
    threads: ThreadSettings,
    capacity: usize,
    kind: K,
}

/// What only a pool has; see [`ThreadPoolBuilder`].
pub struct Pooled {
    max_workers: usize,
    max_threads: Option<usize>,
    idle_timeout: Duration,
    initializer: Option<Make<()>>,
}

/// What only a dedicated thread has; see [`DedicatedThreadBuilder`].
#[derive(Debug)]
pub struct Dedicated {
    alone: Alone,
}

impl<K> ExecutorBuilder<K> {
    fn new(name: &str, kind: K) -> Self {
        let capacity = CAPACITY;
        ExecutorBuilder {
            name: name.to_owned(),
            threads: ThreadSettings::default(),
            capacity,
            kind,
        }
    }

    /// Sets the threads' name; "callbridge-pool" or "callbridge-dedicated" by default. A pool's
    /// threads have a number behind it.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().name("disk").build()?;
    /// let name = pool.submit(|| std::thread::current().name().map(str::to_owned));
    /// # let mut name = name;
    /// assert_eq!(name.result(None).unwrap().unwrap(), "disk-0");
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how many submitted jobs may wait for a thread, at least 1; 1024 by default.
    ///
    /// A cancelled job gives its room back at once. Calls that are made to be awaited
    /// ([`run_in_executor`](super::run_in_executor), [`DedicatedThread::call`]) don't count: each has a
    /// caller who waits for it.
    pub fn capacity(mut self, jobs: usize) -> Self {
        self.capacity = jobs;
        self
    }

    /// Lifts the limit of [`capacity`](Self::capacity): no submission waits, and memory is the only
    /// limit.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().unbounded().build()?;
    /// assert_eq!(pool.submit(|| 1).result(None).unwrap(), 1);
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn unbounded(mut self) -> Self {
        self.capacity = usize::MAX;
        self
    }

    /// Sets the stack size of each thread in bytes; std's own by default.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().stack_size(512 * 1024).build()?;
    /// assert_eq!(pool.submit(|| 1).result(None).unwrap(), 1);
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.threads.stack_size = Some(bytes);
        self
    }

    /// Sets a hook that runs first on each thread, for signal masks, priorities, names and the
    /// like. A panic in it is contained.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// let running = Arc::new(AtomicUsize::new(0));
    /// let (up, down) = (Arc::clone(&running), Arc::clone(&running));
    /// let pool = callbridge::ThreadPool::builder()
    ///     .on_thread_start(move || drop(up.fetch_add(1, Ordering::SeqCst)))
    ///     .on_thread_stop(move || drop(down.fetch_sub(1, Ordering::SeqCst)))
    ///     .build()?;
    /// pool.submit(|| ()).result(None).unwrap();
    /// assert_eq!(running.load(Ordering::SeqCst), 1);
    /// assert!(pool.close_blocking(None).is_clean());
    /// assert_eq!(running.load(Ordering::SeqCst), 0);
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn on_thread_start(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.threads.on_start = Some(Arc::new(hook));
        self
    }

    /// Sets a hook that runs last on each thread, before the destructors of its thread-locals. A
    /// panic in it is contained.
    pub fn on_thread_stop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.threads.on_stop = Some(Arc::new(hook));
        self
    }

    fn check(&self) -> Result<(), SettingError> {
        SettingError::check_name(&self.name)?;
        if self.capacity == 0 {
            let why = "is 0, which would let no job through: allow at least 1";
            return Err(SettingError::new("capacity", why));
        }
        Ok(())
    }
}

impl ThreadPoolBuilder {
    pub(super) fn pool() -> Self {
        let kind = Pooled {
            max_workers: MAX_WORKERS,
            max_threads: None,
            idle_timeout: IDLE_TIMEOUT,
            initializer: None,
        };
        ExecutorBuilder::new("callbridge-pool", kind)
    }

    /// Sets how many jobs may run at a time, at least 1; 64 by default. Threads are started when there is
    /// work for them.
    pub fn max_workers(mut self, workers: usize) -> Self {
        self.kind.max_workers = workers;
        self
    }

    /// Sets how many threads there may be, at least `max_workers`; by default `max_workers` and
    /// 32 more.
    ///
    /// There are more than `max_workers` only while jobs wait for other work of the crate's, or while
    /// callbacks run; see [`ThreadPool`]. When all threads there may be wait, queued jobs do, too.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().max_workers(4).max_threads(8).build()?;
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn max_threads(mut self, threads: usize) -> Self {
        self.kind.max_threads = Some(threads);
        self
    }

    /// Sets what runs on each new thread before its first job.
    ///
    /// If it fails, or panics, the pool is broken for good: queued and later jobs give
    /// [`Refusal::Broken`](crate::future::Refusal::Broken) with the reason.
    ///
    /// Python: `ThreadPoolExecutor(initializer=...)`.
    pub fn initializer<E>(
        mut self,
        initializer: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.kind.initializer = Some(Box::new(move |_| initializer().map_err(Into::into)));
        self
    }

    /// Sets how long a thread may be idle before it ends; 10 s by default, `Duration::MAX` for
    /// ever.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = callbridge::ThreadPool::builder().idle_timeout(Duration::from_secs(60)).build()?;
    /// assert_eq!(pool.stats().workers, 0, "no thread before the first job");
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.kind.idle_timeout = timeout;
        self
    }

    /// Makes the pool. It has no thread yet.
    ///
    /// # Errors
    ///
    /// A [`SettingError`] names the setting that was rejected.
    pub fn build(self) -> Result<ThreadPool, SettingError> {
        self.check()?;
        let ExecutorBuilder { name, threads, capacity, kind } = self;
        if kind.max_workers == 0 {
            return Err(SettingError::new(
                "max_workers",
                "is 0, which would run nothing: allow at least 1",
            ));
        }
        let spare_threads = match kind.max_threads {
            None => SPARE_THREADS,
            Some(threads) => threads.checked_sub(kind.max_workers).ok_or_else(|| {
                let why = "is less than max_workers: allow at least as many";
                SettingError::new("max_threads", why)
            })?,
        };
        Ok(ThreadPool::new(Core::new(Settings {
            name,
            threads,
            capacity,
            max_workers: kind.max_workers,
            spare_threads,
            idle_timeout: Some(kind.idle_timeout),
            make: kind.initializer.unwrap_or_else(|| Box::new(|_| Ok(()))),
            alone: None,
        })))
    }

    /// Makes the pool that [`ThreadPool::shared`] gives, if nobody has used that yet.
    ///
    /// # Errors
    ///
    /// A [`SettingError`] when there is a shared pool already; otherwise as [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use callbridge::{ThreadPool, to_thread};
    ///
    /// ThreadPool::builder().name("blocking").max_workers(16).build_shared().unwrap();
    /// let name = to_thread(|| std::thread::current().name().map(str::to_owned)).await;
    /// assert_eq!(name.unwrap().unwrap(), "blocking-0");
    /// # }
    /// ```
    pub fn build_shared(self) -> Result<&'static ThreadPool, SettingError> {
        shared::set(self.build()?)
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled")
            .field("max_workers", &self.max_workers)
            .field("max_threads", &self.max_threads)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}

impl<K: fmt::Debug> fmt::Debug for ExecutorBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorBuilder")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl DedicatedThreadBuilder {
    pub(super) fn dedicated() -> Self {
        let alone = Alone { rebuilds: 5, backoff: Duration::from_millis(100) };
        ExecutorBuilder::new("callbridge-dedicated", Dedicated { alone })
    }

    /// Sets how often in a row [`spawn_rebuilding`](Self::spawn_rebuilding) builds a new value; 5
    /// by default.
    ///
    /// A build that fails counts. A call that ends without a panic ends the row.
    pub fn rebuilds(mut self, limit: u32) -> Self {
        self.kind.alone.rebuilds = limit;
        self
    }

    /// Sets how long the thread waits before the second build in a row; 100 ms by default. It waits
    /// twice as long before each further one, at most 30 s. Calls wait meanwhile; a close ends the
    /// pause.
    pub fn rebuild_backoff(mut self, pause: Duration) -> Self {
        self.kind.alone.backoff = pause;
        self
    }

    /// Starts the thread, which builds its value; a panic in a call poisons it.
    ///
    /// Wait for the handle in a thread with [`BlockingFuture::result`], or await it. The caller's event
    /// loop is current while the value is built, and in each call that of who made it.
    ///
    /// # Errors
    ///
    /// The future gives [`Refused`](crate::ResultError::Refused) with the reason when a setting is
    /// rejected, when `build` failed or panicked, or when no thread could be started.
    ///
    /// # Examples
    ///
    /// ```
    /// let missing = callbridge::DedicatedThread::spawn(|| std::fs::File::open("no such file"));
    /// # let mut missing = missing;
    /// let Err(callbridge::ResultError::Refused(why)) = missing.result(None) else { unreachable!() };
    /// assert!(matches!(why, callbridge::future::Refusal::Broken(_)));
    /// ```
    pub fn spawn<S, E>(
        self,
        build: impl FnOnce() -> Result<S, E> + Send + 'static,
    ) -> BlockingFuture<DedicatedThread<S>>
    where
        S: 'static,
        E: Into<Reason>,
    {
        let alone = Alone { rebuilds: 0, ..self.kind.alone };
        self.start(dedicated::build_once(build), alone)
    }

    /// Starts the thread, which builds its value, and another one after each panic in a call.
    ///
    /// The old value is dropped first. How often, and after which pauses, a new one is built, is set by
    /// [`rebuilds`](Self::rebuilds) and [`rebuild_backoff`](Self::rebuild_backoff); after that the thread
    /// is poisoned. The caller's event loop is current whenever a value is built, so the thread keeps its
    /// runtime's handle.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::DedicatedThread;
    /// use std::time::Duration;
    ///
    /// let builder = DedicatedThread::builder().rebuilds(3).rebuild_backoff(Duration::from_millis(10));
    /// let thread = builder.spawn_rebuilding(|| Ok::<_, String>(Vec::<u8>::new())).result(None).unwrap();
    /// thread.call_blocking(|bytes| bytes.push(1), None).unwrap();
    /// assert!(thread.call_blocking(|bytes| bytes[7], None).is_err());
    /// assert_eq!(thread.call_blocking(|bytes| bytes.len(), None).unwrap(), 0, "a new one");
    /// ```
    pub fn spawn_rebuilding<S, E>(
        self,
        build: impl FnMut() -> Result<S, E> + Send + 'static,
    ) -> BlockingFuture<DedicatedThread<S>>
    where
        S: 'static,
        E: Into<Reason>,
    {
        let alone = self.kind.alone;
        self.start(dedicated::build_again(build), alone)
    }

    fn start<S: 'static>(self, make: Make<S>, alone: Alone) -> BlockingFuture<DedicatedThread<S>> {
        if let Err(error) = self.check() {
            return resolved(Refusal::not_started(error).into());
        }
        let ExecutorBuilder { name, threads, capacity, .. } = self;
        dedicated::start(&Core::new(Settings {
            name,
            threads,
            capacity,
            max_workers: 1,
            spare_threads: 0,
            idle_timeout: None,
            make,
            alone: Some(alone),
        }))
    }
}
