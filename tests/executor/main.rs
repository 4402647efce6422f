//! Blocking work for async programs: the pool, its ways in and out, cancels, the limiter, the dedicated
//! thread.
//!
//! Ids in doc comments (C7, A41, G1) name the rows of Python's test suites that a test carries over;
//! `tests/PEERS.md` says what doesn't carry over.

#[path = "../common/child.rs"]
mod child;
#[path = "../common/mod.rs"]
mod common;

mod cancel;
mod capacity;
mod close;
mod cycles;
mod dedicated;
mod delivery;
#[cfg(unix)]
mod fork;
mod initializer;
mod lending;
mod limiter;
mod map;
mod pool;
mod rebuilding;
mod scope;
mod stress;
mod threads;
mod untaken;

use callbridge::bridge::CloseReport;
use callbridge::{BlockingFuture, ThreadPool};
use common::LONG;
use std::sync::mpsc;

fn pool_of(workers: usize) -> ThreadPool {
    ThreadPool::builder().max_workers(workers).build().unwrap()
}

/// A job that blocks until the returned sender is dropped, and tells that it has begun.
fn blocker(pool: &ThreadPool) -> (mpsc::Sender<()>, BlockingFuture<()>) {
    let (release, blocked) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let job = pool.submit(move || {
        began.send(()).unwrap();
        let _ = blocked.recv();
    });
    begun.recv_timeout(LONG).unwrap();
    (release, job)
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONG, future).await.expect("it hangs") })
}

fn clean(report: &CloseReport) {
    assert!(report.is_clean(), "{report}");
}
