//! `ThreadRunner::shared`.

use crate::common::LONG;
use crate::{assert_clean, here};
use callbridge::ThreadRunner;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// A lock for tests that use the one shared runner.
static LEASES: Mutex<()> = Mutex::new(());

/// A53: leases that overlap share a loop.
#[test]
fn overlapping_leases_share_a_loop() {
    let _one_at_a_time = LEASES.lock().unwrap_or_else(PoisonError::into_inner);
    let lease = ThreadRunner::shared();
    let expected = lease.spawn(here()).result(LONG).unwrap();
    let other = || ThreadRunner::shared().spawn(here()).result(LONG).unwrap();
    let others: Vec<_> = (0..4).map(|_| thread::spawn(other)).collect();
    for other in others {
        assert_eq!(other.join().unwrap(), expected);
    }
    assert_eq!(lease.clone().spawn(here()).result(LONG).unwrap(), expected);
}

/// A52, b112: a lease after the last one starts a loop of its own; none is left.
#[test]
fn a_lease_after_the_last_starts_again() {
    let _one_at_a_time = LEASES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bridges = Vec::new();
    for _ in 0..3 {
        let lease = ThreadRunner::shared();
        lease.run(async {}).unwrap();
        bridges.push(lease.bridge().unwrap());
    }
    assert!(bridges.iter().all(callbridge::Bridge::is_closed), "the last lease stops the loop");
}

#[test]
fn a_shared_runner_that_was_closed_is_replaced() {
    let _one_at_a_time = LEASES.lock().unwrap_or_else(PoisonError::into_inner);
    let closed = ThreadRunner::shared();
    assert_clean(&closed.close(LONG));
    let fresh = ThreadRunner::shared();
    assert_eq!(fresh.run(async { 1 }).unwrap(), 1);
    drop(closed);
    assert_eq!(ThreadRunner::shared().run(async { 2 }).unwrap(), 2);
}
