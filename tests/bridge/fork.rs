//! A process that forks: the loop stays in the parent, and the child is told so.
//!
//! Each test runs in a process of its own, which forks.

use crate::child::in_a_child;
use crate::common::fork::in_a_fork;
use crate::common::tasks::until_all_others_sleep;
use crate::common::{LONG, Loop, SHORT};
use callbridge::future::{ReturnWhen, SubmitError};
use callbridge::{Bridge, ResultError, as_completed, wait};
use std::future::pending;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Lets the loop's threads go to sleep. A lock that one of them holds at the fork stays locked in the
/// child for ever, tokio's own among them: that can't be met.
fn settle(bridge: &Bridge) {
    bridge.run_coroutine_threadsafe(async {}).wait(LONG).unwrap();
    until_all_others_sleep();
}

fn forked<T: std::fmt::Debug>(result: &Result<T, ResultError>) {
    assert!(matches!(result, Err(ResultError::Forked)), "{result:?}");
}

#[test]
fn nothing_that_waits_hangs_in_a_forked_process() {
    in_a_child("fork::nothing_that_waits_hangs_in_a_forked_process", || {
        for runtime in Loop::both() {
            let bridge = Bridge::builder(runtime.handle()).max_in_flight(2).build().unwrap();
            let mut finished = bridge.run_coroutine_threadsafe(async { 6 });
            finished.wait(LONG).unwrap();
            let mut call = bridge.run_coroutine_threadsafe(pending::<()>());
            settle(&bridge);
            in_a_fork(|| {
                assert_eq!(finished.result(None).unwrap(), 6, "what is there is given");
                forked(&call.result(None));
                forked(&call.wait(LONG));
                forked(&call.cancel_and_wait(None));
                assert!(matches!(call.result(Duration::ZERO), Err(ResultError::TimedOut { .. })));
                let polled = pin!(&mut call).poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(polled, Poll::Ready(Err(ResultError::Forked))), "{polled:?}");
                // What the calling thread does alone works; what needs the loop is told.
                assert_eq!(bridge.call(async { 7 }, None).unwrap(), 7);
                forked(&bridge.call(pending::<()>(), None));
                let _second = bridge.try_run_coroutine_threadsafe(async {}).unwrap();
                forked(&bridge.call(async {}, None));
                forked(&bridge.run_coroutine_threadsafe(async {}).result(None));
                let refused = bridge.run_coroutine_threadsafe_timeout(async {}, LONG).unwrap_err();
                assert!(matches!(refused, SubmitError::Forked(_)), "{refused:?}");
                let refused = bridge.call_soon_threadsafe(|| {}).unwrap_err();
                assert!(matches!(refused, SubmitError::Forked(_)), "{refused:?}");
                let report = bridge.close_blocking(None);
                assert!(!report.is_clean() && report.in_flight == 2, "{report}");
            });
            // The parent's has noticed nothing.
            assert_eq!(
                call.cancel_and_wait(LONG).unwrap(),
                callbridge::future::FutureState::Cancelled
            );
            assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(LONG).unwrap(), 1);
            assert!(bridge.close_blocking(LONG).is_clean());
        }
    });
}

#[test]
fn wait_and_as_completed_dont_hang_in_a_forked_process() {
    in_a_child("fork::wait_and_as_completed_dont_hang_in_a_forked_process", || {
        let runtime = Loop::multi(1);
        let bridge = runtime.bridge();
        let mut calls = [(); 3].map(|()| bridge.run_coroutine_threadsafe(pending::<()>()));
        settle(&bridge);
        in_a_fork(|| {
            for when in
                [ReturnWhen::AllCompleted, ReturnWhen::FirstCompleted, ReturnWhen::FirstError]
            {
                assert_eq!(wait(&mut calls, None, when).unwrap().0.len(), 3, "{when:?}");
            }
            let mut yielded = 0;
            for over in as_completed(calls, None) {
                forked(&over.unwrap().result(None));
                yielded += 1;
            }
            assert_eq!(yielded, 3);
        });
    });
}

#[test]
fn a_new_runtime_and_bridge_work_in_a_forked_process() {
    in_a_child("fork::a_new_runtime_and_bridge_work_in_a_forked_process", || {
        let runtime = Loop::multi(1);
        let bridge = runtime.bridge();
        bridge.run_coroutine_threadsafe(async {}).result(LONG).unwrap();
        let _pending = bridge.run_coroutine_threadsafe(pending::<()>());
        settle(&bridge);
        in_a_fork(|| {
            for own in Loop::both() {
                let bridge = own.bridge();
                let slept = async { tokio::time::sleep(Duration::from_millis(1)).await };
                bridge.run_coroutine_threadsafe(slept).result(LONG).unwrap();
                assert_eq!(bridge.call(async { 1 }, LONG).unwrap(), 1);
                let late = bridge.call(pending::<()>(), SHORT);
                assert!(matches!(late, Err(ResultError::TimedOut { .. })));
                assert!(bridge.close_blocking(LONG).is_clean());
            }
        });
    });
}
