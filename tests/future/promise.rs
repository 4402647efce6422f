//! `promise`: a future that is completed by hand.

use crate::common::{Alive, Census, LONG, Loop, SHORT};
use callbridge::future::{FutureState, promise};
use callbridge::{ResultError, as_completed};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

#[test]
fn a_completed_value_reaches_whoever_waits_or_awaits() {
    let (completer, mut future) = promise();
    let waiter = thread::spawn(move || future.result(LONG));
    completer.complete(1);
    assert_eq!(waiter.join().unwrap().unwrap(), 1);
    for runtime in Loop::both() {
        let (completer, future) = promise();
        let mut call = runtime.bridge().run_coroutine_threadsafe(future);
        completer.complete(2);
        assert_eq!(call.result(LONG).unwrap().unwrap(), 2);
    }
}

#[test]
fn a_value_that_came_first_is_there() {
    let (completer, mut future) = promise();
    assert_eq!(future.state(), FutureState::Queued);
    let late = future.result(SHORT);
    assert!(matches!(late, Err(ResultError::TimedOut { state: FutureState::Queued })));
    completer.complete("early");
    assert_eq!(future.state(), FutureState::Finished);
    assert_eq!(future.result(Duration::ZERO).unwrap(), "early");
    assert!(matches!(future.result(None), Err(ResultError::AlreadyTaken)));
}

/// Nobody is left waiting by a completer that is dropped, or unwound over.
#[test]
fn a_completer_that_is_dropped_cancels() {
    let (completer, mut future) = promise::<u8>();
    let waiter = thread::spawn(move || future.result(None));
    drop(completer);
    assert!(matches!(waiter.join().unwrap(), Err(ResultError::Cancelled)));
    let (completer, mut future) = promise::<u8>();
    let panicking = thread::spawn(move || {
        let _completer = completer;
        panic!("on purpose");
    });
    assert!(matches!(future.result(None), Err(ResultError::Cancelled)));
    panicking.join().unwrap_err();
}

/// A cancel only asks: whoever completes decides.
#[test]
fn a_cancel_is_seen_and_binds_nobody() {
    let (completer, mut future) = promise();
    assert!(!completer.is_cancelled());
    assert!(future.cancel() && !future.cancel());
    assert!(completer.is_cancelled());
    assert!(matches!(future.result(SHORT), Err(ResultError::TimedOut { .. })));
    completer.complete(1);
    assert_eq!(future.result(None).unwrap(), 1);
    let (completer, future) = promise::<u8>();
    drop(future.cancel_on_drop());
    assert!(completer.is_cancelled());
}

#[test]
fn a_value_that_nobody_waits_for_is_dropped_where_it_is_completed() {
    let census = Census::default();
    let (completer, future) = promise();
    drop(future);
    completer.complete(census.guard());
    assert_eq!(census.alive(), 0);
    struct Faulty(#[allow(dead_code)] Alive);
    impl Drop for Faulty {
        fn drop(&mut self) {
            panic!("a destructor's own fault");
        }
    }
    let (completer, future) = promise();
    drop(future);
    completer.complete(Faulty(census.guard()));
    let (completer, future) = promise();
    completer.complete(Faulty(census.guard()));
    drop(future);
    assert_eq!(census.alive(), 0);
}

#[test]
fn callbacks_run_on_the_thread_that_completes() {
    let (completer, future) = promise();
    let (said, heard) = mpsc::channel();
    for n in 0..3 {
        let said = said.clone();
        future.add_done_callback(move |state| {
            said.send((n, state, thread::current().id())).unwrap();
        });
    }
    completer.complete(());
    let here = thread::current().id();
    for n in 0..3 {
        assert_eq!(heard.try_recv().unwrap(), (n, FutureState::Finished, here));
    }
}

#[test]
fn as_completed_yields_them_in_the_order_of_their_completion() {
    let (completers, futures): (Vec<_>, Vec<_>) = (0..4).map(|_| promise()).unzip();
    let ended = thread::spawn(move || {
        as_completed(futures, LONG).map(|done| done.unwrap().result(None).unwrap()).collect()
    });
    for (n, completer) in completers.into_iter().enumerate().rev() {
        completer.complete(n);
    }
    let mut ended: Vec<usize> = ended.join().unwrap();
    ended.sort_unstable();
    assert_eq!(ended, [0, 1, 2, 3]);
}
