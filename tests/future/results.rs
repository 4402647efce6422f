//! `BlockingFuture`: waiting with and without a timeout, and what a wait says.

use crate::common::{LONG, Loop, SHORT};
use callbridge::future::FutureState;
use callbridge::{BlockingFuture, ResultError};
use std::future::pending;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

fn is_auto<T: Send + Sync + Unpin>() {}

#[test]
fn the_types_cross_threads_and_errors_box_with_question_mark() {
    is_auto::<BlockingFuture<u8>>();
    is_auto::<callbridge::Bridge>();
    is_auto::<callbridge::future::Canceller>();
    is_auto::<ResultError>();
    fn boxes(mut call: BlockingFuture<u8>) -> Result<u8, Box<dyn std::error::Error + Send + Sync>> {
        Ok(call.result(LONG)?)
    }
    let runtime = Loop::multi(1);
    assert_eq!(boxes(runtime.bridge().run_coroutine_threadsafe(async { 1 })).unwrap(), 1);
}

/// C1, C2, A6, A15, b78
#[test]
fn a_thread_gets_the_value_or_the_error_of_the_work() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let thread = thread::spawn(move || {
            let ok = bridge.run_coroutine_threadsafe(async { Ok::<_, String>(1) }).result(LONG);
            let error = bridge.run_coroutine_threadsafe(async { Err::<u8, _>("no") }).result(LONG);
            (ok, error)
        });
        let (ok, error) = thread.join().unwrap();
        assert_eq!(ok.unwrap(), Ok(1));
        assert_eq!(error.unwrap(), Err("no"));
    }
}

/// C3, c28: a timeout bounds the wait, not the work.
#[test]
fn a_timed_out_call_goes_on_and_can_be_waited_for_again() {
    for runtime in Loop::both() {
        let (reply, asked) = oneshot::channel();
        let (began, begun) = mpsc::channel();
        let mut call = runtime.bridge().run_coroutine_threadsafe(async move {
            began.send(()).unwrap();
            asked.await.unwrap()
        });
        begun.recv_timeout(LONG).unwrap();
        for _ in 0..2 {
            let error = call.result(SHORT).unwrap_err();
            assert!(matches!(error, ResultError::TimedOut { state: FutureState::Running }));
            assert!(error.to_string().ends_with("wait again, or cancel it"), "{error}");
        }
        reply.send(5).unwrap();
        assert_eq!(call.result(LONG).unwrap(), 5);
        assert!(matches!(call.result(None), Err(ResultError::AlreadyTaken)));
        assert_eq!(call.state(), FutureState::Finished, "taken or not, it finished");
    }
}

#[test]
fn zero_answers_at_once_and_max_does_not_overflow() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let mut never = bridge.run_coroutine_threadsafe(pending::<()>());
        assert!(matches!(never.result(Duration::ZERO), Err(ResultError::TimedOut { .. })));
        assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(Duration::MAX).unwrap(), 1);
        never.cancel();
        assert!(matches!(never.result(Duration::MAX), Err(ResultError::Cancelled)));
    }
}

/// b130: the deadline is std's, so it holds where no timer of the runtime would fire.
#[test]
fn a_loop_that_nobody_drives_is_told_from_one_that_is_busy() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = callbridge::Bridge::new(undriven.handle().clone());
    let mut call = bridge.run_coroutine_threadsafe(async { 7 });
    assert!(matches!(
        call.result(SHORT),
        Err(ResultError::TimedOut { state: FutureState::NotStarted })
    ));
    assert_eq!(undriven.block_on(&mut call).unwrap(), 7);

    let busy = Loop::current();
    let (release, blocked) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let bridge = busy.bridge();
    let blocker = bridge.run_coroutine_threadsafe(async move {
        began.send(()).unwrap();
        let _ = blocked.recv_timeout(LONG);
    });
    begun.recv_timeout(LONG).unwrap();
    let mut queued = bridge.run_coroutine_threadsafe(async {});
    let error = queued.result(SHORT).unwrap_err();
    let ResultError::TimedOut { state } = error else { panic!("{error:?}") };
    assert!(matches!(state, FutureState::NotStarted | FutureState::Queued), "{state:?}");
    drop(release);
    queued.result(LONG).unwrap();
    drop(blocker);
}

#[test]
fn a_runtime_without_a_time_driver_times_out_all_the_same() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let mut never =
        callbridge::Bridge::new(runtime.handle().clone()).run_coroutine_threadsafe(pending::<()>());
    assert!(matches!(never.result(SHORT), Err(ResultError::TimedOut { .. })));
}

/// The same wait, timed out behind a task that blocks the loop, doesn't blame a missing driver.
#[test]
fn a_timeout_behind_a_task_that_blocks_the_loop_says_so() {
    let runtime = Loop::current();
    let bridge = runtime.bridge();
    bridge.run_coroutine_threadsafe(async {}).result(LONG).unwrap();
    let release = runtime.hold();
    let mut call = bridge.run_coroutine_threadsafe(async {});
    let said = call.result(SHORT).unwrap_err().to_string();
    assert!(said.contains("or something blocks it"), "{said}");
    release.send(()).unwrap();
    call.result(LONG).unwrap();
}

#[test]
fn debug_shows_the_state_and_never_the_value() {
    let runtime = Loop::multi(1);
    let mut call = runtime.bridge().run_coroutine_threadsafe(async { "secret" });
    call.wait(LONG).unwrap();
    let text = format!("{call:?}");
    assert!(text.contains("Finished") && !text.contains("secret"), "{text}");
}

#[test]
fn many_threads_wait_at_once() {
    let runtime = Loop::multi(2);
    let bridge = runtime.bridge();
    let start = Arc::new(Barrier::new(32));
    let threads: Vec<_> = (0..32_usize)
        .map(|n| {
            let (bridge, start) = (bridge.clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                (0..200)
                    .map(|k| {
                        let mut call = bridge.run_coroutine_threadsafe(async move { n * k });
                        call.result(LONG).unwrap()
                    })
                    .sum::<usize>()
            })
        })
        .collect();
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), n * (0..200).sum::<usize>());
    }
}
