//! `BlockingFuture`: what each of its methods says in every state, and cancels from odd places.

use crate::common::{Census, LONG, Loop};
use callbridge::future::{Canceller, FutureState, Refusal, SubmitError};
use callbridge::{BlockingFuture, Bridge, ResultError};
use std::collections::HashSet;
use std::future::pending;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

type Calls = [(FutureState, BlockingFuture<u8>); 6];

/// A call in each state that lasts, with the loops that keep it there.
fn in_every_state() -> (Calls, (Runtime, Loop)) {
    let undriven = Builder::new_current_thread().build().unwrap();
    let driven = Loop::multi(1);
    let bridge = driven.bridge();
    let not_started = Bridge::new(undriven.handle().clone()).run_coroutine_threadsafe(async { 0 });
    let (began, begun) = mpsc::channel();
    let running = bridge.run_coroutine_threadsafe(async move {
        began.send(()).unwrap();
        pending().await
    });
    begun.recv_timeout(LONG).unwrap();
    let mut cancelled = bridge.run_coroutine_threadsafe(pending());
    cancelled.cancel_and_wait(LONG).unwrap();
    let mut finished = bridge.run_coroutine_threadsafe(async { 1 });
    finished.wait(LONG).unwrap();
    let mut panicked = bridge.run_coroutine_threadsafe(async { panic!("on purpose") });
    panicked.wait(LONG).unwrap();
    let closed = driven.bridge();
    assert!(closed.close_blocking(LONG).is_clean());
    let refused = closed.run_coroutine_threadsafe(async { 2 });
    let calls = [
        (FutureState::NotStarted, not_started),
        (FutureState::Running, running),
        (FutureState::Cancelled, cancelled),
        (FutureState::Finished, finished),
        (FutureState::Panicked, panicked),
        (FutureState::LoopClosed, refused),
    ];
    (calls, (undriven, driven))
}

/// C18, C20: a zero timeout, in every state; `wait` takes nothing, so that `result` finds it all.
#[test]
fn a_zero_timeout_answers_at_once_in_every_state() {
    let (calls, _loops) = in_every_state();
    for (state, mut call) in calls {
        let waited = call.wait(Duration::ZERO);
        let result = call.result(Duration::ZERO);
        match state {
            FutureState::NotStarted | FutureState::Running => {
                for late in [waited.unwrap_err(), result.unwrap_err()] {
                    assert!(matches!(late, ResultError::TimedOut { state: of } if of == state));
                }
            }
            _ => {
                waited.unwrap();
                let as_expected = match &result {
                    Ok(value) => state == FutureState::Finished && *value == 1,
                    Err(ResultError::Cancelled) => state == FutureState::Cancelled,
                    Err(ResultError::Panicked(panic)) => {
                        state == FutureState::Panicked && panic.message() == "on purpose"
                    }
                    Err(ResultError::LoopClosed) => state == FutureState::LoopClosed,
                    Err(_) => false,
                };
                assert!(as_expected, "{state:?}: {result:?}");
            }
        }
    }
}

/// C16, C17
#[test]
fn predicates_and_cancel_in_every_state() {
    let (calls, _loops) = in_every_state();
    for (state, call) in calls {
        let pending = matches!(state, FutureState::NotStarted | FutureState::Running);
        assert_eq!(call.state(), state);
        assert_eq!(call.is_done(), !pending, "{state:?}");
        assert_eq!(call.is_running(), state == FutureState::Running, "{state:?}");
        assert_eq!(call.is_cancelled(), state == FutureState::Cancelled, "{state:?}");
        assert_eq!(call.cancel(), pending, "{state:?}");
        assert!(!call.cancel(), "asked before, or ended: {state:?}");
        if !pending {
            assert_eq!(call.state(), state, "a late cancel changes nothing");
        }
    }
}

/// C14
#[test]
fn debug_tells_the_states_apart() {
    let (calls, _loops) = in_every_state();
    for (state, call) in &calls {
        assert!(format!("{call:?}").contains(&format!("state: {state:?}")), "{call:?}");
    }
}

/// Whoever reads a log tells by the text alone what a call was doing, and why work was refused.
#[test]
fn each_state_and_each_refusal_has_a_text_of_its_own() {
    use FutureState::*;
    let states = [
        NoRoom,
        NotStarted,
        Queued,
        Running,
        Finished,
        Cancelled,
        Panicked,
        LoopClosed,
        WouldDeadlock,
        Refused,
        Abandoned,
    ];
    let texts: HashSet<_> = states.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), states.len(), "{texts:?}");

    let reason = Refusal::NotStarted(Arc::new(std::io::Error::other("no thread")));
    for (refused, text) in [
        (SubmitError::Full(()), "no room"),
        (SubmitError::TimedOut(()), "no room"),
        (SubmitError::WouldDeadlock(()), "event loop"),
        (SubmitError::Closed(()), "gone"),
        (SubmitError::Forked(()), "parent process"),
        (SubmitError::Refused(reason, ()), "see `source()`"),
    ] {
        let error = ResultError::from(refused);
        assert!(error.to_string().contains(text), "{error}");
    }
}

/// C22: many threads that look see the same history, and none of them sees it go back.
#[test]
fn states_read_from_many_threads_never_go_back() {
    fn age(state: FutureState) -> u8 {
        match state {
            FutureState::NotStarted => 0,
            FutureState::Queued => 1,
            FutureState::Running => 2,
            FutureState::Finished => 3,
            other => panic!("{other:?}"),
        }
    }
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        for _ in 0..20 {
            let (reply, asked) = oneshot::channel::<()>();
            let call = bridge.run_coroutine_threadsafe(async move { asked.await.is_ok() });
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let (mut reads, mut last) = (0, 0);
                        while reads < 1_000 || last < age(FutureState::Finished) {
                            let now = age(call.state());
                            assert!(now >= last, "{now} after {last}");
                            (reads, last) = (reads + 1, now);
                            thread::yield_now();
                        }
                    });
                }
                reply.send(()).unwrap();
            });
        }
    }
}

/// A body that is given its own canceller, cancels itself, and then does `rest`.
fn cancels_itself<R>(bridge: &Bridge, rest: R) -> BlockingFuture<u8>
where
    R: Future<Output = u8> + Send + 'static,
{
    let (give, given) = oneshot::channel::<Canceller>();
    let call = bridge.run_coroutine_threadsafe(async move {
        assert!(given.await.unwrap().cancel());
        rest.await
    });
    give.send(call.canceller()).unwrap();
    call
}

/// C4: a body that cancels itself ends at its next await. C88: if there is none, it finishes.
#[test]
fn a_body_that_cancels_itself_ends_at_its_next_await() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let census = Census::default();
        let guard = census.guard();
        let mut waits = cancels_itself(&bridge, async move {
            let _guard = guard;
            pending().await
        });
        assert!(matches!(waits.result(LONG), Err(ResultError::Cancelled)));
        assert_eq!(census.alive(), 0);
        let mut ends = cancels_itself(&bridge, async { 3 });
        assert_eq!(ends.result(LONG).unwrap(), 3);
        assert!(bridge.stats().balances());
    }
}

/// C6
#[test]
fn a_cancel_on_the_loops_own_thread_reaches_the_call() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let census = Census::default();
        let guard = census.guard();
        let mut call = bridge.run_coroutine_threadsafe(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        let canceller = call.canceller();
        let (said, heard) = mpsc::channel();
        bridge.call_soon_threadsafe(move || said.send(canceller.cancel()).unwrap()).unwrap();
        assert!(heard.recv_timeout(LONG).unwrap());
        assert!(matches!(call.result(LONG), Err(ResultError::Cancelled)));
        assert_eq!(census.alive(), 0);
    }
}
