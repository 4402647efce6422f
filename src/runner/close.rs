use super::ThreadRunner;
use super::core::{Core, Found, GRACE, Live, Stop};
use super::outcome::{ExitError, Outcome};
use super::registry::Entry;
use crate::bridge::CloseReport;
use crate::future::{BlockingFuture, lone_promise};
use crate::sync::context::drives_a_loop;
use crate::sync::{Deadline, contain};
use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How a runner closed; returned by [`ThreadRunner::close`](crate::ThreadRunner::close). A [`CloseReport`] of
/// its calls and its loop's threads, and how its contexts exited.
///
/// A thread that is still running is inside a poll, a destructor or a blocking job of the runtime's own
/// pool, and is left behind; another close waits for it again.
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
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use = "it names what did not stop"]
pub struct RunnerCloseReport {
    close: CloseReport,
    /// Contexts that this close told to exit.
    pub contexts: usize,
    /// What went wrong at exits, those of dropped guards included, at most 64.
    pub exit_errors: Vec<ExitError>,
    /// Exit errors beyond those.
    pub more_exit_errors: usize,
    /// There was nothing to close: the loop stayed in the process that this one was forked off from.
    pub forked: bool,
}

impl RunnerCloseReport {
    /// Whether everything ended by itself, well and in time.
    pub fn is_clean(&self) -> bool {
        !self.forked && self.exit_errors.is_empty() && self.close.is_clean()
    }

    fn of_forked() -> Self {
        RunnerCloseReport { forked: true, ..RunnerCloseReport::default() }
    }
}

impl Deref for RunnerCloseReport {
    type Target = CloseReport;

    fn deref(&self) -> &CloseReport {
        &self.close
    }
}

impl fmt::Display for RunnerCloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "runner {}, {} contexts exited", self.close, self.contexts)?;
        for error in &self.exit_errors {
            write!(f, ", {error}")?;
            error.source().map_or(Ok(()), |reason| write!(f, ": {reason}"))?;
        }
        if self.more_exit_errors > 0 {
            write!(f, ", {} more errors", self.more_exit_errors)?;
        }
        if self.forked { f.write_str("; its loop stayed in the parent process") } else { Ok(()) }
    }
}

impl ThreadRunner {
    /// Ends the loop: exits the contexts, drains, cuts off what is left, and joins the background
    /// thread.
    ///
    /// New work is refused from the start, tokens from [`child_token`](crate::Bridge::child_token) are
    /// cancelled, and whoever waits for a start is released. Then contexts are exited, the last one
    /// entered first, each with [`Outcome::Ok`] and after the other, those included that their guards are
    /// just exiting; then calls in flight can end by themselves until `timeout`, and what is left is
    /// cut off; then the runtime is shut down, its tasks dropped, and blocking jobs of its own pool
    /// waited for until `timeout`. What is cut off is dropped on the loop, never on the calling thread.
    /// A poll, or a destructor, that blocks can hold up none of this beyond the timeout: the report
    /// names it, and its thread is left behind. Closing twice is fine: the second caller waits as
    /// well.
    ///
    /// Python: `Runner.close`, the end of `with start_blocking_portal()`.
    ///
    /// # Blocking
    ///
    /// At most `timeout` and half a second; `None` waits for ever. On a thread that drives an event loop
    /// it doesn't wait: a thread of its own does the closing, and the report says `would_deadlock`.
    /// [`close_async`](Self::close_async) is for async code.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runner = callbridge::ThreadRunner::new();
    /// let mut never = runner.spawn(std::future::pending::<()>());
    /// let report = runner.close(Duration::from_millis(5));
    /// assert_eq!((report.cut_off, report.still_running.len()), (1, 0));
    /// assert!(never.result(None).is_err());
    /// ```
    pub fn close(&self, timeout: impl Into<Option<Duration>>) -> RunnerCloseReport {
        self.close_with(Outcome::Ok, timeout)
    }

    /// As [`close`](Self::close), with the outcome that the contexts are told.
    ///
    /// # Blocking
    ///
    /// As [`close`](Self::close).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ThreadRunner;
    /// use callbridge::runner::Outcome;
    /// use std::error::Error;
    /// use std::time::Duration;
    ///
    /// let runner = ThreadRunner::new();
    /// let _session = runner
    ///     .enter_context(
    ///         || async { Ok::<_, String>(()) },
    ///         |_, outcome| async move { Err(format!("told: {outcome}")) },
    ///     )?
    ///     .leave_open();
    /// let report = runner.close_with(Outcome::error("disk full"), Duration::from_secs(5));
    /// let reason = report.exit_errors[0].source().unwrap();
    /// assert_eq!(reason.to_string(), "told: disk full");
    /// # Ok::<(), callbridge::runner::EnterError<String>>(())
    /// ```
    pub fn close_with(
        &self,
        outcome: Outcome,
        timeout: impl Into<Option<Duration>>,
    ) -> RunnerCloseReport {
        self.core.close(outcome, Patience::new(timeout))
    }

    /// As [`close`](Self::close), for async code: a short-lived thread does the closing.
    ///
    /// It can be awaited anywhere but on the runner's own loop, which would wait for itself.
    ///
    /// # Cancel safety
    ///
    /// New work is refused from the first poll on. Dropping the returned future after that stops nothing:
    /// the closing goes on, and only its report is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ThreadRunner;
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let runner = ThreadRunner::new();
    /// let call = runner.spawn(async { "in time" });
    /// let report = runner.close_async(Duration::from_secs(5)).await;
    /// assert!(report.is_clean(), "{report}");
    /// assert_eq!(call.await.unwrap(), "in time");
    /// # }
    /// ```
    pub async fn close_async(&self, timeout: impl Into<Option<Duration>>) -> RunnerCloseReport {
        let patience = Patience::new(timeout);
        if self.core.is_forked() {
            return RunnerCloseReport::of_forked();
        }
        let found = self.core.claim();
        let closing = self.core.close_elsewhere(found, Outcome::Ok, patience);
        // Without a thread to wait on, the loop has been told to end at once.
        closing.await.unwrap_or_else(|_| self.core.left_running(false))
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

impl Patience {
    pub(super) fn new(timeout: impl Into<Option<Duration>>) -> Self {
        let whole = Deadline::after(timeout);
        Patience { drain: whole, whole }
    }
}

impl Core {
    /// Exits the contexts, drains the calls and cuts off the rest, ends and joins the loop.
    pub(super) fn close(
        self: &Arc<Self>,
        outcome: Outcome,
        patience: Patience,
    ) -> RunnerCloseReport {
        if self.is_forked() {
            return RunnerCloseReport::of_forked();
        }
        let found = self.claim();
        if self.is_over() || !drives_a_loop() {
            return self.close_here(found, &outcome, patience);
        }
        drop(self.close_elsewhere(found, outcome, patience));
        self.left_running(true)
    }

    /// Of a close that didn't wait for the loop.
    fn left_running(&self, would_deadlock: bool) -> RunnerCloseReport {
        let still_running = vec![self.name.clone()];
        let close = CloseReport { still_running, would_deadlock, ..CloseReport::default() };
        RunnerCloseReport { close, ..RunnerCloseReport::default() }
    }

    /// Closes in a thread of its own. Where there is none, the claim is dropped, and with it the loop's
    /// stop: the loop ends at once instead of never.
    fn close_elsewhere(
        self: &Arc<Self>,
        found: Found,
        outcome: Outcome,
        patience: Patience,
    ) -> BlockingFuture<RunnerCloseReport> {
        if let Some(live) = self.live() {
            live.bridge.begin_close();
        }
        let (promise, report) = lone_promise();
        let core = Arc::clone(self);
        let close = move || promise.resolve(Ok(core.close_here(found, &outcome, patience)));
        let thread = thread::Builder::new().name(format!("{}-close", self.name));
        contain("a start of a thread", || thread.spawn(close).map(drop));
        report
    }

    fn close_here(
        self: &Arc<Self>,
        found: Found,
        outcome: &Outcome,
        patience: Patience,
    ) -> RunnerCloseReport {
        let started = Instant::now();
        let mut report = RunnerCloseReport::default();
        match (found, self.live()) {
            (Found::Running(stop), Some(live)) => {
                self.end(live, stop, outcome, patience, &mut report);
            }
            // The loop is gone already: its contexts have ended with it.
            (Found::Nothing, Some(_)) => {
                let (told, late) = self.contexts.exit_all(outcome, Deadline::Now);
                self.settle(told, late, &mut report);
            }
            (_, _) => {}
        }
        if !self.join(after(patience.whole, 2 * GRACE)) {
            report.close.still_running.push(self.name.clone());
        }
        report.close.elapsed = started.elapsed();
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
        report.close = live.bridge.close_blocking(patience.drain.remaining());
        let grace = if late.is_empty() { Duration::ZERO } else { GRACE };
        let _named_by_their_entries = live.house.close_blocking(grace);
        self.settle(told, late, report);
        self.give_up();
        stop.resolve(Ok(patience.whole));
    }

    fn settle(&self, told: usize, late: Vec<Entry>, report: &mut RunnerCloseReport) {
        let tally = self.contexts.settle(late);
        report.contexts = told;
        (report.exit_errors, report.more_exit_errors) = (tally.errors, tally.more_errors);
    }
}

/// A deadline `later` than the other; in the past it counts from now.
fn after(deadline: Deadline, later: Duration) -> Deadline {
    Deadline::after(deadline.remaining().and_then(|left| left.checked_add(later)))
}
