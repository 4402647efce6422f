use super::core::Core;
use super::stats::BridgeStats;
use crate::future::Origin;
use crate::sync::context::drives_a_loop;
use crate::sync::{self, Deadline};
use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

/// How long work inside a poll is waited for after the deadline.
const GRACE: Duration = Duration::from_millis(100);

/// How a bridge closed; returned by [`Bridge::close`](crate::Bridge::close).
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
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it names what did not stop"]
pub struct CloseReport {
    /// Calls in flight that ended before the deadline, their callbacks included.
    pub drained: usize,
    /// Calls that were dropped at the deadline.
    pub cancelled: usize,
    /// Calls that could not be dropped, because they don't come out of a poll.
    pub stuck: Vec<StuckCall>,
    /// Calls that are still in flight: stuck ones, and all of them if the closing did not wait.
    pub in_flight: usize,
    /// How long the closing took.
    pub elapsed: Duration,
    /// The closing did not wait, because the calling thread drives an event loop.
    pub would_deadlock: bool,
}

impl CloseReport {
    /// Whether everything in flight ended by itself, in time.
    ///
    /// # Examples
    ///
    /// See [`CloseReport`].
    pub fn is_clean(&self) -> bool {
        self.cancelled == 0 && self.in_flight == 0
    }
}

impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CloseReport { drained, cancelled, elapsed, .. } = self;
        write!(f, "closed in {elapsed:?}: {drained} drained, {cancelled} cancelled")?;
        if self.in_flight > 0 {
            write!(f, ", {} in flight", self.in_flight)?;
        }
        for call in &self.stuck {
            write!(f, ", stuck: {call}")?;
        }
        Ok(())
    }
}

/// A call that could not be ended: it is inside a poll, or a destructor of its future.
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

/// A closing under way.
struct Closing<'a> {
    core: &'a Core,
    started: Instant,
    deadline: Deadline,
    grace: Duration,
    /// The counters when it began.
    before: BridgeStats,
}

impl<'a> Closing<'a> {
    /// Refuses new work and tells what is running.
    fn begin(core: &'a Core, timeout: Option<Duration>) -> Self {
        // Nothing ends in a child process: what is in flight stayed in the parent.
        let forked = core.is_forked();
        let closing = Closing {
            core,
            started: Instant::now(),
            deadline: if forked { Deadline::Now } else { Deadline::after(timeout) },
            grace: if forked { Duration::ZERO } else { GRACE },
            // Read before the tokens are cancelled, which lets work end at once.
            before: core.stats(),
        };
        core.begin_close();
        closing
    }

    /// Ends what is left; the counters at that moment, and the deadline for the rest.
    fn abort(&self) -> (BridgeStats, Deadline) {
        let in_time = self.core.stats();
        self.core.abort();
        (in_time, Deadline::after(self.grace))
    }

    /// The end of a close that has waited.
    fn end(self, in_time: BridgeStats) -> CloseReport {
        let report = self.report(in_time, false);
        if report.in_flight > 0 {
            self.core.give_up();
        }
        report
    }

    fn report(&self, in_time: BridgeStats, would_deadlock: bool) -> CloseReport {
        let stats = self.core.stats();
        let running = if stats.in_flight > 0 { self.core.running() } else { Vec::new() };
        let call = |(location, thread)| StuckCall { location, thread };
        let stuck = running.into_iter().map(call).collect();
        CloseReport {
            drained: (in_time.ended() - self.before.ended()) as usize,
            cancelled: (stats.loop_closed - in_time.loop_closed) as usize,
            stuck,
            in_flight: stats.in_flight,
            elapsed: self.started.elapsed(),
            would_deadlock,
        }
    }
}

/// A closing that nobody waits for any more ends what is in flight at once.
struct AbortOnDrop<'a>(&'a Core);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn close_blocking(core: &Core, timeout: Option<Duration>) -> CloseReport {
    let closing = Closing::begin(core, timeout);
    if !core.is_idle() && drives_a_loop() {
        return closing.report(closing.before, true);
    }
    let _idle = core.wait_idle(closing.deadline);
    let (in_time, rest) = closing.abort();
    let _idle = core.wait_idle(rest);
    closing.end(in_time)
}

pub(super) async fn close(core: &Core, timeout: Option<Duration>) -> CloseReport {
    let closing = Closing::begin(core, timeout);
    let _end = AbortOnDrop(core);
    let name = format!("{}-close", core.name);
    sync::timeout(closing.deadline, &name, core.until_idle()).await;
    let (in_time, rest) = closing.abort();
    sync::timeout(rest, &name, core.until_idle()).await;
    closing.end(in_time)
}
