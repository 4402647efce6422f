//! A dedicated thread whose value was lost to a panic: poisoned, or built again.

use super::dedicated::bound;
use crate::common::{Census, LONG, SHORT, refusal, whole};
use callbridge::future::Refusal;
use callbridge::{DedicatedThread, ResultError};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

/// C76: a panic is a value for its caller; it poisons the thread, and everybody else is told why.
#[test]
fn a_panic_poisons() {
    let census = Census::default();
    let (build, drops) = bound(&census);
    let thread = DedicatedThread::spawn(build).result(LONG).unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let mut panicking = thread.submit(move |_| {
        let _ = blocked.recv();
        panic!("lost count");
    });
    let mut queued = thread.submit(|_| ());
    drop(release);
    assert!(matches!(panicking.result(LONG), Err(ResultError::Panicked(_))));
    let error = queued.result(LONG).unwrap_err();
    assert!(matches!(refusal(&error), Some(Refusal::Broken(_))), "{error:?}");
    assert!(whole(&error).contains("lost count"), "{error}");
    assert!(drops.recv_timeout(LONG).unwrap());
    let error = thread.call_blocking(|_| (), LONG).unwrap_err();
    assert!(whole(&error).contains("lost count"), "{error}");
    assert!(thread.is_closed());
    assert!(thread.close_blocking(LONG).is_clean());
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_panic_rebuilds_by_choice() {
    let census = Census::default();
    let (build, drops) = bound(&census);
    let thread = DedicatedThread::builder().spawn_rebuilding(build).result(LONG).unwrap();
    for _ in 0..3 {
        thread.call_blocking(|bound| bound.numbers.borrow_mut().push(1), LONG).unwrap();
        let panicked = thread.call_blocking(|_| panic!("lost count"), LONG);
        assert!(matches!(panicked, Err(ResultError::Panicked(_))));
        let length = thread.call_blocking(|bound| bound.numbers.borrow().len(), LONG);
        assert_eq!(length.unwrap(), 0, "a new value");
        assert!(drops.recv_timeout(LONG).unwrap(), "the old one was dropped at home");
        assert_eq!(census.alive(), 1);
    }
}

#[test]
fn rebuilds_that_fail_poison() {
    let builds = Arc::new(AtomicUsize::new(0));
    let build = move || match builds.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err("the device is gone"),
    };
    let builder = DedicatedThread::builder().rebuilds(2).rebuild_backoff(SHORT);
    let thread = builder.spawn_rebuilding(build).result(LONG).unwrap();
    assert!(thread.call_blocking(|()| panic!("once"), LONG).is_err());
    let error = thread.call_blocking(|()| (), LONG).unwrap_err();
    assert!(whole(&error).contains("the device is gone"), "{error}");
}

/// So many panics in a row, with pauses that grow; a good call in between starts anew.
#[test]
fn rebuilding_has_a_limit_and_pauses() {
    let builds = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&builds);
    let build = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok::<_, String>(())
    };
    let pause = std::time::Duration::from_millis(20);
    let builder = DedicatedThread::builder().rebuilds(3).rebuild_backoff(pause);
    let thread = builder.spawn_rebuilding(build).result(LONG).unwrap();
    let panics = || assert!(thread.call_blocking(|()| panic!("again"), LONG).is_err());
    for _ in 0..5 {
        panics();
        thread.call_blocking(|()| (), LONG).unwrap();
    }
    assert_eq!(builds.load(Ordering::SeqCst), 6);
    let began = std::time::Instant::now();
    for _ in 0..4 {
        panics();
    }
    assert!(began.elapsed() >= 3 * pause, "0, then 20 ms, then 40 ms");
    let error = thread.call_blocking(|()| (), LONG).unwrap_err();
    assert!(whole(&error).contains("again"), "{error}");
    assert_eq!(builds.load(Ordering::SeqCst), 9);
}

/// A device that comes back after a while: builds that fail are tried again.
#[test]
fn a_rebuild_that_fails_is_tried_again() {
    let builds = Arc::new(AtomicUsize::new(0));
    let build = move || match builds.fetch_add(1, Ordering::SeqCst) {
        0 | 3 => Ok(()),
        _ => Err("not there yet"),
    };
    let builder = DedicatedThread::builder().rebuilds(3).rebuild_backoff(SHORT);
    let thread = builder.spawn_rebuilding(build).result(LONG).unwrap();
    assert!(thread.call_blocking(|()| panic!("once"), LONG).is_err());
    thread.call_blocking(|()| (), LONG).unwrap();
}

/// A close ends the pause: what was accepted is served.
#[test]
fn a_close_does_not_wait_for_a_pause() {
    let builder = DedicatedThread::builder().rebuild_backoff(10 * LONG);
    let thread = builder.spawn_rebuilding(|| Ok::<_, String>(7)).result(LONG).unwrap();
    for _ in 0..2 {
        assert!(thread.call_blocking(|_| panic!("again"), LONG).is_err());
    }
    let mut accepted = thread.submit(|value| *value);
    assert!(thread.close_blocking(LONG).is_clean());
    assert_eq!(accepted.result(LONG).unwrap(), 7);
}
