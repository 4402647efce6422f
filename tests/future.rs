//! `BlockingFuture`: waiting, states, cancel, callbacks, panics; `wait` and `as_completed`.
//!
//! Letters with numbers are rows of peers; `tests/PEERS.md` says whose.

mod common;

use callbridge::future::{FutureState, ReturnWhen};
use callbridge::{BlockingFuture, ResultError, WaitError, as_completed, wait};
use common::{Census, LONG, Loop, SHORT};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// A value whose destructor needs the loop, or panics, may be left unread, and dropped by the loop or
/// by the thread that drops the future.
#[test]
fn a_value_that_nobody_reads_may_need_the_loop_or_panic_in_its_drop() {
    struct NeedsTheLoop(mpsc::Sender<bool>);
    impl Drop for NeedsTheLoop {
        fn drop(&mut self) {
            let spawned = tokio::runtime::Handle::try_current().is_ok();
            let _ = self.0.send(spawned);
            if spawned {
                drop(tokio::spawn(async {}));
            }
            panic!("a destructor's own fault");
        }
    }
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let (said, heard) = mpsc::channel();
        let (go, gone) = oneshot::channel::<()>();
        let value = NeedsTheLoop(said.clone());
        drop(bridge.run_coroutine_threadsafe(async move {
            let _ = gone.await;
            value
        }));
        go.send(()).unwrap();
        assert!(heard.recv_timeout(LONG).unwrap(), "dropped on the loop, inside its context");
        let value = NeedsTheLoop(said);
        let mut call = bridge.run_coroutine_threadsafe(async move { value });
        call.wait(LONG).unwrap();
        drop(call);
        heard.recv_timeout(LONG).unwrap();
        assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(LONG).unwrap(), 1);
        assert!(bridge.close_blocking(LONG).is_clean());
    }
}

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

/// b72, b78, b110: the payload is kept, whatever it is, and other work goes on.
#[test]
fn a_panic_keeps_its_payload_and_harms_nobody_else() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let mut other = bridge.run_coroutine_threadsafe(pending::<()>());
        let mut first_poll = bridge.run_coroutine_threadsafe(async { panic!("at {}", "once") });
        let mut later = bridge.run_coroutine_threadsafe(async {
            tokio::task::yield_now().await;
            std::panic::panic_any(7_u32)
        });
        let Err(ResultError::Panicked(panic)) = first_poll.result(LONG) else { panic!() };
        assert_eq!(panic.message(), "at once");
        assert_eq!(panic.to_string(), "at once");
        let Err(ResultError::Panicked(panic)) = later.result(LONG) else { panic!() };
        let payload = catch_unwind(AssertUnwindSafe(|| panic.resume_unwind())).unwrap_err();
        assert_eq!(payload.downcast_ref::<u32>(), Some(&7));
        assert_eq!(later.state(), FutureState::Panicked);
        assert!(matches!(later.result(None), Err(ResultError::AlreadyTaken)));
        assert!(matches!(other.result(SHORT), Err(ResultError::TimedOut { .. })));
        assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(LONG).unwrap(), 1);
    }
}

/// b74. napi-rs: an error is dropped on whichever thread has it last.
#[test]
fn an_error_may_be_dropped_on_another_thread() {
    struct TellsWhere(mpsc::Sender<thread::ThreadId>);
    impl Drop for TellsWhere {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
        }
    }
    let runtime = Loop::multi(1);
    let (said, heard) = mpsc::channel();
    let payload = TellsWhere(said);
    let mut call: BlockingFuture<()> =
        runtime.bridge().run_coroutine_threadsafe(async { std::panic::panic_any(payload) });
    let error = call.result(LONG).unwrap_err();
    let dropper = thread::spawn(move || drop(error));
    let there = dropper.thread().id();
    dropper.join().unwrap();
    assert_eq!(heard.recv_timeout(LONG), Ok(there));
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("in a destructor");
        }
    }
}

#[test]
fn destructors_that_panic_on_the_loop_are_contained() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    // The future's own, at its end and at its cancel.
    let mut finished = bridge.run_coroutine_threadsafe({
        let bomb = PanicsInDrop;
        let mut polled = false;
        std::future::poll_fn(move |_| {
            let _ = &bomb;
            assert!(!std::mem::replace(&mut polled, true));
            std::task::Poll::Ready(3)
        })
    });
    assert_eq!(finished.result(LONG).unwrap(), 3);
    let mut cancelled = bridge.run_coroutine_threadsafe(async {
        let _bomb = PanicsInDrop;
        pending::<()>().await;
    });
    assert_eq!(cancelled.cancel_and_wait(LONG).unwrap(), FutureState::Cancelled);
    // A value that nobody waits for any more.
    let (go, wait_for_it) = oneshot::channel::<()>();
    let (ended, end) = mpsc::channel();
    let unread = bridge.run_coroutine_threadsafe(async move {
        let _ = wait_for_it.await;
        PanicsInDrop
    });
    unread.add_done_callback(move |state| ended.send(state).unwrap());
    drop(unread);
    go.send(()).unwrap();
    assert_eq!(end.recv_timeout(LONG), Ok(FutureState::Finished));
    assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(LONG).unwrap(), 1);
}

/// C79: awaitable too, on its own loop and on another.
#[test]
fn a_blocking_future_can_be_awaited() {
    let elsewhere = Loop::multi(1);
    let bridge = elsewhere.bridge();
    let here = Builder::new_current_thread().build().unwrap();
    let nested = bridge.clone();
    let sum = here.block_on(async {
        let outer = bridge.run_coroutine_threadsafe(async move {
            nested.run_coroutine_threadsafe(async { 40 }).await.unwrap() + 2
        });
        outer.await.unwrap()
    });
    assert_eq!(sum, 42);
}

/// C78: an awaiting task is given whatever became of the call.
#[test]
fn awaiting_gives_the_value_the_panic_or_the_cancel() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let here = Builder::new_current_thread().build().unwrap();
    let ended = bridge.run_coroutine_threadsafe(pending::<()>());
    here.block_on(async {
        assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).await.unwrap(), 1);
        let panicked = bridge.run_coroutine_threadsafe(async { panic!("over there") });
        let error = panicked.await.unwrap_err();
        assert!(matches!(error, ResultError::Panicked(panic) if panic.message() == "over there"));
        let cancelled = bridge.run_coroutine_threadsafe(pending::<()>());
        assert!(cancelled.cancel());
        assert!(matches!(cancelled.await, Err(ResultError::Cancelled)));
    });
    drop(runtime);
    assert!(matches!(here.block_on(ended), Err(ResultError::LoopClosed)));
}

#[test]
fn debug_shows_the_state_and_never_the_value() {
    let runtime = Loop::multi(1);
    let mut call = runtime.bridge().run_coroutine_threadsafe(async { "secret" });
    call.wait(LONG).unwrap();
    let text = format!("{call:?}");
    assert!(text.contains("Finished") && !text.contains("secret"), "{text}");
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
