//! `wait` and `as_completed`: several calls at once.

use crate::common::{Census, LONG, Loop, SHORT};
use callbridge::future::{FutureState, ReturnWhen};
use callbridge::{BlockingFuture, ResultError, WaitError, as_completed, wait};
use std::future::pending;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// A close gives up calls on a loop that isn't driven; every way to wait for them ends.
#[test]
fn wait_and_as_completed_end_when_a_close_gives_their_calls_up() {
    for gone_before in [true, false] {
        let undriven = Builder::new_current_thread().build().unwrap();
        let bridge = callbridge::Bridge::new(undriven.handle().clone());
        let mut calls = [(); 2].map(|()| bridge.run_coroutine_threadsafe(async {}));
        let close = || assert_eq!(bridge.close_blocking(Duration::ZERO).in_flight, 3);
        let others = [bridge.run_coroutine_threadsafe(async {})];
        if gone_before {
            close();
        }
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let (over, left) = wait(&mut calls, LONG, ReturnWhen::AllCompleted).unwrap();
                let results = over.into_iter().map(|call| call.result(LONG));
                assert!(results.into_iter().all(|it| matches!(it, Err(ResultError::LoopClosed))));
                assert_eq!(left.len(), 0);
            });
            let yielding = scope.spawn(|| {
                let mut over = as_completed(others, LONG);
                let result = over.next().unwrap().unwrap().result(LONG);
                assert!(matches!(result, Err(ResultError::LoopClosed)), "{result:?}");
                assert!(over.next().is_none());
            });
            if !gone_before {
                close();
            }
            waiting.join().unwrap();
            yielding.join().unwrap();
        });
    }
}

// wait

/// C30, C34
#[test]
fn wait_splits_into_done_and_not_done() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let mut done = bridge.run_coroutine_threadsafe(async {});
        done.wait(LONG).unwrap();
        let mut calls = [done, bridge.run_coroutine_threadsafe(pending())];
        let (done, not_done) = wait(&mut calls, SHORT, ReturnWhen::AllCompleted).unwrap();
        assert_eq!((done.len(), not_done.len()), (1, 1));
        let (done, not_done) = wait(&mut calls, None, ReturnWhen::FirstCompleted).unwrap();
        assert_eq!((done.len(), not_done.len()), (1, 1));
        let empty: &mut [BlockingFuture<()>] = &mut [];
        assert_eq!(wait(empty, None, ReturnWhen::FirstCompleted).unwrap().0.len(), 0);
    }
}

/// C29
#[test]
fn wait_returns_with_the_first_one_done() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let (reply, asked) = oneshot::channel();
        let mut calls = [
            bridge.run_coroutine_threadsafe(async { pending().await }),
            bridge.run_coroutine_threadsafe(async { asked.await.unwrap() }),
        ]
        .map(|call: BlockingFuture<u8>| call);
        let waiter = thread::spawn(move || {
            let (done, not_done) = wait(&mut calls, LONG, ReturnWhen::FirstCompleted).unwrap();
            (
                done.into_iter().map(|call| call.result(None).unwrap()).collect::<Vec<_>>(),
                not_done.len(),
            )
        });
        reply.send(3).unwrap();
        assert_eq!(waiter.join().unwrap(), (vec![3], 1));
    }
}

/// C31, C32, C33: successes don't end the wait for the first error; one that is there already does.
#[test]
fn wait_returns_with_the_first_error() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let (go, wait_for_it) = oneshot::channel::<()>();
        let mut done = bridge.run_coroutine_threadsafe(async {});
        done.wait(LONG).unwrap();
        let mut calls = [
            done,
            bridge.run_coroutine_threadsafe(pending()),
            bridge.run_coroutine_threadsafe(async {
                let _ = wait_for_it.await;
                panic!("first error")
            }),
        ]
        .map(|call: BlockingFuture<()>| call);
        let (done, not_done) = wait(&mut calls, SHORT, ReturnWhen::FirstError).unwrap();
        assert_eq!((done.len(), not_done.len()), (1, 2), "no error yet");
        go.send(()).unwrap();
        for timeout in [Some(LONG), None, Some(Duration::ZERO)] {
            let (done, not_done) = wait(&mut calls, timeout, ReturnWhen::FirstError).unwrap();
            let states: Vec<_> = done.iter().map(|call| call.state()).collect();
            assert_eq!(states, [FutureState::Finished, FutureState::Panicked]);
            assert_eq!(not_done.len(), 1);
        }
        let mut fine = [1, 2].map(|n| bridge.run_coroutine_threadsafe(async move { n }));
        let (done, _) = wait(&mut fine, LONG, ReturnWhen::FirstError).unwrap();
        assert_eq!(done.len(), 2, "no error: all completed");
    }
}

/// C35: a hundred futures that end at the same moment lose no wake.
#[test]
fn wait_loses_no_wake_when_all_end_at_once() {
    let runtime = Loop::multi(2);
    let bridge = runtime.bridge();
    for _ in 0..20 {
        let gate = Arc::new(tokio::sync::Barrier::new(100));
        let mut calls: Vec<_> = (0..100)
            .map(|_| {
                let gate = Arc::clone(&gate);
                bridge.run_coroutine_threadsafe(async move {
                    gate.wait().await;
                })
            })
            .collect();
        let (done, _) = wait(&mut calls, LONG, ReturnWhen::AllCompleted).unwrap();
        assert_eq!(done.len(), 100);
    }
}

// as_completed

/// C23
#[test]
fn as_completed_yields_each_future_once_in_the_order_of_their_ends() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let mut done = bridge.run_coroutine_threadsafe(async { 0 });
        done.wait(LONG).unwrap();
        let (replies, calls): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (reply, asked) = oneshot::channel();
                (reply, bridge.run_coroutine_threadsafe(async { asked.await.unwrap() }))
            })
            .unzip();
        let mut ended = as_completed(std::iter::once(done).chain(calls), LONG);
        let mut order = vec![ended.next().unwrap().unwrap().result(None).unwrap()];
        for (n, reply) in replies.into_iter().enumerate().rev() {
            reply.send(n + 1).unwrap();
            order.push(ended.next().unwrap().unwrap().result(None).unwrap());
        }
        assert_eq!(order, [0, 3, 2, 1]);
        assert!(ended.next().is_none());
    }
}

/// C24, C27
#[test]
fn as_completed_yields_the_done_ones_then_says_how_many_are_left() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    for timeout in [Duration::ZERO, SHORT] {
        let mut done = bridge.run_coroutine_threadsafe(async {});
        done.wait(LONG).unwrap();
        let mut ended = as_completed([done, bridge.run_coroutine_threadsafe(pending())], timeout);
        assert!(ended.next().unwrap().is_ok());
        let late = ended.next().unwrap().unwrap_err();
        assert_eq!((late.unfinished.len(), late.why), (1, WaitError::TimedOut));
        assert!(ended.next().is_none());
    }
    assert!(as_completed(Vec::<BlockingFuture<()>>::new(), None).next().is_none());
}

/// C26: what was yielded belongs to the caller alone.
#[test]
fn as_completed_keeps_nothing_of_what_it_has_yielded() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let census = Census::default();
    let calls = [(); 3].map(|()| {
        let guard = census.guard();
        bridge.run_coroutine_threadsafe(async move { guard })
    });
    let mut ended = as_completed(calls, LONG);
    for left in [2, 1, 0] {
        drop(ended.next().unwrap().unwrap());
        assert_eq!(census.alive(), left);
    }
    assert!(ended.next().is_none());
}
