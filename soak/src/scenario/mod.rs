//! What runs in a round. Each scenario gives the number of things it has checked.

mod calls;
mod channel;
mod executor;
mod legacy;
mod runner;
mod stream;
mod udp;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) type Scenario = fn(u64) -> u64;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("udp-stream", udp::streamed),
    ("udp-serve", udp::served),
    ("tcp-stream", stream::tcp_streamed),
    ("tcp-serve", stream::tcp_served),
    ("unix-stream", stream::unix_streamed),
    ("restarts", stream::restarted),
    ("legacy-loop", legacy::loops),
    ("calls", calls::submitted),
    ("lost-loop", calls::loop_lost),
    ("channel", channel::policies),
    ("executor", executor::jobs),
    ("runner", runner::loops),
];

/// What a panic on purpose says; such panics aren't printed.
const ON_PURPOSE: &str = "on purpose";

/// Where a panic ends the process, none is made on purpose.
const PANICS: bool = cfg!(panic = "unwind");

pub(crate) fn expect_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&ON_PURPOSE) {
            usual(info);
        }
    }));
}

/// Counts how many of its guards are alive.
#[derive(Clone, Default)]
struct Census(Arc<AtomicUsize>);

struct Alive(Census);

impl Census {
    fn guard(&self) -> Alive {
        self.0.fetch_add(1, Ordering::SeqCst);
        Alive(self.clone())
    }

    /// Waits until no guard is alive: what a shutdown has cancelled may be dropped a moment later.
    fn empties(&self) {
        let deadline = std::time::Instant::now() + crate::check::PATIENCE;
        while self.0.load(Ordering::SeqCst) > 0 {
            assert!(std::time::Instant::now() < deadline, "work was neither run nor dropped");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}
