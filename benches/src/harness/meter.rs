//! What one round of one contestant took.

use super::alloc;
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::ClockId;
use std::time::{Duration, Instant};

/// Latencies in nanoseconds.
pub(crate) type Latency = Histogram<u64>;

/// A histogram that reaches from 1 ns to 10 s with two significant digits.
pub(crate) fn latency_histogram() -> Latency {
    let mut histogram = Histogram::new_with_bounds(1, 10_000_000_000, 2).expect("bounds are sane");
    histogram.auto(true);
    histogram
}

/// Reads the clocks and counters of the process at the start of a round.
pub(crate) struct Meter {
    wall: Instant,
    cpu: Duration,
    switches: u64,
    allocations: u64,
}

/// What a round took.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) ops: u64,
    pub(crate) wall: Duration,
    /// User and system time of the whole process.
    pub(crate) cpu: Duration,
    /// Voluntary context switches of the whole process.
    pub(crate) switches: u64,
    /// Allocations; only meaningful while the allocator counts.
    pub(crate) allocations: u64,
    pub(crate) latency: Option<Latency>,
    /// Anything else, by name, per operation or absolute as the name says.
    pub(crate) extra: Vec<(&'static str, f64)>,
}

impl Meter {
    pub(crate) fn start() -> Self {
        let (switches, allocations) = (switches(), alloc::allocations());
        Meter {
            switches,
            allocations,
            cpu: cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID),
            wall: Instant::now(),
        }
    }

    pub(crate) fn stop(self, ops: u64) -> Round {
        let wall = self.wall.elapsed();
        let cpu = cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID).saturating_sub(self.cpu);
        Round {
            ops,
            wall,
            cpu,
            switches: switches().saturating_sub(self.switches),
            allocations: alloc::allocations() - self.allocations,
            latency: None,
            extra: Vec::new(),
        }
    }
}

impl Round {
    pub(crate) fn with_latency(mut self, latency: Latency) -> Self {
        self.latency = Some(latency);
        self
    }

    pub(crate) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.extra.push((name, value));
        self
    }
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    cpu(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn cpu(clock: ClockId) -> Duration {
    clock.now().expect("the clock exists").into()
}

fn switches() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("rusage can be read");
    u64::try_from(usage.voluntary_context_switches()).unwrap_or(0)
}
