use crate::future::{BlockingFuture, Panic, ResultError, lone_promise};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::{self, Thread};

type Step = Box<dyn FnOnce() + Send>;

/// A thread that isn't the crate's nor an event loop's, and does what a test tells it, one step after the
/// other.
///
/// Once dropped it ends after the steps that it was given, and nobody waits for that.
///
/// # Examples
///
/// ```
/// use callbridge::channel;
/// use callbridge::testing::ForeignThread;
/// use std::time::Duration;
///
/// let (sender, mut frames) = channel(1);
/// let library = ForeignThread::spawn("library")?;
/// let first = sender.clone();
/// library.start(move || first.send(1).unwrap()).result(None)?;
/// // This one finds the channel full, and waits until there is room.
/// let mut second = library.start(move || sender.send(2).is_ok());
/// assert_eq!(frames.recv_blocking(None), Ok(1));
/// assert!(second.result(Duration::from_secs(5))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ForeignThread {
    steps: mpsc::Sender<Step>,
    thread: Thread,
}

impl ForeignThread {
    /// Starts a thread of this name.
    ///
    /// # Errors
    ///
    /// The system has no thread to give.
    pub fn spawn(name: impl Into<String>) -> io::Result<Self> {
        let (steps, given) = mpsc::channel::<Step>();
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || given.into_iter().for_each(|step| step()))?;
        Ok(ForeignThread { steps, thread: thread.thread().clone() })
    }

    /// Begins a step, after those that were begun before; its result can be waited for, or awaited.
    ///
    /// A panic of the step is its result: [`ResultError::Panicked`].
    pub fn start<R: Send + 'static>(
        &self,
        step: impl FnOnce() -> R + Send + 'static,
    ) -> BlockingFuture<R> {
        let (promise, result) = lone_promise();
        let step = move || {
            let done = catch_unwind(AssertUnwindSafe(step));
            promise.resolve(done.map_err(|payload| ResultError::Panicked(Panic::new(payload))));
        };
        // The thread takes steps for as long as this end lives.
        let _ = self.steps.send(Box::new(step));
        result
    }
}

impl fmt::Debug for ForeignThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignThread").field("name", &self.thread.name()).finish()
    }
}
