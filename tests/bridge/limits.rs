//! The limit of calls in flight, and bridges that share a loop.

use crate::common::{LONG, Loop, SHORT, eventually};
use callbridge::future::{FutureState, SubmitError};
use callbridge::{Bridge, ResultError};
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// b28. Kotlin: a limited view never runs more at a time.
#[test]
fn the_limit_is_never_exceeded_and_every_submitter_gets_in() {
    let runtime = Loop::multi(2);
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(3).build().unwrap();
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
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(1).build().unwrap();
    let first = bridge.try_run_coroutine_threadsafe(pending::<()>()).unwrap();
    let refused = bridge.try_run_coroutine_threadsafe(std::future::ready(2)).unwrap_err();
    assert!(matches!(refused, SubmitError::Full(_)));
    assert_eq!(format!("{refused:?}"), "Full(..)");
    assert_eq!(refused.into_inner().into_inner(), 2);
    drop(first.cancel_on_drop());
    eventually("the slot is free", || bridge.in_flight() == 0);
    assert!(bridge.close_blocking(LONG).is_clean());
    let refused = bridge.try_run_coroutine_threadsafe(std::future::ready(3)).unwrap_err();
    assert!(matches!(refused, SubmitError::Closed(_)));
    assert_eq!(bridge.stats().refused, 2);
}

#[test]
fn the_timed_form_waits_for_a_slot_until_its_deadline() {
    let runtime = Loop::multi(1);
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(1).build().unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let _first = bridge.run_coroutine_threadsafe(ended);
    for timeout in [Duration::ZERO, SHORT] {
        let late = bridge.run_coroutine_threadsafe_timeout(std::future::ready(1), timeout);
        let Err(error @ SubmitError::TimedOut(_)) = late else { panic!() };
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
        let bridge = Bridge::builder(runtime.handle()).max_in_flight(1).build().unwrap();
        let first = bridge.run_coroutine_threadsafe(pending::<()>());
        let submitters: Vec<_> = (0..4)
            .map(|_| {
                let bridge = bridge.clone();
                thread::spawn(move || bridge.run_coroutine_threadsafe(async {}).result(LONG))
            })
            .collect();
        if by_close {
            assert_eq!(bridge.close_blocking(SHORT).cut_off, 1);
        } else {
            drop(runtime);
        }
        for submitter in submitters {
            assert!(matches!(submitter.join().unwrap(), Err(ResultError::LoopClosed)));
        }
        assert_eq!(first.state(), FutureState::LoopClosed);
    }
}

/// b30. Kotlin: a dispatcher that fails now and then leaks no permit.
#[test]
fn calls_that_panic_or_are_cancelled_give_their_places_back() {
    for runtime in Loop::both() {
        let bridge = Bridge::builder(runtime.handle()).max_in_flight(2).build().unwrap();
        for n in 0..150 {
            let call = bridge.run_coroutine_threadsafe(async move {
                match n % 3 {
                    0 => {}
                    1 => panic!("now and then"),
                    _ => pending().await,
                }
            });
            if n % 3 == 2 {
                call.cancel();
            }
        }
        eventually("all are done", || bridge.in_flight() == 0);
        let stats = bridge.stats();
        assert_eq!((stats.finished, stats.panicked, stats.cancelled), (50, 50, 50));
        let (_first, _second) = [(); 2]
            .map(|()| bridge.try_run_coroutine_threadsafe(pending::<()>()).expect("a place"))
            .into();
        let third = bridge.try_run_coroutine_threadsafe(pending::<()>());
        assert!(matches!(third, Err(SubmitError::Full(_))));
    }
}

/// b28. Kotlin: two views of one thread stay fair.
#[test]
fn a_flooded_bridge_leaves_the_loop_to_its_neighbour() {
    let runtime = Loop::current();
    let [flooded, calm] = [50, 1]
        .map(|limit| Bridge::builder(runtime.handle()).max_in_flight(limit).build().unwrap());
    // Each of these wakes itself for ever.
    let flood: Vec<_> = (0..50)
        .map(|_| {
            flooded.run_coroutine_threadsafe(poll_fn(|cx| {
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            }))
        })
        .collect();
    for n in 0..100 {
        let mut call = calm.run_coroutine_threadsafe(async move {
            tokio::task::yield_now().await;
            n
        });
        assert_eq!(call.result(LONG).unwrap(), n);
    }
    assert_eq!((flooded.in_flight(), calm.stats().finished), (50, 100));
    for call in flood {
        drop(call.cancel_on_drop());
    }
}

/// One slot, three threads that submit in a loop: who waits for room gets in.
#[test]
fn a_waiting_submitter_is_not_starved_by_busy_ones() {
    let runtime = Loop::multi(1);
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(1).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let (bridge, stop) = (bridge.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    drop(bridge.run_coroutine_threadsafe(async {}));
                }
            })
        })
        .collect();
    eventually("they are busy", || bridge.stats().submitted > 100);
    for _ in 0..200 {
        let in_time = bridge.run_coroutine_threadsafe_timeout(async {}, Duration::from_secs(5));
        assert!(in_time.is_ok(), "starved: {:?}", bridge.stats());
    }
    stop.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
}
