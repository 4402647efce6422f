use super::ThreadRunner;
use super::core::Core;
use crate::bridge::MAX_IN_FLIGHT;
use crate::future::Refusal;
use crate::sync::prim::{Mutex, lock};
use crate::sync::{SettingError, discard, panic_message};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, Runtime};

type Factory = Box<dyn FnMut() -> io::Result<Runtime> + Send>;

/// What the loop is made of.
pub(super) struct Settings {
    workers: usize,
    pub(super) stack_size: Option<usize>,
    pub(super) max_in_flight: usize,
    /// Until it has made a runtime; the thread that starts the loop takes it out and puts it back.
    factory: Mutex<Option<Factory>>,
}

impl Settings {
    /// Builds the runtime; on the loop thread.
    pub(super) fn make_runtime(&self, name: &str) -> Result<Runtime, Refusal> {
        let factory = lock(&self.factory).take();
        let Some(mut factory) = factory else {
            // tokio panics where the system has no thread or no memory for its workers.
            return made_by(|| own_runtime(self.workers, self.stack_size, name));
        };
        made_by(&mut factory).inspect_err(|_| *lock(&self.factory) = Some(factory))
    }

    fn check(&self, name: &str) -> Result<(), SettingError> {
        SettingError::check_name(name)?;
        if self.workers == 0 {
            let why = "is 0, which could run nothing: ask for at least 1";
            return Err(SettingError::new("worker_threads", why));
        }
        if self.max_in_flight == 0 {
            let why = "is 0, which would refuse every call: allow at least 1";
            return Err(SettingError::new("max_in_flight", why));
        }
        Ok(())
    }
}

/// What `make` gives; a panic in it is a reason like its error.
fn made_by(make: impl FnOnce() -> io::Result<Runtime>) -> Result<Runtime, Refusal> {
    match catch_unwind(AssertUnwindSafe(make)) {
        Ok(made) => made.map_err(Refusal::not_started),
        Err(payload) => {
            let message = format!("it panicked: {}", panic_message(payload.as_ref()));
            discard(payload);
            Err(Refusal::not_started(message))
        }
    }
}

fn own_runtime(workers: usize, stack_size: Option<usize>, name: &str) -> io::Result<Runtime> {
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if workers > 1 {
        builder.worker_threads(workers);
    }
    if let Some(bytes) = stack_size {
        builder.thread_stack_size(bytes);
    }
    builder.enable_all().thread_name(name).build()
}

/// Settings of a [`ThreadRunner`]; see [`ThreadRunner::builder`].
#[must_use = "build() makes the runner"]
pub struct ThreadRunnerBuilder {
    settings: Settings,
    name: Option<String>,
}

impl ThreadRunnerBuilder {
    pub(super) fn new() -> Self {
        let settings = Settings {
            workers: 1,
            stack_size: None,
            max_in_flight: MAX_IN_FLIGHT,
            factory: Mutex::new(None),
        };
        ThreadRunnerBuilder { settings, name: None }
    }

    /// Sets how many threads poll tasks, at least 1; 1 by default.
    ///
    /// 1 makes a current-thread runtime, driven by the one background thread: all async code of
    /// the runner runs on it, as in asyncio. From 2 on it is a multi-thread runtime with that many
    /// workers, beside the background thread, which then only waits for the end.
    ///
    /// # Examples
    ///
    /// ```
    /// use tokio::runtime::RuntimeFlavor;
    ///
    /// let runner = callbridge::ThreadRunner::builder().worker_threads(2).build()?;
    /// let flavor = runner.run(async { tokio::runtime::Handle::current().runtime_flavor() })?;
    /// assert_eq!(flavor, RuntimeFlavor::MultiThread);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn worker_threads(mut self, threads: usize) -> Self {
        self.settings.workers = threads;
        self
    }

    /// Sets the name of the background thread and of the runtime's own threads; "runner-N", with a
    /// new N for each runner, by default.
    ///
    /// The system may show only its beginning (15 bytes on Linux). Metrics and tokio-console show the loop of a
    /// runner without a name as "runner".
    ///
    /// # Examples
    ///
    /// ```
    /// let runner = callbridge::ThreadRunner::builder().name("weather").build()?;
    /// let task = async { std::thread::current().name().map(str::to_owned) };
    /// let name = runner.run(async { tokio::spawn(task).await })??;
    /// assert_eq!(name.as_deref(), Some("weather"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the stack size of the background thread and of the runtime's own threads, in bytes; the
    /// system's choice by default.
    ///
    /// # Examples
    ///
    /// ```
    /// let runner = callbridge::ThreadRunner::builder().stack_size(4 << 20).build()?;
    /// assert_eq!(runner.run(async { 1 })?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// Sets how many calls may be in flight, at least 1; 65 536 by default.
    ///
    /// Iterators of [`wrap_iter`](ThreadRunner::wrap_iter) count as a call each; contexts don't.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.settings.max_in_flight = calls;
        self
    }

    /// Builds the runtime by `factory` instead; it is called on the background thread.
    ///
    /// Either flavour will do: a current-thread runtime is driven by the background thread. The
    /// factory then decides the number of worker threads. Its error, or its panic, reaches every
    /// caller that waits for the start, and the next use calls it again; once it has made a runtime
    /// it is dropped. Python: `loop_factory` of `asyncio.Runner`.
    ///
    /// # Examples
    ///
    /// ```
    /// let runner = callbridge::ThreadRunner::builder()
    ///     .loop_factory(|| tokio::runtime::Builder::new_current_thread().enable_all().build())
    ///     .build()?;
    /// assert_eq!(runner.run(async { 1 })?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn loop_factory(
        mut self,
        factory: impl FnMut() -> io::Result<Runtime> + Send + 'static,
    ) -> Self {
        self.settings.factory = Mutex::new(Some(Box::new(factory)));
        self
    }

    /// Makes the runner. Its loop starts with the first use, of which [`ThreadRunner::bridge`] is the
    /// shortest.
    ///
    /// # Errors
    ///
    /// [`SettingError`], which names the setting that can't be.
    pub fn build(self) -> Result<ThreadRunner, SettingError> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let ThreadRunnerBuilder { settings, name } = self;
        // Metrics add up what has one name, for good: runners without one are one there.
        let shown = name.clone().unwrap_or_else(|| "runner".to_owned());
        let name =
            name.unwrap_or_else(|| format!("runner-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        settings.check(&name)?;
        Ok(ThreadRunner { core: Core::new(name, shown, settings) })
    }
}

impl fmt::Debug for ThreadRunnerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadRunnerBuilder")
            .field("name", &self.name)
            .field("worker_threads", &self.settings.workers)
            .field("max_in_flight", &self.settings.max_in_flight)
            .finish_non_exhaustive()
    }
}
