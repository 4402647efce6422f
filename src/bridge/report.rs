//! What a close says.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// How a bridge, a pool or a dedicated thread closed; returned by its `close`, and a part of what a runner's
/// returns.
///
/// Calls are jobs, where it is a pool or a thread.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = callbridge::Bridge::new(runtime.handle().clone());
/// let report = bridge.close_blocking(Duration::ZERO);
/// assert!(report.is_clean(), "{report}");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
#[must_use = "it names what did not stop"]
pub struct CloseReport {
    /// Calls in flight that ended before the deadline, their callbacks included.
    pub drained: usize,
    /// Calls that the deadline cut off, which were dropped: their callers are told
    /// [`LoopClosed`](crate::ResultError::LoopClosed), and those of jobs that hadn't begun
    /// [`Refused`](crate::ResultError::Refused).
    pub cut_off: usize,
    /// Calls that could not be ended, because they don't come out of a poll, or run on.
    pub stuck: Vec<StuckCall>,
    /// Calls that are still in flight: stuck ones, and all of them if the closing did not wait.
    pub in_flight: usize,
    /// The names of the threads that haven't ended, the destructors of their thread-locals included. A
    /// bridge has none of its own.
    pub still_running: Vec<String>,
    /// How long the closing took.
    pub elapsed: Duration,
    /// The closing did not wait: the calling thread drives an event loop, or is one of those to end.
    pub would_deadlock: bool,
}

impl CloseReport {
    /// Whether everything in flight, and every thread, ended by itself and in time.
    pub fn is_clean(&self) -> bool {
        self.cut_off == 0 && self.in_flight == 0 && self.still_running.is_empty()
    }
}

impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CloseReport { drained, cut_off, elapsed, .. } = self;
        write!(f, "closed in {elapsed:?}: {drained} drained, {cut_off} cut off")?;
        if self.in_flight > 0 {
            write!(f, ", {} in flight", self.in_flight)?;
        }
        if self.would_deadlock {
            f.write_str(", not waited for: the calling thread must not block")?;
        }
        for name in &self.still_running {
            write!(f, ", still running: {name}")?;
        }
        for call in &self.stuck {
            write!(f, ", stuck: {call}")?;
        }
        Ok(())
    }
}

/// A call or job that could not be ended: it runs on, or doesn't come out of a poll, a callback or
/// a destructor.
///
/// # Examples
///
/// ```
/// # use std::time::Duration;
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = callbridge::Bridge::new(runtime.handle().clone());
/// let (began, begun) = std::sync::mpsc::channel();
/// let (release, blocked) = std::sync::mpsc::channel::<()>();
/// let call = bridge.run_coroutine_threadsafe(async move {
///     began.send(()).unwrap();
///     let _ = blocked.recv();
/// });
/// begun.recv().unwrap();
/// let report = bridge.close_blocking(Duration::from_millis(1));
/// assert!(report.stuck[0].location.file().ends_with(".rs"), "{report}");
/// drop(release);
/// # drop(call);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StuckCall {
    /// Where the call was submitted.
    pub location: &'static Location<'static>,
    /// The name of the thread that it holds, if that has one.
    pub thread: Option<Box<str>>,
}

impl fmt::Display for StuckCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call submitted at {}", self.location)?;
        match &self.thread {
            Some(thread) => write!(f, " on thread {thread:?}"),
            None => Ok(()),
        }
    }
}
