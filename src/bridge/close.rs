use super::core::Core;
use crate::future::lone_promise;
use crate::sync::Deadline;
use crate::sync::context::drives_a_loop;
use crate::sync::prim::thread;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
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
    /// Calls in flight that ended before the deadline.
    pub drained: usize,
    /// Calls that were dropped at the deadline.
    pub cancelled: usize,
    /// Callbacks of `call_soon_threadsafe` that hadn't run by the end.
    pub callbacks_left: usize,
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
        self.cancelled == 0 && self.callbacks_left == 0 && self.in_flight == 0
    }
}

impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CloseReport { drained, cancelled, elapsed, .. } = self;
        write!(f, "closed in {elapsed:?}: {drained} drained, {cancelled} cancelled")?;
        if self.callbacks_left > 0 {
            write!(f, ", {} callbacks left", self.callbacks_left)?;
        }
        for call in &self.stuck {
            write!(f, ", stuck: {call}")?;
        }
        Ok(())
    }
}

/// A call that could not be ended: it is inside a poll.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StuckCall {
    /// Where the call was submitted.
    pub location: &'static Location<'static>,
}

impl fmt::Display for StuckCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call submitted at {}", self.location)
    }
}

/// What a closing starts from.
#[derive(Clone, Copy)]
struct Opening {
    started: Instant,
    /// Calls that had ended before.
    ended: u64,
}

/// Refuses new work and tells what is running.
fn begin(core: &Core) -> Opening {
    // Counted before the tokens are cancelled, which lets work end at once.
    let opening = Opening { started: Instant::now(), ended: core.ledger.ended() };
    core.begin_close();
    opening
}

fn is_idle(core: &Core) -> bool {
    core.ledger.in_flight() == 0 && core.callbacks.pending() == 0
}

pub(super) fn close_blocking(core: &Core, deadline: Duration) -> CloseReport {
    let opening = begin(core);
    if !is_idle(core) && drives_a_loop() {
        return report(core, opening.started, 0, 0, true);
    }
    finish(core, opening, deadline)
}

fn finish(core: &Core, opening: Opening, deadline: Duration) -> CloseReport {
    let deadline = Deadline::after(Some(deadline));
    let late = core.ledger.wait_drained(deadline);
    core.callbacks.wait_drained(deadline);
    let drained = (core.ledger.ended() - opening.ended) as usize;
    // Nothing is left, or nothing more is waited for: either way the drivers can go.
    core.die();
    let stuck = core.ledger.wait_drained(Deadline::after(Some(GRACE)));
    report(core, opening.started, drained, late.saturating_sub(stuck), false)
}

fn report(
    core: &Core,
    started: Instant,
    drained: usize,
    cancelled: usize,
    would_deadlock: bool,
) -> CloseReport {
    // Without anything in flight, what a driver polls is over, whatever its desk still says.
    let polled = if core.ledger.in_flight() > 0 { core.queue.polled() } else { Vec::new() };
    let stuck = polled.into_iter().map(|location| StuckCall { location }).collect();
    CloseReport {
        drained,
        cancelled,
        callbacks_left: core.callbacks.pending(),
        stuck,
        in_flight: core.ledger.in_flight(),
        elapsed: started.elapsed(),
        would_deadlock,
    }
}

pub(super) async fn close(core: Arc<Core>, deadline: Duration) -> CloseReport {
    let opening = begin(&core);
    if is_idle(&core) {
        return finish(&core, opening, deadline);
    }
    let (promise, closing) = lone_promise();
    let waiting = Arc::clone(&core);
    let thread = thread::Builder::new()
        .name(format!("{}-close", core.name))
        .spawn(move || promise.resolve(Ok(finish(&waiting, opening, deadline))));
    let closed = match thread {
        Ok(_detached) => closing.await.ok(),
        Err(_) => None,
    };
    // Without a thread to wait on: cancel at once instead of never.
    closed.unwrap_or_else(|| finish(&core, opening, Duration::ZERO))
}
