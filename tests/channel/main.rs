//! The channel, in the order of its API.
//!
//! Where a test carries over from a peer of another ecosystem, its comment says which peer has it,
//! with the row of `tests/PEERS.md`.

#[cfg(unix)]
#[path = "../common/child.rs"]
mod child;
#[path = "../common/mod.rs"]
mod common;

mod context;
mod control;
mod counters;
mod endings;
mod flush;
#[cfg(unix)]
mod fork;
mod gaps;
mod lifetimes;
mod overflow;
mod pressure;
mod ready;
mod receipts;
mod reserve;
mod send_async;
mod sender;
mod sink;
mod stream;
mod termination;
mod weights;

use callbridge::Sender;
use callbridge::channel::Stats;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Far more than anything here takes, so that a bug fails instead of hanging.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a body that may block, on a thread of its own.
fn within<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, result) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = done.send(body());
    });
    match result.recv_timeout(LIMIT) {
        Ok(value) => {
            thread.join().unwrap();
            value
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the body hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
    }
}

/// Waits for a state that another thread brings about.
fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < LIMIT, "never came: {what}");
        std::thread::yield_now();
    }
}

fn until_parked<T>(sender: &Sender<T>, senders: u64) {
    until("parked senders", || sender.stats().waiting == senders);
}

#[track_caller]
fn assert_balanced(stats: &Stats) {
    assert!(stats.balances(), "{stats:?}");
}

/// Polls once with a waker that does nothing.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A value that knows how many of its kind are alive.
#[derive(Debug)]
struct Live(Arc<AtomicUsize>);

impl Live {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Live(Arc::clone(count))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A waker that counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Both flavours of runtime.
fn runtimes() -> [tokio::runtime::Runtime; 2] {
    [
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    ]
}
