//! Done callbacks, and who is told when nobody waits any more.

use crate::common::{Census, LONG, Loop};
use callbridge::ResultError;
use callbridge::future::FutureState;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// C10, C12: callbacks see the final state, in order; late ones run at once.
#[test]
fn done_callbacks_run_in_order_after_the_result_is_there() {
    for runtime in Loop::both() {
        let (reply, asked) = oneshot::channel::<()>();
        let (said, heard) = mpsc::channel();
        let bridge = runtime.bridge();
        let call = bridge.run_coroutine_threadsafe(async move { asked.await.is_ok() });
        for n in 0..3 {
            let said = said.clone();
            call.add_done_callback(move |state| said.send((n, state)).unwrap());
        }
        reply.send(()).unwrap();
        for n in 0..3 {
            assert_eq!(heard.recv_timeout(LONG).unwrap(), (n, FutureState::Finished));
            assert!(call.is_done());
        }
        // Until the last one has returned, a late one would run behind it.
        assert!(bridge.close_blocking(LONG).is_clean());
        let here = thread::current().id();
        let (late, came) = mpsc::channel();
        call.add_done_callback(move |_| late.send(thread::current().id()).unwrap());
        assert_eq!(came.try_recv(), Ok(here));
    }
}

/// One that is registered while an earlier one runs keeps its place behind those in between.
#[test]
fn done_callbacks_run_in_order_of_registration() {
    let runtime = Loop::multi(1);
    let (go, gone) = oneshot::channel::<()>();
    let call = runtime.bridge().run_coroutine_threadsafe(async move { gone.await.unwrap() });
    let (order, seen) = mpsc::channel();
    let (began, begun) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let [first, second, third] = [order.clone(), order.clone(), order];
    call.add_done_callback(move |_| {
        first.send(1).unwrap();
        began.send(()).unwrap();
        let _ = held.recv_timeout(LONG);
    });
    call.add_done_callback(move |_| second.send(2).unwrap());
    go.send(()).unwrap();
    begun.recv_timeout(LONG).unwrap();
    call.add_done_callback(move |_| third.send(3).unwrap());
    drop(release);
    assert_eq!(seen.iter().collect::<Vec<_>>(), [1, 2, 3]);
}

/// C11, C13: a panicking callback is contained and the next still runs.
#[test]
fn a_panicking_callback_is_contained() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let (reply, asked) = oneshot::channel::<()>();
    let (said, heard) = mpsc::channel();
    let call = bridge.run_coroutine_threadsafe(async move { asked.await.is_ok() });
    call.add_done_callback(|_| panic!("in a callback"));
    call.add_done_callback(move |_| said.send(()).unwrap());
    reply.send(()).unwrap();
    heard.recv_timeout(LONG).unwrap();
    call.add_done_callback(|_| panic!("in a late callback"));
    assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(LONG).unwrap(), 1);
}

/// b73. napi-rs: the awaiter gave up, and the answer came later. b117. UniFFI: an end after the
/// drop and a drop after the end are each told once.
#[test]
fn what_nobody_waits_for_any_more_is_told_and_dropped_once() {
    for drop_first in [true, false] {
        let runtime = Loop::multi(1);
        let census = Census::default();
        let guard = census.guard();
        let (reply, asked) = oneshot::channel::<()>();
        let (said, heard) = mpsc::channel();
        let mut call = runtime.bridge().run_coroutine_threadsafe(async move {
            asked.await.unwrap();
            guard
        });
        call.add_done_callback(move |state| said.send(state).unwrap());
        assert!(matches!(call.result(Duration::from_nanos(1)), Err(ResultError::TimedOut { .. })));
        let kept = (!drop_first).then_some(call);
        reply.send(()).unwrap();
        assert_eq!(heard.recv_timeout(LONG), Ok(FutureState::Finished));
        assert_eq!(heard.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
        drop(kept);
        drop(runtime);
        assert_eq!(census.alive(), 0);
    }
}
