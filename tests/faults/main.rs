//! What happens when everything around the crate goes wrong: callbacks, limits of the
//! system, a loop that goes away in the middle, and a process that ends.

#[path = "../common/child.rs"]
mod child;
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
#[path = "../common/limits.rs"]
mod limited;

mod callbacks;
mod exit;
#[cfg(target_os = "linux")]
mod limits;
mod lost_loop;

use std::time::Instant;

/// Waits for a state that another thread brings about.
fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < common::LONG, "never came: {what}");
        std::thread::yield_now();
    }
}
