use super::card::StuckJob;
use crate::future::lone_promise;
use crate::sync::context::drives_a_loop;
use crate::sync::prim::thread;
use crate::sync::{Deadline, lend};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long jobs that were told to stop are waited for after the deadline.
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// How an executor shut down.
///
/// # Examples
///
/// See [`ThreadPool::shutdown_blocking`](super::ThreadPool::shutdown_blocking).
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "it names what did not stop"]
pub struct ShutdownReport {
    /// Jobs that were still queued at the deadline and never began.
    pub refused: usize,
    /// Jobs that are still running, each with the thread that it blocks.
    pub stuck: Vec<StuckJob>,
    /// Threads that haven't ended.
    pub threads_left: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// It did not wait: the calling thread drives an event loop, or is one of the executor's own.
    pub would_deadlock: bool,
}

impl ShutdownReport {
    /// Whether every accepted job ran to its end and every thread ended, in time.
    ///
    /// # Examples
    ///
    /// See [`ThreadPool::shutdown_blocking`](super::ThreadPool::shutdown_blocking).
    pub fn is_clean(&self) -> bool {
        self.refused == 0 && self.stuck.is_empty() && self.threads_left == 0
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShutdownReport { refused, threads_left, elapsed, .. } = self;
        write!(f, "shut down in {elapsed:?}: {refused} refused, {threads_left} threads left")?;
        for job in &self.stuck {
            write!(f, ", stuck: {job}")?;
        }
        Ok(())
    }
}

/// Something that can be closed and waited for: a pool, or a dedicated thread.
pub(super) trait ShutDown: Send + Sync + 'static {
    fn name(&self) -> &str;
    /// Refuses new work; what is queued still runs.
    fn close(&self);
    /// Waits for the threads to end; how many are left.
    fn wait_gone(&self, deadline: Deadline) -> usize;
    /// Resolves what is queued; how many jobs that were.
    fn refuse_queued(&self) -> usize;
    fn cancel_running(&self);
    fn stuck(&self) -> Vec<StuckJob>;
    fn is_own_thread(&self) -> bool;
}

pub(super) fn shutdown_blocking(target: &dyn ShutDown, deadline: Duration) -> ShutdownReport {
    let started = Instant::now();
    target.close();
    let report = |refused, threads_left, would_deadlock| ShutdownReport {
        refused,
        stuck: if threads_left > 0 { target.stuck() } else { Vec::new() },
        threads_left,
        elapsed: started.elapsed(),
        would_deadlock,
    };
    let left = target.wait_gone(Deadline::after(Some(Duration::ZERO)));
    if left == 0 {
        return report(target.refuse_queued(), 0, false);
    }
    if target.is_own_thread() || drives_a_loop() {
        return report(0, left, true);
    }
    let _lent = lend();
    if target.wait_gone(Deadline::after(Some(deadline))) == 0 {
        return report(target.refuse_queued(), 0, false);
    }
    let refused = target.refuse_queued();
    target.cancel_running();
    let left = target.wait_gone(Deadline::after(Some(GRACE)));
    report(refused, left, false)
}

/// As [`shutdown_blocking`], with the waiting done by a short-lived thread.
pub(super) async fn shutdown<S: ShutDown>(target: Arc<S>, deadline: Duration) -> ShutdownReport {
    let started = Instant::now();
    target.close();
    let (promise, report) = lone_promise();
    let waiting = Arc::clone(&target);
    let thread = thread::Builder::new()
        .name(format!("{}-shutdown", target.name()))
        .spawn(move || promise.resolve(Ok(shutdown_blocking(&*waiting, deadline))));
    let report = match thread {
        Ok(_detached) => report.await.ok(),
        Err(_) => None,
    };
    let since_the_call = |report| ShutdownReport { elapsed: started.elapsed(), ..report };
    report.map(since_the_call).unwrap_or_else(|| {
        // No thread to wait on: refuse and cancel at once instead of never.
        let refused = target.refuse_queued();
        target.cancel_running();
        ShutdownReport {
            refused,
            stuck: target.stuck(),
            threads_left: target.wait_gone(Deadline::after(Some(Duration::ZERO))),
            elapsed: started.elapsed(),
            would_deadlock: false,
        }
    })
}
