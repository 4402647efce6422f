//! `Bridge::call` of a future that is ready allocates nothing.
//!
//! A binary of its own, with one test, so that nobody else allocates meanwhile.

#[path = "common/heap.rs"]
mod heap;

use callbridge::Bridge;
use heap::{live_bytes, once_warm};
use std::time::Duration;

#[test]
fn nothing_is_allocated_for_a_future_that_is_ready() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let bridge = Bridge::new(runtime.handle().clone());
    for timeout in [None, Some(Duration::from_secs(60)), Some(Duration::ZERO)] {
        let before = live_bytes();
        let allocations = once_warm(|| {
            for n in 0..1_000_u64 {
                assert_eq!(bridge.call(async { n }, timeout).unwrap(), n);
            }
        });
        assert_eq!(allocations, 0, "{timeout:?}");
        assert!(live_bytes() - before < 4_096, "the thread's own parker and slot at most");
    }
}
