use super::Bridge;
use super::core::Core;
use super::report::{CloseReport, StuckCall};
use super::stats::BridgeStats;
use crate::future::Origin;
use crate::sync::context::drives_a_loop;
use crate::sync::{self, Deadline};
use std::time::{Duration, Instant};

/// How long work inside a poll is waited for after the deadline.
const GRACE: Duration = Duration::from_millis(100);

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
            cut_off: (stats.loop_closed - in_time.loop_closed) as usize,
            stuck,
            in_flight: stats.in_flight,
            still_running: Vec::new(),
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

impl Bridge {
    /// Refuses new work, lets the work in flight drain for `timeout`, then cuts off the rest.
    ///
    /// Tokens from [`child_token`](Self::child_token) are cancelled at the start, so that work
    /// which runs until told otherwise can end by itself. What has drained is resolved and its callbacks
    /// have run. Work that is cut off gives [`LoopClosed`](crate::ResultError::LoopClosed); its future
    /// is dropped on the loop (or by the thread that [`call`](Self::call)s). What doesn't come out of a
    /// poll, or out of a destructor, is given 100 ms more and then named in the report. Closing twice is
    /// fine; the second caller waits as well.
    ///
    /// It needs no timer of the runtime: the waiting is timed by a short-lived thread. Don't await it
    /// inside work that runs on the same bridge: such work would wait for itself until the timeout.
    ///
    /// # Cancel safety
    ///
    /// New work is refused from the first poll on. Dropping the returned future after that cuts off
    /// what is in flight at once.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let bridge = callbridge::Bridge::current();
    /// let call = bridge.run_coroutine_threadsafe(async { "in time" });
    /// let report = bridge.close(Duration::from_secs(5)).await;
    /// assert!(report.is_clean());
    /// assert_eq!(call.await.unwrap(), "in time");
    /// # }
    /// ```
    pub async fn close(&self, timeout: impl Into<Option<Duration>>) -> CloseReport {
        let core = &self.owner.core;
        let closing = Closing::begin(core, timeout.into());
        let _end = AbortOnDrop(core);
        let name = format!("{}-close", core.name);
        sync::timeout(closing.deadline, &name, core.until_idle()).await;
        let (in_time, rest) = closing.abort();
        sync::timeout(rest, &name, core.until_idle()).await;
        closing.end(in_time)
    }

    /// As [`close`](Self::close), for a thread that may block.
    ///
    /// # Blocking
    ///
    /// Blocks at most `timeout` and 100 ms; a pool's worker lends its place. On a thread that drives an event loop it doesn't wait
    /// at all: new work is refused from then on, and the report says `would_deadlock` and how much
    /// is in flight.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = callbridge::Bridge::new(runtime.handle().clone());
    /// let mut never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    /// let report = bridge.close_blocking(Duration::from_millis(5));
    /// assert_eq!((report.cut_off, report.stuck.len()), (1, 0));
    /// assert!(never.result(None).is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn close_blocking(&self, timeout: impl Into<Option<Duration>>) -> CloseReport {
        let core = &self.owner.core;
        let closing = Closing::begin(core, timeout.into());
        if !core.is_idle() && drives_a_loop() {
            return closing.report(closing.before, true);
        }
        let _idle = core.wait_idle(closing.deadline);
        let (in_time, rest) = closing.abort();
        let _idle = core.wait_idle(rest);
        closing.end(in_time)
    }

    /// Refuses new work and cancels the child tokens, as closing begins; waits for nothing.
    #[cfg(feature = "runner")]
    pub(crate) fn begin_close(&self) {
        self.owner.core.begin_close();
    }
}
