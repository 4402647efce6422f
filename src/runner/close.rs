use super::context::{ExitError, Outcome};
use super::core::{Core, Found, GRACE, Live, Stop};
use crate::bridge::CloseReport;
use crate::sync::Deadline;
use crate::sync::context::drives_a_loop;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How a runner closed; returned by [`ThreadRunner::close`](crate::ThreadRunner::close).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let runner = callbridge::ThreadRunner::new();
/// runner.run(async {})?;
/// let report = runner.close(Duration::from_secs(5));
/// assert!(report.is_clean(), "{report}");
/// # Ok::<(), callbridge::ResultError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it names what did not stop"]
pub struct RunnerCloseReport {
    /// Contexts that this close told to exit.
    pub contexts: usize,
    /// What went wrong at exits, those of dropped guards included, at most 64.
    pub exit_errors: Vec<ExitError>,
    /// Exit errors beyond those.
    pub more_exit_errors: usize,
    /// What became of the calls in flight; `None` if this close found no loop running.
    pub calls: Option<CloseReport>,
    /// The loop's threads have ended. If not, one is inside a poll, a destructor or a blocking job
    /// of the runtime's own pool, and is left behind.
    pub joined: bool,
    /// How long the closing took.
    pub elapsed: Duration,
    /// The closing did not wait, because the calling thread drives an event loop; it goes on in a
    /// thread of its own.
    pub would_deadlock: bool,
}

impl RunnerCloseReport {
    /// Whether everything ended by itself, well and in time.
    ///
    /// # Examples
    ///
    /// See [`RunnerCloseReport`].
    pub fn is_clean(&self) -> bool {
        self.joined
            && self.exit_errors.is_empty()
            && self.calls.as_ref().is_none_or(CloseReport::is_clean)
    }
}

impl fmt::Display for RunnerCloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "runner closed in {:?}: {} contexts exited", self.elapsed, self.contexts)?;
        for error in &self.exit_errors {
            write!(f, ", {error}")?;
        }
        if self.more_exit_errors > 0 {
            write!(f, ", {} more errors", self.more_exit_errors)?;
        }
        if let Some(calls) = &self.calls {
            write!(f, "; {calls}")?;
        }
        if self.would_deadlock {
            write!(f, "; not waited for on a loop's own thread")
        } else if self.joined {
            Ok(())
        } else {
            write!(f, "; a thread of its loop is left behind")
        }
    }
}

/// How long closing may take.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// For calls in flight to end by themselves.
    pub(super) drain: Deadline,
    /// For everything.
    pub(super) whole: Deadline,
}

impl Core {
    /// Exits the contexts, drains and cancels the calls, ends and joins the loop.
    pub(super) fn close(
        self: &Arc<Self>,
        outcome: Outcome,
        patience: Patience,
    ) -> RunnerCloseReport {
        if self.is_quiet() || !drives_a_loop() {
            return self.close_here(&outcome, patience);
        }
        if let Some(live) = self.live() {
            live.bridge.begin_close();
        }
        let core = Arc::clone(self);
        let closer = thread::Builder::new()
            .name(format!("{}-close", self.name))
            .spawn(move || drop(core.close_here(&outcome, patience)));
        if closer.is_err() {
            // No thread to wait on: end the loop at once instead of never.
            if let Found::Running(stop) = self.claim(Deadline::after(Some(Duration::ZERO))) {
                drop(stop);
            }
        }
        RunnerCloseReport { would_deadlock: true, ..RunnerCloseReport::new() }
    }

    fn close_here(&self, outcome: &Outcome, patience: Patience) -> RunnerCloseReport {
        let started = Instant::now();
        let mut report = RunnerCloseReport::new();
        let found = self.claim(patience.whole);
        if let Some(live) = self.live() {
            match found {
                Found::Running(stop) => self.end(live, stop, outcome, patience, &mut report),
                Found::Nothing => self.bury_contexts(outcome, &mut report),
                Found::Ending => {}
            }
        }
        report.joined = self.join(after(patience.whole, 2 * GRACE));
        report.elapsed = started.elapsed();
        report
    }

    fn end(
        &self,
        live: &Live,
        stop: Stop,
        outcome: &Outcome,
        patience: Patience,
        report: &mut RunnerCloseReport,
    ) {
        live.bridge.begin_close();
        let (told, late) = self.contexts.exit_all(outcome, patience.whole);
        report.contexts = told;
        let drain = patience.drain.remaining().unwrap_or(Duration::MAX);
        report.calls = Some(live.bridge.close_blocking(drain));
        let grace = if late.is_empty() { Duration::ZERO } else { GRACE };
        let _named_by_their_entries = live.house.close_blocking(grace);
        let tally = self.contexts.settle(late);
        (report.exit_errors, report.more_exit_errors) = (tally.errors, tally.more_errors);
        stop.resolve(Ok(patience.whole));
        live.gone.cancel();
    }

    /// The loop is gone already: its contexts have ended with it.
    fn bury_contexts(&self, outcome: &Outcome, report: &mut RunnerCloseReport) {
        let (told, late) = self.contexts.exit_all(outcome, Deadline::after(Some(Duration::ZERO)));
        let tally = self.contexts.settle(late);
        report.contexts = told;
        (report.exit_errors, report.more_exit_errors) = (tally.errors, tally.more_errors);
    }
}

impl RunnerCloseReport {
    fn new() -> Self {
        RunnerCloseReport {
            contexts: 0,
            exit_errors: Vec::new(),
            more_exit_errors: 0,
            calls: None,
            joined: false,
            elapsed: Duration::ZERO,
            would_deadlock: false,
        }
    }
}

/// A deadline `later` than the other; in the past it counts from now.
fn after(deadline: Deadline, later: Duration) -> Deadline {
    Deadline::after(deadline.remaining().and_then(|left| left.checked_add(later)))
}
