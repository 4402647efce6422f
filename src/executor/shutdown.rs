use super::card::StuckJob;
use crate::sync::context::drives_a_loop;
use crate::sync::{self, Deadline, wait};
use std::fmt;
use std::future::Future;
use std::pin::pin;
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
pub(super) trait ShutDown {
    fn name(&self) -> &str;
    /// Refuses new work; what is queued still runs.
    fn close(&self);
    fn threads_left(&self) -> usize;
    /// Ready when no thread is left.
    fn gone(&self) -> impl Future<Output = ()> + Send;
    /// Resolves what is queued; how many jobs that were.
    fn refuse_queued(&self) -> usize;
    fn cancel_running(&self);
    fn stuck(&self) -> Vec<StuckJob>;
    fn is_own_thread(&self) -> bool;
}

fn report(target: &impl ShutDown, started: Instant, refused: usize) -> ShutdownReport {
    let threads_left = target.threads_left();
    ShutdownReport {
        refused,
        stuck: if threads_left > 0 { target.stuck() } else { Vec::new() },
        threads_left,
        elapsed: started.elapsed(),
        would_deadlock: false,
    }
}

/// Ends what is left at the deadline; how many jobs were queued.
fn end(target: &impl ShutDown) -> usize {
    let refused = target.refuse_queued();
    target.cancel_running();
    refused
}

pub(super) fn shutdown_blocking(target: &impl ShutDown, deadline: Duration) -> ShutdownReport {
    let started = Instant::now();
    target.close();
    if target.threads_left() > 0 && (target.is_own_thread() || drives_a_loop()) {
        return ShutdownReport { would_deadlock: true, ..report(target, started, 0) };
    }
    let wait_gone = |deadline| {
        let mut gone = pin!(target.gone());
        target.threads_left() == 0 || wait(deadline, |cx| gone.as_mut().poll(cx)).is_ok()
    };
    if wait_gone(Deadline::after(deadline)) {
        return report(target, started, target.refuse_queued());
    }
    let refused = end(target);
    wait_gone(Deadline::after(GRACE));
    report(target, started, refused)
}

/// Nobody waits for the shutdown any more: it ends what is left at once.
struct EndOnDrop<'a, S: ShutDown>(Option<&'a S>);

impl<S: ShutDown> Drop for EndOnDrop<'_, S> {
    fn drop(&mut self) {
        self.0.map(end);
    }
}

pub(super) async fn shutdown(target: &impl ShutDown, deadline: Duration) -> ShutdownReport {
    let started = Instant::now();
    target.close();
    let mut patience = EndOnDrop(Some(target));
    let name = format!("{}-shutdown", target.name());
    let gone = sync::timeout(Deadline::after(deadline), &name, target.gone()).await;
    patience.0 = None;
    if gone.is_some() {
        return report(target, started, target.refuse_queued());
    }
    let refused = end(target);
    sync::timeout(Deadline::after(GRACE), &name, target.gone()).await;
    report(target, started, refused)
}
