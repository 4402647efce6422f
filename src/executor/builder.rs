use super::core::{Core, Settings};
use super::pool::ThreadPool;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a [`ThreadPool`]; see [`ThreadPool::builder`].
///
/// # Examples
///
/// See [`ThreadPool::builder`].
#[must_use = "build() makes the pool"]
pub struct ThreadPoolBuilder {
    settings: Settings,
}

impl ThreadPoolBuilder {
    pub(super) fn new() -> Self {
        ThreadPoolBuilder {
            settings: Settings {
                max_workers: ThreadPool::DEFAULT_MAX_WORKERS,
                queue: Some(ThreadPool::DEFAULT_QUEUE),
                thread_name: "callbridge-pool".to_owned(),
                initializer: None,
                idle_timeout: ThreadPool::DEFAULT_IDLE_TIMEOUT,
                stack_size: None,
            },
        }
    }

    /// How many jobs may run at a time, from 1 up; by default
    /// [`DEFAULT_MAX_WORKERS`](ThreadPool::DEFAULT_MAX_WORKERS). Threads are started when there is
    /// work for them.
    ///
    /// # Panics
    ///
    /// If `workers` is 0: no job would ever run.
    ///
    /// # Examples
    ///
    /// See [`ThreadPool::builder`].
    #[track_caller]
    pub fn max_workers(mut self, workers: usize) -> Self {
        assert!(workers > 0, "max_workers(0) would run nothing: allow at least 1");
        self.settings.max_workers = workers;
        self
    }

    /// How many jobs may wait for a worker, from 1 up; by default
    /// [`DEFAULT_QUEUE`](ThreadPool::DEFAULT_QUEUE).
    ///
    /// # Panics
    ///
    /// If `jobs` is 0: a job reaches its worker through the queue.
    ///
    /// # Examples
    ///
    /// See [`ThreadPool::builder`].
    #[track_caller]
    pub fn queue(mut self, jobs: usize) -> Self {
        assert!(jobs > 0, "queue(0) would let no job through: allow at least 1");
        self.settings.queue = Some(jobs);
        self
    }

    /// Lifts the limit of the queue: the memory is the limit then, and no submission waits.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().unbounded().build();
    /// assert_eq!(pool.submit(|| 1).result(None).unwrap(), 1);
    /// ```
    pub fn unbounded(mut self) -> Self {
        self.settings.queue = None;
        self
    }

    /// What the threads are called, each with its number behind it; "callbridge-pool" unless told.
    ///
    /// # Panics
    ///
    /// If the name has a NUL byte in it, which the system doesn't take.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().thread_name("disk").build();
    /// let name = pool.submit(|| std::thread::current().name().map(str::to_owned));
    /// # let mut name = name;
    /// assert_eq!(name.result(None).unwrap().unwrap(), "disk-0");
    /// ```
    #[track_caller]
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        assert!(!name.contains('\0'), "a thread's name can't have a NUL byte in it");
        self.settings.thread_name = name;
        self
    }

    /// Runs on each new thread before its first job.
    ///
    /// If it fails, or panics, the pool is broken for good: queued and later jobs give
    /// [`ExecutorError::Broken`](super::ExecutorError::Broken) with the reason.
    ///
    /// Python: `ThreadPoolExecutor(initializer=...)`.
    ///
    /// # Examples
    ///
    /// See [`ExecutorError`](super::ExecutorError).
    pub fn initializer<E>(
        mut self,
        initializer: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.settings.initializer = Some(Arc::new(move || initializer().map_err(Into::into)));
        self
    }

    /// How long a thread stays without work before it ends; 10 s unless told.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = callbridge::ThreadPool::builder().idle_timeout(Duration::from_secs(60)).build();
    /// assert_eq!(pool.stats().workers, 0, "no thread before the first job");
    /// ```
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// The stack of each thread in bytes; what std takes by default unless told.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().stack_size(512 * 1024).build();
    /// assert_eq!(pool.submit(|| 1).result(None).unwrap(), 1);
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// The pool. It has no thread yet.
    ///
    /// # Examples
    ///
    /// See [`ThreadPool::builder`].
    pub fn build(self) -> ThreadPool {
        ThreadPool::new(Core::new(self.settings))
    }
}

impl fmt::Debug for ThreadPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPoolBuilder")
            .field("max_workers", &self.settings.max_workers)
            .field("queue", &self.settings.queue)
            .field("thread_name", &self.settings.thread_name)
            .field("idle_timeout", &self.settings.idle_timeout)
            .finish_non_exhaustive()
    }
}
