//! `ThreadRunner`, in the order of its life: the start, running, contexts, iterators, closing.
//!
//! Letters with numbers are rows of peers; `tests/PEERS.md` says whose.
#![cfg(feature = "runner")]

#[path = "../common/child.rs"]
mod child;
#[path = "../common/mod.rs"]
mod common;

mod cancel;
mod close;
mod contexts;
mod deadline;
mod exit;
mod exits;
#[cfg(unix)]
mod fork;
mod io;
mod iter;
mod leases;
mod readiness;
mod run;
mod settings;
mod start;
mod weak;
mod weights;

use callbridge::ThreadRunner;
use callbridge::runner::RunnerCloseReport;
use std::sync::mpsc;
use std::thread;
use tokio::runtime::{Builder, Runtime};

/// Runners of either flavour.
fn both() -> [ThreadRunner; 2] {
    [1, 2].map(|workers| ThreadRunner::builder().worker_threads(workers).build().unwrap())
}

async fn here() -> thread::ThreadId {
    thread::current().id()
}

fn assert_clean(report: &RunnerCloseReport) {
    assert!(report.is_clean(), "{report}");
}

/// A factory that waits until the sender goes, which is given back with it.
fn held_factory() -> (mpsc::Sender<()>, impl FnMut() -> std::io::Result<Runtime> + Send) {
    let (go, going) = mpsc::channel::<()>();
    let factory = move || {
        let _ = going.recv_timeout(common::LONG);
        Builder::new_current_thread().enable_all().build()
    };
    (go, factory)
}
