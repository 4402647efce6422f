//! How calls ended, counted by the loop.

use super::stats::BridgeStats;
use crate::future::ResultError;
use crate::sync::prim::CachePadded;
use crate::sync::prim::atomic::AtomicU64;
use crate::sync::prim::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// How often a reader that meets a call half counted looks again.
const LOOKS: usize = 1_000;

/// What the loop writes, away from what submitters write.
pub(super) struct Counters(CachePadded<Ends>);

struct Ends {
    /// Calls begun.
    begun: AtomicU64,
    finished: AtomicU64,
    cancelled: AtomicU64,
    panicked: AtomicU64,
    loop_closed: AtomicU64,
    /// Ended calls whose result is there and whose callbacks have run.
    settled: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Counters(CachePadded(Ends {
            begun: zero(),
            finished: zero(),
            cancelled: zero(),
            panicked: zero(),
            loop_closed: zero(),
            settled: zero(),
            refused: zero(),
        }))
    }

    pub(super) fn begin(&self) {
        self.0.0.begun.fetch_add(1, Relaxed);
    }

    pub(super) fn begun(&self) -> u64 {
        self.0.0.begun.load(Relaxed)
    }

    pub(super) fn end(&self, failure: Option<&ResultError>) {
        let ends = &self.0.0;
        let counter = match failure {
            None => &ends.finished,
            Some(ResultError::Cancelled) => &ends.cancelled,
            Some(ResultError::Panicked(_)) => &ends.panicked,
            Some(_) => &ends.loop_closed,
        };
        // Pairs with the loads in `stats`: who sees that the call left has this in its view.
        counter.fetch_add(1, Release);
    }

    /// Counts calls that were ready when they were first polled.
    pub(super) fn finish(&self, calls: u64) {
        // Pairs as the addition in `end` does.
        self.0.0.finished.fetch_add(calls, Release);
    }

    /// Counts settled calls. Pairs with `see_settled`: whichever changes `settled` later has seen what
    /// the other one wrote before.
    pub(super) fn settle(&self, calls: u64) {
        self.0.0.settled.fetch_add(calls, AcqRel);
    }

    /// Who settles a call afterwards sees what was written before this.
    pub(super) fn see_settled(&self) {
        self.0.0.settled.fetch_add(0, AcqRel);
    }

    /// Pairs with `settle`: the callbacks of the calls counted here have run.
    pub(super) fn settled(&self) -> u64 {
        self.0.0.settled.load(Acquire)
    }

    pub(super) fn refuse(&self) {
        self.0.0.refused.fetch_add(1, Relaxed);
    }

    /// The counters at one moment: `limits` gives how many calls were admitted and have left.
    pub(super) fn stats(&self, limits: impl Fn() -> (u64, u64)) -> BridgeStats {
        let ends = &self.0.0;
        let mut stats = BridgeStats::default();
        for _ in 0..LOOKS {
            let (_, left_before) = limits();
            // Pair with the addition in `end`.
            stats.finished = ends.finished.load(Acquire);
            stats.cancelled = ends.cancelled.load(Acquire);
            stats.panicked = ends.panicked.load(Acquire);
            stats.loop_closed = ends.loop_closed.load(Acquire);
            let (submitted, left) = limits();
            stats.submitted = submitted;
            stats.in_flight = (submitted - left) as usize;
            // A call between its counter and its leaving would show as one too many.
            if left == left_before && stats.ended() == left {
                stats.refused = ends.refused.load(Relaxed);
                return stats;
            }
            std::hint::spin_loop();
        }
        // A thread was suspended between the two: its call has ended, and only its room isn't free yet.
        stats.in_flight = stats.submitted.saturating_sub(stats.ended()) as usize;
        stats.refused = ends.refused.load(Relaxed);
        stats
    }
}

#[cfg(all(test, not(any(callbridge_loom, callbridge_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_has_ended_and_not_left_is_shown_as_ended() {
        let counters = Counters::new();
        counters.end(None);
        let stats = counters.stats(|| (2, 0));
        assert!(stats.balances(), "{stats:?}");
        assert_eq!((stats.finished, stats.in_flight), (1, 1));
    }
}
