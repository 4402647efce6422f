//! Long chains of calls, each of which waits for the one before it.

mod common;

use callbridge::{BlockingFuture, Bridge, ResultError};
use common::{LONG, Loop};
use std::thread;
use std::time::Duration;

const CALLS: usize = 50_000;

/// The last call of the chain.
fn chain(bridge: &Bridge) -> BlockingFuture<()> {
    let mut last = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    for _ in 1..CALLS {
        let before = last;
        last = bridge.run_coroutine_threadsafe(async move { drop(before.await) });
    }
    last
}

fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(256 * 1024).spawn(body).unwrap().join().unwrap();
}

#[test]
fn a_chain_is_closed_on_a_small_stack() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        on_a_small_stack(move || {
            let mut last = chain(&bridge);
            let report = bridge.close_blocking(Duration::from_millis(100));
            assert_eq!(report.cancelled + report.in_flight, CALLS, "{report}");
            assert!(matches!(last.result(LONG), Ok(()) | Err(ResultError::LoopClosed)));
        });
    }
}

#[test]
fn a_chain_is_dropped_with_its_loop_on_a_small_stack() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        on_a_small_stack(move || {
            let mut last = chain(&bridge);
            drop(runtime);
            assert!(matches!(last.result(LONG), Ok(()) | Err(ResultError::LoopClosed)));
            assert_eq!(bridge.in_flight(), 0);
        });
    }
}
