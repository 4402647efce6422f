//! What happens when everything around the crate goes wrong: sources, peers, callbacks, limits of the
//! system, and a loop that goes away in the middle.

#[path = "../common/mod.rs"]
mod common;

mod callbacks;
#[cfg(target_os = "linux")]
mod limits;
mod lost_loop;
mod peers;
mod source;

use std::time::Instant;

/// Waits for a state that another thread brings about.
fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < common::LONG, "never came: {what}");
        std::thread::yield_now();
    }
}
