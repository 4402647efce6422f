//! `Bridge`: the limit of calls in flight.

mod common;

use callbridge::{Bridge, FutureState, ResultError, SubmitTimeoutError, TrySubmitError};
use common::{LONG, Loop, SHORT, eventually};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

#[test]
fn the_limit_is_never_exceeded_and_every_submitter_gets_in() {
    let runtime = Loop::multi(2);
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(3).build();
    let inside = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (bridge, inside) = (bridge.clone(), Arc::clone(&inside));
            thread::spawn(move || {
                for _ in 0..500 {
                    let inside = Arc::clone(&inside);
                    drop(bridge.run_coroutine_threadsafe(async move {
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    eventually("all are done", || bridge.in_flight() == 0);
    let stats = bridge.stats();
    assert_eq!((stats.submitted, stats.finished, stats.panicked), (4_000, 4_000, 0));
    assert_eq!(stats.high_water, 3);
}

#[test]
fn the_try_form_hands_the_future_back() {
    let runtime = Loop::multi(1);
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(1).build();
    let first = bridge.try_run_coroutine_threadsafe(pending::<()>()).unwrap();
    let refused = bridge.try_run_coroutine_threadsafe(std::future::ready(2)).unwrap_err();
    assert!(matches!(refused, TrySubmitError::Full(_)));
    assert_eq!(format!("{refused:?}"), "Full(..)");
    assert_eq!(refused.into_inner().into_inner(), 2);
    drop(first.cancel_on_drop());
    eventually("the slot is free", || bridge.in_flight() == 0);
    assert!(bridge.close_blocking(LONG).is_clean());
    let refused = bridge.try_run_coroutine_threadsafe(std::future::ready(3)).unwrap_err();
    assert!(matches!(refused, TrySubmitError::Closed(_)));
    assert_eq!(bridge.stats().refused, 2);
}

#[test]
fn the_timed_form_waits_for_a_slot_until_its_deadline() {
    let runtime = Loop::multi(1);
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(1).build();
    let (end, ended) = oneshot::channel::<()>();
    let _first = bridge.run_coroutine_threadsafe(ended);
    for timeout in [Duration::ZERO, SHORT] {
        let late = bridge.run_coroutine_threadsafe_timeout(std::future::ready(1), timeout);
        let Err(error @ SubmitTimeoutError::TimedOut(_)) = late else { panic!() };
        assert_eq!(error.into_inner().into_inner(), 1);
    }
    let waiting = bridge.clone();
    let submitter = thread::spawn(move || {
        waiting.run_coroutine_threadsafe_timeout(async { 2 }, LONG).unwrap().result(LONG)
    });
    end.send(()).unwrap();
    assert_eq!(submitter.join().unwrap().unwrap(), 2);
}

#[test]
fn a_blocked_submitter_is_released_by_close_and_by_the_loops_end() {
    for by_close in [true, false] {
        let runtime = Loop::multi(1);
        let bridge = Bridge::builder(runtime.handle()).max_in_flight(1).build();
        let first = bridge.run_coroutine_threadsafe(pending::<()>());
        let submitters: Vec<_> = (0..4)
            .map(|_| {
                let bridge = bridge.clone();
                thread::spawn(move || bridge.run_coroutine_threadsafe(async {}).result(LONG))
            })
            .collect();
        if by_close {
            assert_eq!(bridge.close_blocking(SHORT).cancelled, 1);
        } else {
            drop(runtime);
        }
        for submitter in submitters {
            assert!(matches!(submitter.join().unwrap(), Err(ResultError::LoopClosed)));
        }
        assert_eq!(first.state(), FutureState::LoopClosed);
    }
}

#[test]
#[should_panic(expected = "max_in_flight(0) would refuse every call")]
fn a_limit_of_zero_is_refused_with_a_reason() {
    let runtime = Loop::multi(1);
    let _ = Bridge::builder(runtime.handle()).max_in_flight(0);
}
