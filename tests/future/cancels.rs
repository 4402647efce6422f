//! Cancels: before the first poll, while it runs, at the end, by a drop.

use crate::common::{Census, LONG, Loop, SHORT};
use callbridge::ResultError;
use callbridge::future::FutureState;
use std::future::pending;
use std::sync::mpsc;
use std::thread;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// C19: a waiter is woken by the end, and by a cancel from another thread. b25. Kotlin: the cleanup
/// has run by then. b123. rust-pcap: a break handle may outlive what it breaks.
#[test]
fn a_blocked_waiter_is_woken_by_a_cancel() {
    for runtime in Loop::both() {
        let census = Census::default();
        let guard = census.guard();
        let mut never = runtime.bridge().run_coroutine_threadsafe(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        let canceller = never.canceller();
        let (waiting, waits) = mpsc::channel();
        let waiter = thread::spawn(move || {
            waiting.send(()).unwrap();
            (never.result(LONG), census.alive())
        });
        waits.recv_timeout(LONG).unwrap();
        assert!(canceller.cancel());
        assert!(matches!(waiter.join().unwrap(), (Err(ResultError::Cancelled), 0)));
        assert!(!canceller.cancel(), "it has ended");
    }
}

/// C16: cancel before the first poll: the body never runs.
#[test]
fn a_call_cancelled_before_its_first_poll_never_runs() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = callbridge::Bridge::new(undriven.handle().clone());
    let census = Census::default();
    let guard = census.guard();
    let (ran, runs) = mpsc::channel();
    let mut call = bridge.run_coroutine_threadsafe(async move {
        let _guard = guard;
        ran.send(()).unwrap();
    });
    assert!(call.cancel());
    assert!(!call.cancel(), "asked before");
    assert!(!call.is_cancelled(), "asked is not ended");
    let waited = call.cancel_and_wait(SHORT);
    assert!(matches!(waited, Err(ResultError::TimedOut { state: FutureState::NotStarted })));
    assert!(matches!(undriven.block_on(&mut call), Err(ResultError::Cancelled)));
    assert!(call.is_cancelled());
    assert!(runs.try_recv().is_err());
    assert_eq!(census.alive(), 0);
}

/// b109. UniFFI: cancelled, its side effect never happens. C87: a cancel doesn't wait for a poll that is
/// running; who wants to wait is told that it runs.
#[test]
fn a_running_call_is_dropped_at_its_next_await() {
    for runtime in Loop::both() {
        let census = Census::default();
        let guard = census.guard();
        let (began, begun) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let (went_on, goes_on) = mpsc::channel();
        let mut call = runtime.bridge().run_coroutine_threadsafe(async move {
            let _guard = guard;
            began.send(()).unwrap();
            let _ = blocked.recv_timeout(LONG);
            went_on.send(1).unwrap();
            pending::<()>().await;
            went_on.send(2).unwrap();
        });
        begun.recv_timeout(LONG).unwrap();
        assert!(call.cancel());
        let waited = call.cancel_and_wait(SHORT);
        let is_running =
            matches!(waited, Err(ResultError::TimedOut { state: FutureState::Running }));
        assert!(is_running, "it is inside a poll: {waited:?}");
        drop(release);
        call.wait(LONG).unwrap();
        assert_eq!(call.state(), FutureState::Cancelled);
        assert_eq!(census.alive(), 0, "cancelled means ended");
        assert_eq!(goes_on.iter().collect::<Vec<_>>(), [1]);
    }
}

/// b108: work that finishes first stays finished, however close the cancel comes.
#[test]
fn a_cancel_that_races_the_end_leaves_one_outcome() {
    let runtime = Loop::multi(2);
    let bridge = runtime.bridge();
    for round in 0..2_000 {
        let mut call = bridge.run_coroutine_threadsafe(async move {
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            round
        });
        // A little later each time, so that some cancel meets the value as it is stored.
        (0..round).for_each(|_| std::hint::spin_loop());
        let asked = call.cancel();
        match call.result(LONG) {
            Ok(value) => assert_eq!(value, round),
            Err(ResultError::Cancelled) => assert!(asked),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(bridge.stats().balances());
    assert_eq!(bridge.in_flight(), 0);
}

#[test]
fn a_finished_call_does_not_take_a_cancel() {
    let runtime = Loop::multi(1);
    let mut call = runtime.bridge().run_coroutine_threadsafe(async { 1 });
    call.wait(LONG).unwrap();
    assert!(!call.cancel());
    assert_eq!(call.cancel_and_wait(LONG).unwrap(), FutureState::Finished);
    assert_eq!(call.result(None).unwrap(), 1);
}

#[test]
fn cancel_on_drop_cancels_and_a_plain_drop_does_not() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let (held, released) = mpsc::channel::<()>();
    let call = bridge.run_coroutine_threadsafe(async move {
        let _held = held;
        pending::<()>().await;
    });
    drop(call.cancel_on_drop());
    assert_eq!(released.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));

    let (go, wait_for_it) = oneshot::channel::<()>();
    let (said, heard) = mpsc::channel();
    drop(bridge.run_coroutine_threadsafe(async move {
        let _ = wait_for_it.await;
        said.send("went on").unwrap();
    }));
    go.send(()).unwrap();
    assert_eq!(heard.recv_timeout(LONG), Ok("went on"));
}
