//! `call_soon_threadsafe`.

use crate::common::{Census, LONG, Loop, SHORT, eventually};
use callbridge::Bridge;
use callbridge::future::SubmitError;
use std::sync::mpsc;
use tokio::runtime::Builder;

/// b72
#[test]
fn a_panicking_callback_does_not_end_the_queue() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let (said, heard) = mpsc::channel();
    bridge.call_soon_threadsafe(|| panic!("in a callback")).unwrap();
    bridge.call_soon_threadsafe(move || said.send(()).unwrap()).unwrap();
    heard.recv_timeout(LONG).unwrap();
}

#[test]
fn callbacks_that_a_dead_loop_never_ran_are_dropped() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let census = Census::default();
    for _ in 0..10 {
        let guard = census.guard();
        bridge.call_soon_threadsafe(move || drop(guard)).unwrap();
    }
    assert_eq!(census.alive(), 10);
    drop(undriven);
    assert_eq!(census.alive(), 0);
    assert!(matches!(bridge.call_soon_threadsafe(|| {}), Err(SubmitError::Closed(_))));
}

/// They count against the limit, and a close that can't wait for them counts them.
#[test]
fn callbacks_that_pile_up_are_bounded_and_counted_at_the_close() {
    let runtime = Loop::current();
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(1_000).build().unwrap();
    let release = runtime.hold();
    let census = Census::default();
    for _ in 0..1_000 {
        let guard = census.guard();
        bridge.call_soon_threadsafe(move || drop(guard)).unwrap();
    }
    let full = bridge.try_call_soon_threadsafe(|| ());
    assert!(matches!(full, Err(SubmitError::Full(_))));
    let stats = bridge.stats();
    assert_eq!((stats.submitted, stats.in_flight, stats.refused), (1_000, 1_000, 1));
    let report = bridge.close_blocking(SHORT);
    assert_eq!((report.drained, report.in_flight, census.alive()), (0, 1_000, 1_000), "{report}");
    release.send(()).unwrap();
    eventually("they are dropped unrun", || census.alive() == 0 && bridge.in_flight() == 0);
    let stats = bridge.stats();
    assert!(stats.balances() && stats.loop_closed == 1_000, "{stats:?}");
}
