//! Panics of the work, and of the destructors of what it leaves.

use crate::common::{LONG, Loop, SHORT};
use callbridge::future::FutureState;
use callbridge::{BlockingFuture, ResultError};
use std::future::pending;
use std::sync::mpsc;
use std::thread;
use tokio::sync::oneshot;

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
        let payload = panic.into_payload();
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
