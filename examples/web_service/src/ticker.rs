//! How long the loop kept a task waiting that had something to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A task that wants to run every few milliseconds. Dropping it ends the task.
pub(crate) struct Ticker {
    /// In nanoseconds.
    longest: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Ticker {
    pub(crate) const PERIOD: Duration = Duration::from_millis(5);

    pub(crate) fn start() -> Self {
        let longest = Arc::new(AtomicU64::new(0));
        let gap = Arc::clone(&longest);
        let task = tokio::spawn(async move {
            let mut ticks = interval(Self::PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            let mut last = Instant::now();
            loop {
                ticks.tick().await;
                let now = Instant::now();
                let nanos = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
                gap.fetch_max(nanos, Ordering::Relaxed);
                last = now;
            }
        });
        Ticker { longest, task }
    }

    /// The longest time between two ticks.
    pub(crate) fn longest_gap(&self) -> Duration {
        Duration::from_nanos(self.longest.load(Ordering::Relaxed))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.task.abort();
    }
}
